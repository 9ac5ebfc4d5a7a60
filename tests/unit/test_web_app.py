"""The routes: status, bodies, who sees what, and the headers of every answer."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from bridge.web.app import create_app
from tests.support.daemon import FakeDaemon, calm_state, line, sink_state

TOKEN = "correct-horse-battery"
OUTSIDE = {"Host": "bridge.example", "X-Forwarded-For": "203.0.113.9"}
BEARER = OUTSIDE | {"Authorization": f"Bearer {TOKEN}"}
CLOSED = ["/", "/ledger", "/metrics", "/nothing-here", "/static/main.js", "//livez/x", "/livez/"]


def client(daemon: FakeDaemon, local: bool = False, token: str | None = TOKEN) -> FlaskClient:
    return create_app(daemon, token=lambda: token, local=local).test_client()


def in_trouble() -> FakeDaemon:
    sinks = (
        sink_state("pubsub", pending=3, oldest_pending_seconds=1.5, last_error="unavailable"),
        sink_state("bigquery", held="no table: run provision"),
    )
    return FakeDaemon(
        calm_state(unready="the journal is full", loss="9 readings", sinks=sinks),
        {"MOR": line(1)},
        stalled_part="the intake has made no progress for 61 s",
    )


SINKS = {
    "pubsub": {
        "pending": 3,
        "oldest_pending_seconds": 1.5,
        "held": None,
        "last_error": "unavailable",
    },
    "bigquery": {
        "pending": 0,
        "oldest_pending_seconds": 0.0,
        "held": "no table: run provision",
        "last_error": None,
    },
}


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_tells_a_stranger_one_word(path: str) -> None:
    good = client(FakeDaemon()).get(path, headers=OUTSIDE)
    assert (good.status_code, good.data) == (200, b'{"status": "ok"}')
    bad = client(in_trouble()).get(path, headers=OUTSIDE)
    assert (bad.status_code, bad.data) == (503, b'{"status": "unavailable"}')


def test_liveness_gives_the_reason_and_the_sinks_to_those_who_may_see() -> None:
    answer = client(in_trouble()).get("/livez", headers=BEARER)
    assert answer.status_code == 503
    assert answer.json == {
        "status": "unavailable",
        "reason": "the intake has made no progress for 61 s",
        "sinks": SINKS,
    }


def test_readiness_gives_the_loss_as_well() -> None:
    answer = client(in_trouble()).get("/readyz", headers=BEARER)
    assert answer.status_code == 503
    assert answer.json == {
        "status": "unavailable",
        "reason": "the journal is full",
        "sinks": SINKS,
        "loss": "9 readings",
    }


def test_the_reason_is_null_while_all_is_well() -> None:
    answer = client(FakeDaemon()).get("/readyz", headers=BEARER)
    assert answer.json is not None
    assert answer.json["status"] == "ok"
    assert answer.json["reason"] is None
    assert answer.json["loss"] is None


def test_neither_a_held_sink_nor_an_unready_bridge_fails_liveness() -> None:
    daemon = in_trouble()
    daemon.stalled_part = None
    assert client(daemon).get("/livez", headers=OUTSIDE).status_code == 200


def test_neither_a_held_sink_nor_a_loss_makes_the_bridge_unready() -> None:
    daemon = FakeDaemon(calm_state(loss="9 readings", sinks=(sink_state(held="no table"),)))
    assert client(daemon).get("/readyz", headers=OUTSIDE).status_code == 200


def test_a_strangers_liveness_probe_reads_no_figures() -> None:
    daemon = FakeDaemon()
    daemon.asked.clear()
    client(daemon).get("/livez", headers=OUTSIDE)
    assert daemon.asked == []


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_a_stranger_gets_401_for_everything_else(path: str, method: str) -> None:
    answer = client(in_trouble()).open(path, method=method, headers=OUTSIDE)
    assert answer.status_code == 401
    challenges = answer.headers.get_all("WWW-Authenticate")
    assert [challenge.split()[0] for challenge in challenges] == ["Bearer", "Basic"]
    assert answer.data in (b"", b'{"error": "unauthorized"}')


@pytest.mark.parametrize("path", ["/", "/ledger", "/metrics"])
def test_token_password_and_loopback_open(path: str) -> None:
    bridge = client(FakeDaemon())
    password = base64.b64encode(f"operator:{TOKEN}".encode()).decode()
    assert bridge.get(path, headers=BEARER).status_code == 200
    basic = OUTSIDE | {"Authorization": f"Basic {password}"}
    assert bridge.get(path, headers=basic).status_code == 200
    assert bridge.get(path, headers={"Host": "127.0.0.1:8080"}).status_code == 200


def test_in_local_everybody_sees_everything() -> None:
    bridge = client(in_trouble(), local=True, token=None)
    assert bridge.get("/ledger", headers=OUTSIDE).status_code == 200
    answer = bridge.get("/livez", headers=OUTSIDE)
    assert answer.json is not None
    assert answer.json["sinks"] == SINKS


def test_the_token_in_force_is_asked_at_each_request() -> None:
    tokens = ["first-token", "second-token"]
    app = create_app(FakeDaemon(), token=lambda: tokens.pop(0), local=False).test_client()
    headers = OUTSIDE | {"Authorization": "Bearer second-token"}
    assert [app.get("/ledger", headers=headers).status_code for _ in range(2)] == [401, 200]


@pytest.mark.parametrize(
    "error", [FileNotFoundError("gone"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")]
)
def test_an_unreadable_token_opens_nothing_and_is_logged(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable() -> str:
        raise error

    app = create_app(FakeDaemon(), token=unreadable, local=False).test_client()
    assert app.get("/ledger", headers=BEARER).status_code == 401
    assert app.get("/livez", headers=BEARER).data == b'{"status": "ok"}'
    assert app.get("/ledger", headers={"Host": "localhost"}).status_code == 200
    assert "the HTTP token cannot be read" in caplog.text


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/ledger", "/"])
def test_head_answers_like_get_without_a_body(path: str) -> None:
    bridge = client(FakeDaemon())
    answer = bridge.head(path, headers=BEARER)
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.content_type == bridge.get(path, headers=BEARER).content_type


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
@pytest.mark.parametrize("path", ["/livez", "/ledger", "/"])
def test_a_wrong_method_is_refused_with_the_right_ones(path: str, method: str) -> None:
    answer = client(FakeDaemon()).open(path, method=method, headers=BEARER)
    assert answer.status_code == 405
    assert set(re.split(r",\s*", answer.headers["Allow"])) == {"GET", "HEAD"}


def test_a_wrong_method_on_a_health_path_is_told_to_a_stranger_too() -> None:
    assert client(FakeDaemon()).post("/livez", headers=OUTSIDE).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/livez/",
        "/ledger/x",
        "/static/page.py",
        "/static/../app.py",
        "/a//b",
        "/x//ledger",
    ],
)
def test_an_unknown_path_is_404_for_those_who_may_see(path: str) -> None:
    answer = client(FakeDaemon()).get(path, headers=BEARER)
    assert answer.status_code == 404
    assert answer.json == {"error": "not found"}


@pytest.mark.parametrize("host", ["", "bad host", "[", "ü", "localhost:99999", "..:x"])
def test_no_host_header_keeps_a_health_probe_from_its_answer(host: str) -> None:
    headers = {"Host": host.encode().decode("latin-1")}
    assert client(FakeDaemon()).get("/livez", headers=headers).status_code == 200


def test_a_host_that_can_be_no_name_is_a_bad_request_and_tells_nothing() -> None:
    answer = client(in_trouble()).get("/ledger", headers=BEARER | {"Host": "a" * 300})
    assert (answer.status_code, answer.json) == (400, {"error": "bad request"})


@pytest.mark.parametrize("path", ["/", "/livez", "/metrics", "/nothing", "/ledger"])
@pytest.mark.parametrize("headers", [OUTSIDE, BEARER])
def test_every_answer_carries_the_protective_headers(path: str, headers: dict[str, str]) -> None:
    answer = client(FakeDaemon()).get(path, headers=headers)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none';")


def test_the_policy_allows_only_what_comes_from_here() -> None:
    answer = client(FakeDaemon()).get("/", headers=BEARER)
    policy = answer.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert answer.content_type == "text/html; charset=utf-8"
    assert not re.search(r"<script>|<style|\sstyle=|\son[a-z]+=|https?://", answer.text)


def test_the_parts_of_the_page_are_kept_by_the_browser_until_they_change() -> None:
    bridge = client(FakeDaemon())
    first = bridge.get("/static/main.js", headers=BEARER)
    assert first.status_code == 200
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = bridge.get("/static/main.js", headers=BEARER | {"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_ledger_is_json_of_the_contracts_shape() -> None:
    answer = client(FakeDaemon(sites={"Süd": line(2)}, taken=2)).get("/ledger", headers=BEARER)
    assert answer.content_type == "application/json"
    document: Any = json.loads(answer.data)
    assert set(document) == {"balanced", "sites", "totals"}
    assert document["sites"]["Süd"]["received"] == document["totals"]["taken"] == 2
    assert set(document["totals"]["sinks"]) == {"pubsub", "bigquery"}


def test_the_metrics_are_prometheus_text() -> None:
    answer = client(FakeDaemon()).get("/metrics", headers=BEARER)
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert "bridge_journal_bytes 4096.0" in answer.text


def test_a_failing_snapshot_is_a_500_without_its_details() -> None:
    class Broken(FakeDaemon):
        def ledger(self) -> Any:
            raise RuntimeError("secret detail")

    answer = client(Broken()).get("/ledger", headers=BEARER)
    assert (answer.status_code, answer.json) == (500, {"error": "internal server error"})
