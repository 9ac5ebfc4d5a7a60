"""Who may see more than "ok": one pure decision, without Flask, so that it can be tested whole.

Outside LOCAL a platform's front end may stand before the bridge and be open to everybody. So a
loopback peer counts only as long as nothing says that somebody forwarded the request for it: a
front end in the same container is a loopback peer, too.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple

FORWARDING_HEADERS = frozenset({"forwarded", "via"})
FORWARDING_PREFIXES = ("x-forwarded", "x-appengine-")

_own_host = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{0,5})?", re.IGNORECASE)


class Caller(NamedTuple):
    """One request's sender. `peer`: the address at the other end of the connection, as the socket
    knows it; `headers`: as sent, names in any case, values decoded as Latin-1 (as WSGI has it)."""

    peer: str | None
    headers: Mapping[str, str]


def may_see(caller: Caller, token: str | None) -> bool:
    """Whether this caller may see the plant's figures (outside LOCAL, where everybody may).

    token: the token in force; None or an empty one opens nothing.
    """
    headers = {name.lower(): value for name, value in caller.headers.items()}
    return _shows_token(headers.get("authorization", ""), token) or _from_here(caller.peer, headers)


def _shows_token(authorization: str, token: str | None) -> bool:
    given = _credential(authorization)
    if not token or given is None:
        return False
    return hmac.compare_digest(given, token.encode())


def _credential(authorization: str) -> bytes | None:
    scheme, _, rest = authorization.strip().partition(" ")
    rest_bytes = rest.strip().encode("latin-1", "backslashreplace")
    if scheme.lower() == "bearer":
        return rest_bytes
    return _password(rest_bytes) if scheme.lower() == "basic" else None


def _password(encoded: bytes) -> bytes | None:
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return None
    _, colon, password = decoded.partition(b":")
    return password if colon else None


def _from_here(peer: str | None, headers: Mapping[str, str]) -> bool:
    return (
        _is_loopback(peer)
        and not any(_tells_of_forwarding(name) for name in headers)
        and _own_host.fullmatch(headers.get("host", "")) is not None
    )


def _tells_of_forwarding(name: str) -> bool:
    return name in FORWARDING_HEADERS or name.startswith(FORWARDING_PREFIXES)


def _is_loopback(peer: str | None) -> bool:
    try:
        address = ipaddress.ip_address(peer or "")
    except ValueError:
        return False
    # A socket that listens on IPv6 and IPv4 alike shows an IPv4 peer as ::ffff:a.b.c.d.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
