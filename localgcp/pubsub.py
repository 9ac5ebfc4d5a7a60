"""Pub/Sub over gRPC, on Google's own protobuf classes: as strict as the service.

Limits: cloud.google.com/pubsub/quotas#resource_limits.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.iam.v1 import iam_policy_pb2
from google.protobuf import empty_pb2
from google.pubsub_v1 import types

from localgcp import grpc_faults
from localgcp.faults import Faults
from localgcp.topics import AlreadyExists, NotFound, Topics

MAX_MESSAGES = 1_000
MAX_REQUEST = 10_000_000
MAX_KEY = 1_024
MAX_ATTRIBUTES, MAX_ATTRIBUTE_KEY, MAX_ATTRIBUTE = 100, 256, 1_024
MAX_PULL = 1_000
PULL_SECONDS = 5.0
POLL_SECONDS = 0.1
# A streaming pull, a waiting pull and a call that hangs by a fault keep a worker each.
WORKERS = 64
_ID = r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}"
_TOPIC = re.compile(rf"projects/[^/]+/topics/{_ID}").fullmatch
_SUBSCRIPTION = re.compile(rf"projects/[^/]+/subscriptions/{_ID}").fullmatch

PublishResponse = types.PublishResponse.pb()
ReceivedMessage = types.ReceivedMessage.pb()
PullResponse = types.PullResponse.pb()
StreamingPullResponse = types.StreamingPullResponse.pb()


class Invalid(Exception):
    """A request that the service refuses with INVALID_ARGUMENT."""


class Mixed(Exception):
    """Messages of several ordering keys in one request: FAILED_PRECONDITION."""


class Published(NamedTuple):
    """One message as it was published."""

    message_id: str
    data: bytes
    attributes: dict[str, str]
    ordering_key: str


class PubSubServer:
    """In-process server. Use as a context manager, or start and stop."""

    def __init__(
        self,
        faults: Faults,
        host: str = "127.0.0.1",
        port: int = 0,
        data_dir: Path | None = None,
    ) -> None:
        self._faults = faults
        self.topics = Topics(None if data_dir is None else data_dir / "pubsub.db")
        self._stopping = threading.Event()
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="pubsub"),
            options=[
                ("grpc.max_receive_message_length", 2 * MAX_REQUEST),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._server.add_generic_rpc_handlers(tuple(self._handlers()))
        self.port = self._server.add_insecure_port(f"{host}:{port}")

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._stopping.set()
        self._server.stop(0).wait()

    def __enter__(self) -> PubSubServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def messages(self, topic: str) -> list[Published]:
        """What was published and kept, in the order of publishing. `topic`: the full name."""
        with self.topics.changed:
            kept = list(self.topics.topic(topic).messages)
        return [Published(m.message_id, m.data, dict(m.attributes), m.ordering_key) for m in kept]

    # --- wiring -----------------------------------------------------------------------------------

    def _handlers(self) -> Iterator[Any]:
        t = types
        yield grpc.method_handlers_generic_handler(
            "google.pubsub.v1.Publisher",
            {
                "Publish": self._unary(
                    "Publish", _publish_subject, self._publish, t.PublishRequest
                ),
                "CreateTopic": self._unary("CreateTopic", _name, self._create_topic, t.Topic),
                "GetTopic": self._unary("GetTopic", _topic, self._get_topic, t.GetTopicRequest),
                "UpdateTopic": self._unary(
                    "UpdateTopic",
                    lambda r: str(r.topic.name),
                    self._update_topic,
                    t.UpdateTopicRequest,
                ),
                "DeleteTopic": self._unary(
                    "DeleteTopic", _topic, self._delete_topic, t.DeleteTopicRequest
                ),
                "ListTopics": self._unary(
                    "ListTopics", _project, self._list_topics, t.ListTopicsRequest
                ),
                "ListTopicSubscriptions": self._unary(
                    "ListTopicSubscriptions",
                    _topic,
                    self._list_topic_subscriptions,
                    t.ListTopicSubscriptionsRequest,
                ),
            },
        )
        yield grpc.method_handlers_generic_handler(
            "google.pubsub.v1.Subscriber",
            {
                "CreateSubscription": self._unary(
                    "CreateSubscription", _name, self._create_subscription, t.Subscription
                ),
                "GetSubscription": self._unary(
                    "GetSubscription",
                    _subscription,
                    lambda r: self.topics.subscription(r.subscription).resource,
                    t.GetSubscriptionRequest,
                ),
                "ListSubscriptions": self._unary(
                    "ListSubscriptions",
                    _project,
                    lambda r: t.ListSubscriptionsResponse.pb()(
                        subscriptions=self.topics.subscriptions(r.project)
                    ),
                    t.ListSubscriptionsRequest,
                ),
                "DeleteSubscription": self._unary(
                    "DeleteSubscription",
                    _subscription,
                    self._delete_subscription,
                    t.DeleteSubscriptionRequest,
                ),
                "Pull": self._unary("Pull", _subscription, self._pull, t.PullRequest, context=True),
                "Acknowledge": self._unary(
                    "Acknowledge", _subscription, self._acknowledge, t.AcknowledgeRequest
                ),
                "ModifyAckDeadline": self._unary(
                    "ModifyAckDeadline", _subscription, self._extend, t.ModifyAckDeadlineRequest
                ),
                "StreamingPull": grpc.stream_stream_rpc_method_handler(
                    self._streaming_pull,
                    t.StreamingPullRequest.pb().FromString,
                    StreamingPullResponse.SerializeToString,
                ),
            },
        )
        yield grpc.method_handlers_generic_handler(
            "google.iam.v1.IAMPolicy",
            {
                "TestIamPermissions": grpc.unary_unary_rpc_method_handler(
                    self._test_permissions,
                    iam_policy_pb2.TestIamPermissionsRequest.FromString,
                    iam_policy_pb2.TestIamPermissionsResponse.SerializeToString,
                )
            },
        )

    def _unary(
        self,
        method: str,
        subject: Callable[[Any], str],
        serve: Callable[..., Any],
        request_type: Any,
        context: bool = False,
    ) -> Any:
        def handler(request: Any, grpc_context: Any) -> Any:
            def answer() -> Any:
                return serve(request, grpc_context) if context else serve(request)

            try:
                return grpc_faults.apply(
                    self._faults, f"pubsub.{method}", subject(request), grpc_context, answer
                )
            except Invalid as error:
                grpc_context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except Mixed as error:
                grpc_context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
            except NotFound as error:
                grpc_context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            except AlreadyExists as error:
                grpc_context.abort(grpc.StatusCode.ALREADY_EXISTS, str(error))

        return grpc.unary_unary_rpc_method_handler(
            handler, request_type.pb().FromString, lambda answer: answer.SerializeToString()
        )

    # --- publisher --------------------------------------------------------------------------------

    def _publish(self, request: Any) -> Any:
        require_publishable(request)
        return PublishResponse(message_ids=self.topics.publish(request.topic, request.messages))

    def _create_topic(self, request: Any) -> Any:
        _require(_TOPIC, request.name, "topics")
        self.topics.create_topic(request)
        return request

    def _get_topic(self, request: Any) -> Any:
        return self.topics.topic(request.topic).resource

    def _update_topic(self, request: Any) -> Any:
        return self.topics.update_topic(request.topic, request.update_mask.paths)

    def _delete_topic(self, request: Any) -> Any:
        self.topics.delete_topic(request.topic)
        return empty_pb2.Empty()

    def _list_topics(self, request: Any) -> Any:
        return types.ListTopicsResponse.pb()(topics=self.topics.topics(request.project))

    def _list_topic_subscriptions(self, request: Any) -> Any:
        self.topics.topic(request.topic)
        return types.ListTopicSubscriptionsResponse.pb()(
            subscriptions=self.topics.subscriptions_of(request.topic)
        )

    # --- subscriber -------------------------------------------------------------------------------

    def _create_subscription(self, request: Any) -> Any:
        _require(_SUBSCRIPTION, request.name, "subscriptions")
        if request.filter:
            raise Invalid("filters are not served here")
        if request.ack_deadline_seconds not in (0, *range(10, 601)):
            raise Invalid("ack_deadline_seconds must be from 10 to 600")
        request.ack_deadline_seconds = request.ack_deadline_seconds or 10
        self.topics.create_subscription(request)
        return request

    def _delete_subscription(self, request: Any) -> Any:
        self.topics.delete_subscription(request.subscription)
        return empty_pb2.Empty()

    def _pull(self, request: Any, context: Any) -> Any:
        if request.max_messages < 1:
            raise Invalid("max_messages must be positive")
        deadline = time.monotonic() + (0 if request.return_immediately else PULL_SECONDS)
        most = min(request.max_messages, MAX_PULL)
        while True:
            taken = self.topics.take(request.subscription, most)
            left = deadline - time.monotonic()
            if taken or left <= 0 or not context.is_active():
                return PullResponse(received_messages=_received(taken))
            with self.topics.changed:
                self.topics.changed.wait(min(left, POLL_SECONDS))

    def _acknowledge(self, request: Any) -> Any:
        self.topics.acknowledge(request.subscription, request.ack_ids)
        return empty_pb2.Empty()

    def _extend(self, request: Any) -> Any:
        if not 0 <= request.ack_deadline_seconds <= 600:
            raise Invalid("ack_deadline_seconds must be from 0 to 600")
        self.topics.extend(request.subscription, request.ack_ids, request.ack_deadline_seconds)
        return empty_pb2.Empty()

    def _streaming_pull(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        first = next(requests)
        name = first.subscription
        try:
            self.topics.subscription(name)
        except NotFound as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        taken = self._faults.take("pubsub.StreamingPull", name)
        if taken is not None:
            grpc_faults.refuse(context, taken[1])
        most = first.max_outstanding_messages or MAX_PULL
        listener = threading.Thread(target=self._listen, args=(name, requests), daemon=True)
        listener.start()
        while context.is_active() and not self._stopping.is_set():
            held = len(self.topics.subscription(name).outstanding)
            found = (
                self.topics.take(name, min(MAX_PULL, max(0, most - held))) if held < most else []
            )
            if found:
                yield StreamingPullResponse(received_messages=_received(found))
                continue
            with self.topics.changed:
                self.topics.changed.wait(POLL_SECONDS)

    def _listen(self, name: str, requests: Iterator[Any]) -> None:
        """What a streaming subscriber says: acknowledgements and longer deadlines."""
        try:
            for request in requests:
                self.topics.acknowledge(name, request.ack_ids)
                deadlines = request.modify_deadline_seconds
                for ack_id, seconds in zip(request.modify_deadline_ack_ids, deadlines, strict=True):
                    self.topics.extend(name, [ack_id], seconds)
        except (grpc.RpcError, NotFound):
            return  # the subscriber or the subscription is gone: what it held expires

    def _test_permissions(self, request: Any, _context: Any) -> Any:
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=request.permissions)


def require_publishable(request: Any) -> None:
    """Raises Invalid or Mixed for what the service does not take."""
    messages = request.messages
    if not messages:
        raise Invalid("no messages to publish")
    if len(messages) > MAX_MESSAGES:
        raise Invalid(f"too many messages: {len(messages)}, at most {MAX_MESSAGES}")
    if request.ByteSize() > MAX_REQUEST:
        raise Invalid(f"the request is larger than {MAX_REQUEST} bytes")
    if len({message.ordering_key for message in messages}) > 1:
        raise Mixed("all messages of a request must have the same ordering key")
    for message in messages:
        _require_message(message)


def _require_message(message: Any) -> None:
    if not message.data and not message.attributes:
        raise Invalid("a message needs data or attributes")
    if len(message.ordering_key.encode()) > MAX_KEY:
        raise Invalid(f"the ordering key is longer than {MAX_KEY} bytes")
    if len(message.attributes) > MAX_ATTRIBUTES:
        raise Invalid(f"more than {MAX_ATTRIBUTES} attributes")
    for key, value in message.attributes.items():
        if not key or len(key.encode()) > MAX_ATTRIBUTE_KEY or len(value.encode()) > MAX_ATTRIBUTE:
            raise Invalid(f"attribute {key[:40]!r} is empty or too long")


def _require(pattern: Callable[[str], Any], name: str, what: str) -> None:
    if not pattern(name):
        raise Invalid(f"Invalid [{what}] name: (name={name})")


def _received(deliveries: list[Any]) -> list[Any]:
    return [
        ReceivedMessage(ack_id=d.ack_id, message=d.message, delivery_attempt=d.attempt)
        for d in deliveries
    ]


def _publish_subject(request: Any) -> str:
    return str(request.messages[0].ordering_key) if request.messages else ""


def _name(request: Any) -> str:
    return str(request.name)


def _topic(request: Any) -> str:
    return str(request.topic)


def _project(request: Any) -> str:
    return str(request.project)


def _subscription(request: Any) -> str:
    return str(request.subscription)
