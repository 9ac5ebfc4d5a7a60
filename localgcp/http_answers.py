"""Google's JSON answers over HTTP, and applying a fault to an HTTP call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response, request
from orjson import dumps
from waitress.channel import ClientDisconnected

from localgcp.faults import Fault, Faults

POLL_SECONDS = 0.05
Serve = Callable[[], Response]
_REASONS = {
    400: "invalid",
    401: "authError",
    403: "accessDenied",
    404: "notFound",
    405: "httpMethodNotAllowed",
    409: "duplicate",
    413: "requestTooLarge",
    429: "rateLimitExceeded",
    500: "backendError",
    502: "backendError",
    503: "backendError",
}


def answer(document: dict[str, Any], status: int = 200) -> Response:
    return Response(dumps(document), status=status, mimetype="application/json")


def problem(status: int, message: str, reason: str = "") -> Response:
    """Google's error document."""
    known = reason or _REASONS.get(status, "unknown")
    item = {"message": message, "domain": "global", "reason": known}
    return answer({"error": {"code": status, "message": message, "errors": [item]}}, status)


def apply(faults: Faults, call: str, subject: str, serve: Serve) -> Response:
    """Serve a call, or what a fault makes of it. Within a request's context."""
    taken = faults.take(call, subject)
    if taken is None:
        return serve()
    number, fault = taken
    if fault.kind == "delay":
        time.sleep(fault.seconds)
        return serve()
    if fault.kind in ("cut", "close_stream"):
        return cut()
    if fault.kind == "hang":
        _hang(faults, number)
    elif fault.kind == "answer_lost":
        serve()
    return _failed(fault)


def cut() -> Response:
    """An answer of which nothing is sent: the connection is closed instead."""

    def nothing() -> Iterator[bytes]:
        raise ClientDisconnected
        yield b""

    return Response(nothing())


def _hang(faults: Faults, number: int) -> None:
    """Return when the fault is lifted or the caller is gone."""
    gone: Callable[[], bool] = request.environ["waitress.client_disconnected"]
    while faults.in_force(number) and not gone():
        time.sleep(POLL_SECONDS)


def _failed(fault: Fault) -> Response:
    return problem(int(fault.status or 503), fault.message, fault.reason)
