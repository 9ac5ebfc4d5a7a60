"""google.pubsub.v1.Subscriber: the unary calls. Streaming pull is in streaming_pull.py."""

from __future__ import annotations

import time
from typing import Any

from google.protobuf import empty_pb2
from google.pubsub_v1 import types

from localgcp.pubsub_method import Method, Stopping
from localgcp.pubsub_requests import (
    Invalid,
    page,
    require_acks,
    require_name,
    require_new_deadline,
    require_subscription,
)
from localgcp.subscription import DEFAULT_SECONDS, Delivery, Reader
from localgcp.topics import Topics

# How long a pull waits for a first message; how often it looks whether its caller is still there
# and whether a deadline has passed.
PULL_SECONDS = 5.0
POLL_SECONDS = 0.1
RETENTION_SECONDS = 7 * 86_400
EXPIRATION_SECONDS = 31 * 86_400

_PullResponse = types.PullResponse.pb()
_ReceivedMessage = types.ReceivedMessage.pb()
_Message = types.PubsubMessage.pb()
_Active = types.Subscription.State.ACTIVE


def subscriber(topics: Topics, stopping: Stopping) -> dict[str, Method]:
    """The unary methods of Subscriber by name."""

    def create(request: Any, _: Any) -> Any:
        require_subscription(request)
        _fill_in(request)
        topics.create_subscription(request)
        return request

    def get(request: Any, _: Any) -> Any:
        require_name("subscriptions", request.subscription)
        return topics.subscription(request.subscription)

    def delete(request: Any, _: Any) -> Any:
        require_name("subscriptions", request.subscription)
        topics.delete_subscription(request.subscription)
        return empty_pb2.Empty()

    def listing(request: Any, _: Any) -> Any:
        require_name("projects", request.project)
        found, token = page(topics.subscriptions(request.project), request)
        return types.ListSubscriptionsResponse.pb()(subscriptions=found, next_page_token=token)

    def pull(request: Any, context: Any) -> Any:
        require_name("subscriptions", request.subscription)
        if request.max_messages < 1:
            raise Invalid("max_messages must be positive")
        reader = Reader(max_messages=request.max_messages)
        until = time.monotonic() + (0 if request.return_immediately else PULL_SECONDS)
        while True:
            left = until - time.monotonic()
            taken = topics.take(request.subscription, reader, min(left, POLL_SECONDS))
            if taken or left <= 0 or not stopping.goes_on(context):
                return _PullResponse(received_messages=received(taken))

    def acknowledge(request: Any, _: Any) -> Any:
        require_acks(request)
        topics.acknowledge(request.subscription, request.ack_ids)
        return empty_pb2.Empty()

    def extend(request: Any, _: Any) -> Any:
        require_acks(request)
        require_new_deadline(request.ack_deadline_seconds)
        topics.extend(request.subscription, request.ack_ids, request.ack_deadline_seconds)
        return empty_pb2.Empty()

    return {
        "CreateSubscription": Method(types.Subscription.pb(), create, lambda r: r.name),
        "GetSubscription": Method(types.GetSubscriptionRequest.pb(), get, _subscription),
        "DeleteSubscription": Method(types.DeleteSubscriptionRequest.pb(), delete, _subscription),
        "ListSubscriptions": Method(
            types.ListSubscriptionsRequest.pb(), listing, lambda r: r.project
        ),
        "Pull": Method(types.PullRequest.pb(), pull, _subscription),
        "Acknowledge": Method(types.AcknowledgeRequest.pb(), acknowledge, _subscription),
        "ModifyAckDeadline": Method(types.ModifyAckDeadlineRequest.pb(), extend, _subscription),
    }


def received(deliveries: list[Delivery]) -> list[Any]:
    """As ReceivedMessage. Without a dead-letter policy the service counts no attempts: 0."""
    return [
        _ReceivedMessage(ack_id=delivery.ack_id, message=_Message.FromString(delivery.message))
        for delivery in deliveries
    ]


def _fill_in(subscription: Any) -> None:
    """What the service answers where nothing was asked for."""
    subscription.state = _Active
    subscription.push_config.SetInParent()
    subscription.ack_deadline_seconds = subscription.ack_deadline_seconds or DEFAULT_SECONDS
    if not subscription.HasField("message_retention_duration"):
        subscription.message_retention_duration.seconds = RETENTION_SECONDS
    if not subscription.HasField("expiration_policy"):
        subscription.expiration_policy.ttl.seconds = EXPIRATION_SECONDS


def _subscription(request: Any) -> str:
    return str(request.subscription)
