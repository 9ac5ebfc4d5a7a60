"""google.pubsub.v1.Subscriber/StreamingPull.

A stream has two directions: a thread of its own hears the subscriber (acknowledgements, longer
deadlines), gRPC's thread sends. What the subscriber still holds when a stream ends stays
outstanding until its deadline passes, as with the service.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
from google.pubsub_v1 import types

from localgcp import grpc_faults
from localgcp.faults import Faults
from localgcp.pubsub_method import Handler, Stopping, refusals
from localgcp.pubsub_requests import (
    Invalid,
    require_ack_ids,
    require_deadline,
    require_name,
    require_new_deadline,
)
from localgcp.pubsub_subscriber import POLL_SECONDS, received
from localgcp.subscription import Reader
from localgcp.topics import NotFound, Topics

_Request = types.StreamingPullRequest.pb()
_Response = types.StreamingPullResponse.pb()
_ONLY_AT_FIRST = (
    *("subscription", "client_id", "protocol_version"),
    *("max_outstanding_messages", "max_outstanding_bytes"),
)


def streaming_pull(topics: Topics, faults: Faults, stopping: Stopping) -> Handler:
    """gRPC's handler. A fault is asked for once, as a stream opens."""

    def serve(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        try:
            first = next(requests)
        except (StopIteration, grpc.RpcError):
            return
        name = str(first.subscription)
        with refusals(context):
            if grpc_faults.admit(faults, "pubsub.StreamingPull", name, context):
                yield from _Stream(topics, first).run(requests, context, stopping)

    return grpc.stream_stream_rpc_method_handler(
        serve, _Request.FromString, _Response.SerializeToString
    )


class _Stream:
    def __init__(self, topics: Topics, first: Any) -> None:
        require_name("subscriptions", first.subscription)
        require_deadline(first.stream_ack_deadline_seconds)
        topics.subscription(first.subscription)
        self._topics = topics
        self._name = str(first.subscription)
        self._reader = Reader(
            max_messages=max(0, first.max_outstanding_messages),
            max_bytes=max(0, first.max_outstanding_bytes),
            seconds=first.stream_ack_deadline_seconds,
            follows=True,
        )
        self._ended = threading.Event()
        self._refused: Exception | None = None
        self._say(first)

    def run(self, requests: Iterator[Any], context: Any, stopping: Stopping) -> Iterator[Any]:
        """Until the subscriber or the server ends it. Raises what is wrong with a request."""
        threading.Thread(target=self._hear, args=(requests,), daemon=True).start()
        while stopping.goes_on(context) and not self._ended.is_set():
            taken = self._topics.take(self._name, self._reader, POLL_SECONDS)
            if taken:
                yield _Response(received_messages=received(taken))
        if self._refused is not None:
            raise self._refused

    def _hear(self, requests: Iterator[Any]) -> None:
        try:
            for request in requests:
                self._require_later(request)
                self._say(request)
        except (Invalid, NotFound) as error:
            self._refused = error
        except grpc.RpcError:
            pass  # the subscriber is gone: what it holds comes again when its deadline passes
        finally:
            self._ended.set()

    @staticmethod
    def _require_later(request: Any) -> None:
        for name in _ONLY_AT_FIRST:
            if getattr(request, name):
                raise Invalid(f"{name} can only be set in the first request of a stream")

    def _say(self, request: Any) -> None:
        seconds, ids = request.modify_deadline_seconds, request.modify_deadline_ack_ids
        if len(seconds) != len(ids):
            raise Invalid("modify_deadline_seconds and modify_deadline_ack_ids differ in length")
        require_ack_ids(request.ack_ids)
        require_ack_ids(ids)
        for each in seconds:
            require_new_deadline(each)
        if request.stream_ack_deadline_seconds:
            require_deadline(request.stream_ack_deadline_seconds)
            self._reader.seconds = request.stream_ack_deadline_seconds
        if request.ack_ids:
            self._topics.acknowledge(self._name, request.ack_ids)
        for ack_id, each in zip(ids, seconds, strict=True):
            self._topics.extend(self._name, [ack_id], each)
