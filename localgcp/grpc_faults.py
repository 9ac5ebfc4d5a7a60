"""Applying a fault to a gRPC call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

import grpc

from localgcp.faults import Fault, Faults

Answer = TypeVar("Answer")
POLL_SECONDS = 0.05


def apply(
    faults: Faults,
    call: str,
    subject: str,
    context: grpc.ServicerContext,
    serve: Callable[[], Answer],
) -> Answer:
    """Serve a unary call, or what a fault makes of it. `cut` and `close_stream` can only be told
    as UNAVAILABLE: a unary call of gRPC in Python has no other end without an answer."""
    taken = faults.take(call, subject)
    if taken is None:
        return serve()
    number, fault = taken
    if fault.kind == "delay":
        time.sleep(fault.seconds)
        return serve()
    if fault.kind == "hang":
        hang(faults, number, context)
    elif fault.kind == "answer_lost":
        serve()
    return refuse(context, fault)


def hang(faults: Faults, number: int, context: grpc.ServicerContext) -> None:
    """Return when the fault is lifted or the caller is gone."""
    while faults.in_force(number) and context.is_active():
        time.sleep(POLL_SECONDS)


def refuse(context: grpc.ServicerContext, fault: Fault) -> NoReturn:
    """End the call with the fault's code (UNAVAILABLE by default)."""
    code = grpc.StatusCode[fault.status or "UNAVAILABLE"]
    context.abort(code, fault.message)
    raise AssertionError("abort raises")
