"""Applying a fault to a gRPC call.

A server of gRPC in Python cannot drop one caller's connection, nor end a unary call without an
answer: `cut` is told as UNAVAILABLE, which is what a client makes of a dropped connection, and so
is `close_stream` of a unary call. Nothing is applied in either case.

A call that is delayed or hangs keeps its server thread. It is released when the rule is lifted, a
hanging one also when the caller is gone.
"""

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
    """Serve a unary call, or do what a fault makes of it. What `serve` raises comes out, also
    where its answer was to be lost. Blocks for as long as the fault says."""
    taken = faults.take(call, subject)
    if taken is None:
        return serve()
    number, fault = taken
    if fault.kind == "delay":
        # Served even if the caller has given up by then: that is how a late write happens.
        delay(faults, number, fault)
        return serve()
    if fault.kind == "hang":
        hang(faults, number, context)
    elif fault.kind == "answer_lost":
        serve()
    return refuse(context, fault)


def admit(faults: Faults, call: str, subject: str, context: grpc.ServicerContext) -> bool:
    """Whether a streaming call is to be served, asked once as it opens. False: `close_stream`, it
    is to end without an error. The other kinds end it here with their code (`answer_lost` too: a
    stream that opens has no answer yet), or keep it waiting."""
    taken = faults.take(call, subject)
    if taken is None:
        return True
    number, fault = taken
    if fault.kind == "delay":
        delay(faults, number, fault)
        return True
    if fault.kind == "close_stream":
        return False
    if fault.kind == "hang":
        hang(faults, number, context)
    return refuse(context, fault)


def delay(faults: Faults, number: int, fault: Fault) -> None:
    """Return after the fault's seconds, or when it is lifted."""
    until = time.monotonic() + fault.seconds
    while faults.in_force(number) and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, POLL_SECONDS))


def hang(faults: Faults, number: int, context: grpc.ServicerContext) -> None:
    """Return when the fault is lifted or the caller is gone."""
    while faults.in_force(number) and context.is_active():
        time.sleep(POLL_SECONDS)


def refuse(context: grpc.ServicerContext, fault: Fault) -> NoReturn:
    """End the call with the fault's code; UNAVAILABLE where it names none."""
    code = grpc.StatusCode.__members__.get(fault.status or "UNAVAILABLE")
    if code is None or code is grpc.StatusCode.OK:
        said = f"a fault's status on gRPC is the name of an error's code, not {fault.status!r}"
        context.abort(grpc.StatusCode.UNKNOWN, said)
    context.abort(code, fault.message)
    raise AssertionError("abort raises")
