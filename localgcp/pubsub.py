"""Pub/Sub over gRPC, on Google's own protobuf classes: as strict as the service.

    pubsub_requests.py    what the service refuses about a request
    pubsub_publisher.py   Publisher but Publish, which is here, and the permissions
    pubsub_subscriber.py  Subscriber
    streaming_pull.py     its StreamingPull
    pubsub_method.py      what all methods share: faults, and errors as codes
    topics.py             topics and subscriptions
    subscription.py       what is delivered, and when again
    topic_store.py        the file

Not served: snapshots and Seek, push, filters, dead-letter policies, schemas.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.pubsub_v1 import PublishRequest, PublishResponse, PubsubMessage

from localgcp.faults import Faults
from localgcp.pubsub_method import Method, Stopping, handlers
from localgcp.pubsub_publisher import iam_policy, publisher
from localgcp.pubsub_requests import MAX_REQUEST_BYTES, require_publishable
from localgcp.pubsub_subscriber import subscriber
from localgcp.streaming_pull import streaming_pull
from localgcp.topics import Topics

__all__ = ["PubSubServer", "Published", "require_publishable"]

# A stream, a pull that waits and a call that is held up by a fault keep a worker each; when all
# are taken, further calls wait.
WORKERS = 64
_Message = PubsubMessage.pb()
_PublishRequest, _PublishResponse = PublishRequest.pb(), PublishResponse.pb()


class Published(NamedTuple):
    """One message as it was published. publish_us: when it came, microseconds since 1970."""

    message_id: str
    data: bytes
    attributes: dict[str, str]
    ordering_key: str
    publish_us: int


class PubSubServer:
    """In-process server. Use as a context manager, or start and stop.

    port: 0 for any free one. data_dir: an existing folder, in which everything is kept; None: in
    memory only. clock: seconds, for acknowledgement deadlines. Raises OSError when it cannot
    listen, or when another process has the folder.
    """

    def __init__(
        self,
        faults: Faults,
        host: str = "127.0.0.1",
        port: int = 0,
        data_dir: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = Topics(None if data_dir is None else data_dir / "pubsub.db", clock)
        self._stopping = Stopping()
        self._workers = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="pubsub")
        self._server = grpc.server(
            self._workers,
            options=[
                # Beyond the service's limit, so that it is the service's error that tells of it.
                ("grpc.max_receive_message_length", 2 * MAX_REQUEST_BYTES),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._server.add_generic_rpc_handlers(self._services(faults))
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            self._topics.close()
            raise OSError(f"cannot listen on {host}:{port}: {error}") from error

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        """End all calls. Idempotent; blocks until they have ended, which one that a fault delays
        does only when that is over or lifted."""
        self._stopping.set()
        self._server.stop(0).wait()
        # Only then is the file closed: a publish that is under way writes to it.
        self._workers.shutdown(wait=True)
        self._topics.close()

    def __enter__(self) -> PubSubServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def count(self, topic: str) -> int:
        """How many messages were published and kept. `topic`: the full name. Raises NotFound."""
        return len(self._topics.topic(topic).messages)

    def messages(self, topic: str, after: int = 0) -> list[Published]:
        """What was published and kept, in the order of publishing, without the first `after`.
        Copies cost memory: see `published`. Raises NotFound."""
        return list(self.published(topic, after))

    def published(self, topic: str, after: int = 0) -> Iterator[Published]:
        """As `messages`, one at a time."""
        return _published(self._topics.topic(topic).messages, after)

    def _services(self, faults: Faults) -> list[grpc.GenericRpcHandler]:
        publishing = {"Publish": Method(_PublishRequest, self._publish, _ordering_key)}
        topics = handlers(publishing | publisher(self._topics), faults)
        subscriptions = handlers(subscriber(self._topics, self._stopping), faults)
        pulling = {"StreamingPull": streaming_pull(self._topics, faults, self._stopping)}
        services = {
            "google.pubsub.v1.Publisher": topics,
            "google.pubsub.v1.Subscriber": subscriptions | pulling,
            "google.iam.v1.IAMPolicy": handlers(iam_policy(self._topics, faults), faults),
        }
        return [
            grpc.method_handlers_generic_handler(name, methods)
            for name, methods in services.items()
        ]

    def _publish(self, request: Any, _: Any) -> Any:
        require_publishable(request)
        ids = self._topics.publish(request.topic, request.messages)
        return _PublishResponse(message_ids=ids)


def _ordering_key(request: Any) -> str:
    return str(request.messages[0].ordering_key) if request.messages else ""


def _published(kept: list[bytes], after: int) -> Iterator[Published]:
    # By index: the list may grow meanwhile, but only at its end.
    for index in range(after, len(kept)):
        message = _Message.FromString(kept[index])
        yield Published(
            message.message_id,
            message.data,
            dict(message.attributes),
            message.ordering_key,
            message.publish_time.ToMicroseconds(),
        )
