"""From an RPC to the function that serves it, and from what that raises to the service's code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import grpc

from localgcp import grpc_faults
from localgcp.faults import Faults
from localgcp.pubsub_requests import Invalid, Mixed
from localgcp.topics import AlreadyExists, NotFound

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_CODES: dict[type[Exception], grpc.StatusCode] = {
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    Mixed: grpc.StatusCode.FAILED_PRECONDITION,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
}


class Method(NamedTuple):
    """A unary RPC.

    request: the protobuf class. serve: the request and the gRPC context to the answer; raises
    Invalid, Mixed, NotFound, AlreadyExists. subject: what a fault can name of the request.
    """

    request: Any
    serve: Callable[[Any, Any], Any]
    subject: Callable[[Any], str]


def handlers(methods: dict[str, Method], faults: Faults) -> dict[str, Handler]:
    """gRPC's handlers of these methods, which ask for faults first."""
    return {name: _handler(f"pubsub.{name}", method, faults) for name, method in methods.items()}


def _handler(call: str, method: Method, faults: Faults) -> Handler:
    def serve(request: Any, context: Any) -> Any:
        def answer() -> Any:
            return method.serve(request, context)

        with refusals(context):
            return grpc_faults.apply(faults, call, method.subject(request), context, answer)

    return grpc.unary_unary_rpc_method_handler(
        serve, method.request.FromString, lambda answer: answer.SerializeToString()
    )


@contextmanager
def refusals(context: grpc.ServicerContext) -> Iterator[None]:
    """Ends the call with the code of what is raised inside."""
    try:
        yield
    except tuple(_CODES) as error:
        context.abort(_CODES[type(error)], str(error))


class Stopping:
    """Told to those who wait, so that a server that stops does not wait for them."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def goes_on(self, context: grpc.ServicerContext) -> bool:
        """Whether the server runs and the caller is still there."""
        return not self._event.is_set() and context.is_active()
