"""The access rule: who may see more than the health word."""

from __future__ import annotations

import base64

import pytest

from bridge.web.access import Caller, may_see

TOKEN = "correct-horse-battery"


def local_caller(**headers: str) -> Caller:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Caller("127.0.0.1", {"Host": "localhost:8080"} | named)


def stranger(authorization: str) -> Caller:
    headers = {"Host": "bridge.example", "X-Forwarded-For": "203.0.113.9"}
    return Caller("203.0.113.9", headers | {"Authorization": authorization})


def basic(credentials: bytes) -> str:
    return "Basic " + base64.b64encode(credentials).decode()


@pytest.mark.parametrize(
    "peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "::FFFF:7f00:1"]
)
def test_a_loopback_peer_with_a_local_host_may_see(peer: str) -> None:
    assert may_see(Caller(peer, {"Host": "localhost"}), None)


@pytest.mark.parametrize(
    "peer",
    ["10.0.0.5", "169.254.1.1", "::ffff:10.0.0.5", "fe80::1", "2001:db8::1", "", "localhost", None],
)
def test_any_other_peer_may_not_see(peer: str | None) -> None:
    assert not may_see(Caller(peer, {"Host": "localhost"}), None)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:65535"],
)
def test_each_local_form_of_host_lets_a_loopback_peer_see(host: str) -> None:
    assert may_see(Caller("::1", {"hOsT": host}), None)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "bridge.example",
        "localhost.evil.example",
        "evil.example:80, localhost",
        "localhost, localhost",
        "localhost:80:80",
        "localhost:http",
        "localhost\n",
        "127.0.0.2",
        "::1",
        "[::1",
        "user@localhost",
        "localhost:٣",
    ],
)
def test_any_other_host_keeps_a_loopback_peer_out(host: str) -> None:
    assert not may_see(Caller("127.0.0.1", {"Host": host}), None)


def test_no_host_at_all_keeps_a_loopback_peer_out() -> None:
    assert not may_see(Caller("127.0.0.1", {}), None)


@pytest.mark.parametrize(
    "header",
    [
        "Forwarded",
        "forwarded",
        "Via",
        "VIA",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "x-forwarded-anything",
        "X-AppEngine-Country",
        "X-Appengine-User-Ip",
        "X-APPENGINE-HTTPS",
        "x-appengine-default-version-hostname",
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
def test_a_forwarded_request_is_no_local_one_whatever_the_header_says(
    header: str, value: str
) -> None:
    assert not may_see(Caller("127.0.0.1", {"Host": "localhost", header: value}), None)


def test_headers_that_only_resemble_forwarding_change_nothing() -> None:
    assert may_see(local_caller(User_Agent="via", X_Request_Id="1", Accept="*/*"), None)


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {TOKEN}",
        f"bearer   {TOKEN} ",
        basic(f"operator:{TOKEN}".encode()),
        basic(f":{TOKEN}".encode()),
    ],
)
def test_the_token_opens_from_anywhere(authorization: str) -> None:
    assert may_see(stranger(authorization), TOKEN)


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        TOKEN,
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        f"Digest {TOKEN}",
        basic(TOKEN.encode()),
        basic(f"{TOKEN}:operator".encode()),
        basic(f"a:b:{TOKEN}".encode()),
        f"Basic {TOKEN}",
        "Basic ====",
        "Basic \xff",
        "Basic €",
    ],
)
def test_anything_else_opens_nothing(authorization: str) -> None:
    assert not may_see(stranger(authorization), TOKEN)


def test_a_password_may_hold_colons() -> None:
    assert may_see(stranger(basic(b"operator:a:b:c:d:e")), "a:b:c:d:e")


def test_a_token_beyond_ascii_is_compared_as_utf_8() -> None:
    as_wsgi_has_it = "schlüssel".encode().decode("latin-1")
    assert may_see(stranger(f"Bearer {as_wsgi_has_it}"), "schlüssel")
    assert may_see(stranger(basic("operator:schlüssel".encode())), "schlüssel")


@pytest.mark.parametrize("token", [None, ""])
@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer None", basic(b"operator:")])
def test_without_a_token_no_credential_opens(token: str | None, authorization: str) -> None:
    assert not may_see(stranger(authorization), token)


def test_a_wrong_token_does_not_lock_a_local_caller_out() -> None:
    assert may_see(local_caller(Authorization="Bearer wrong"), TOKEN)
