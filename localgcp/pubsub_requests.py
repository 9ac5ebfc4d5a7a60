"""What the service refuses about a request, as far as the request alone tells.

Limits: cloud.google.com/pubsub/quotas#resource_limits. What is not served here is refused too: a
setting that has no effect would make the local service laxer than the real one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

MAX_MESSAGES = 1_000
MAX_REQUEST_BYTES = 10_000_000
MAX_KEY_BYTES = 1_024
MAX_ATTRIBUTES = 100
MAX_ATTRIBUTE_KEY_BYTES = 256
MAX_ATTRIBUTE_VALUE_BYTES = 1_024
MAX_ACK_REQUEST_BYTES = 524_288
MIN_DEADLINE, MAX_DEADLINE = 10, 600
MIN_RETENTION, MAX_RETENTION = 600, 31 * 86_400
MIN_EXPIRATION = 86_400
PAGE = 100

_PROJECT = r"projects/[A-Za-z0-9][A-Za-z0-9.:_-]*"
_ID = r"(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}"
_NAMES = {
    "projects": re.compile(_PROJECT),
    "topics": re.compile(f"{_PROJECT}/topics/{_ID}"),
    "subscriptions": re.compile(f"{_PROJECT}/subscriptions/{_ID}"),
}
_ACK_ID = re.compile(r"[0-9a-f]{8}-[0-9]{1,18}")
_OUTPUT_ONLY = {"state", "satisfies_pzs", "topic_message_retention_duration"}
_TOPIC_FIELDS = {"name", "labels", "message_storage_policy", "message_retention_duration"}
_CHANGEABLE = {"labels", "message_retention_duration"}
_SUBSCRIPTION_FIELDS = {
    *("name", "topic", "labels", "ack_deadline_seconds", "retain_acked_messages"),
    *("message_retention_duration", "enable_message_ordering", "expiration_policy"),
}


class Invalid(Exception):
    """INVALID_ARGUMENT: the request can never be served."""


class Mixed(Exception):
    """FAILED_PRECONDITION: messages of several ordering keys in one request."""


def require_name(kind: str, name: str) -> None:
    """kind: projects, topics or subscriptions."""
    if not _NAMES[kind].fullmatch(name):
        raise Invalid(f"Invalid [{kind}] name: (name={name})")


def require_publishable(request: Any) -> None:
    require_name("topics", request.topic)
    messages = request.messages
    if not messages:
        raise Invalid("no messages to publish")
    if len(messages) > MAX_MESSAGES:
        raise Invalid(f"{len(messages)} messages to publish: at most {MAX_MESSAGES} a request")
    if (size := request.ByteSize()) > MAX_REQUEST_BYTES:
        raise Invalid(f"a request of {size} bytes: at most {MAX_REQUEST_BYTES}")
    keys = {message.ordering_key for message in messages}
    if len(keys) > 1:
        raise Mixed("all messages of a publish request must have the same ordering key")
    if len(keys.pop().encode()) > MAX_KEY_BYTES:
        raise Invalid(f"an ordering key of more than {MAX_KEY_BYTES} bytes")
    for message in messages:
        _require_message(message)


def _require_message(message: Any) -> None:
    attributes = message.attributes
    if not attributes:
        if not message.data:
            raise Invalid("a message without data needs at least one attribute")
        return
    if len(attributes) > MAX_ATTRIBUTES:
        raise Invalid(f"{len(attributes)} attributes: at most {MAX_ATTRIBUTES} a message")
    for key, value in attributes.items():
        if not key or key.startswith("goog"):
            raise Invalid(f"an attribute's key must not be empty or begin with goog: {key!r}")
        if len(key.encode()) > MAX_ATTRIBUTE_KEY_BYTES:
            raise Invalid(f"an attribute's key of more than {MAX_ATTRIBUTE_KEY_BYTES} bytes")
        if len(value.encode()) > MAX_ATTRIBUTE_VALUE_BYTES:
            raise Invalid(f"attribute {key!r} has more than {MAX_ATTRIBUTE_VALUE_BYTES} bytes")


def require_topic(topic: Any) -> None:
    require_name("topics", topic.name)
    _require_served(topic, _TOPIC_FIELDS)
    _require_retention(topic)


def require_change_of_topic(request: Any) -> None:
    topic, paths = request.topic, request.update_mask.paths
    require_name("topics", topic.name)
    if not paths:
        raise Invalid("the update_mask must be set, and must contain a non-empty paths list")
    for path in paths:
        if path not in _CHANGEABLE:
            raise Invalid(f"Invalid update_mask: {path} is not a topic's field to be changed here")
    _require_retention(topic)


def require_subscription(subscription: Any) -> None:
    require_name("subscriptions", subscription.name)
    require_name("topics", subscription.topic)
    _require_served(subscription, _SUBSCRIPTION_FIELDS)
    _require_retention(subscription)
    if subscription.ack_deadline_seconds:
        require_deadline(subscription.ack_deadline_seconds)
    policy = subscription.expiration_policy
    if policy.HasField("ttl") and policy.ttl.seconds < MIN_EXPIRATION:
        raise Invalid("expiration_policy.ttl must be at least a day")


def require_deadline(seconds: int) -> None:
    if not MIN_DEADLINE <= seconds <= MAX_DEADLINE:
        raise Invalid(f"an ack deadline must be from {MIN_DEADLINE} to {MAX_DEADLINE} seconds")


def require_new_deadline(seconds: int) -> None:
    """Of a message that is outstanding: 0 gives it back."""
    if not 0 <= seconds <= MAX_DEADLINE:
        raise Invalid(f"an ack deadline must be changed to 0 to {MAX_DEADLINE} seconds")


def require_acks(request: Any) -> None:
    """Of Acknowledge and ModifyAckDeadline."""
    require_name("subscriptions", request.subscription)
    if not request.ack_ids:
        raise Invalid("no ack ids specified")
    if request.ByteSize() > MAX_ACK_REQUEST_BYTES:
        raise Invalid(f"a request of more than {MAX_ACK_REQUEST_BYTES} bytes")
    require_ack_ids(request.ack_ids)


def require_ack_ids(ack_ids: Sequence[str]) -> None:
    for ack_id in ack_ids:
        if not _ACK_ID.fullmatch(ack_id):
            raise Invalid(f"Invalid ack id (ack_id={ack_id})")


def page(found: Sequence[Any], request: Any) -> tuple[Sequence[Any], str]:
    """The page of a listing that is asked for, and the token of the next."""
    if request.page_size < 0 or not re.fullmatch(r"[0-9]{0,9}", request.page_token):
        raise Invalid("a bad page_size or page_token")
    first = int(request.page_token or 0)
    end = first + (request.page_size or PAGE)
    return found[first:end], str(end) if end < len(found) else ""


def _require_served(resource: Any, served: set[str]) -> None:
    for field, value in resource.ListFields():
        # Google's own client sends an empty push_config along, which means: none.
        empty = field.name == "push_config" and not value.ListFields()
        if field.name not in served | _OUTPUT_ONLY and not empty:
            raise Invalid(f"{field.name} is not served here")


def _require_retention(resource: Any) -> None:
    if resource.HasField("message_retention_duration"):
        seconds = resource.message_retention_duration.seconds
        if not MIN_RETENTION <= seconds <= MAX_RETENTION:
            raise Invalid("message_retention_duration must be from 10 minutes to 31 days")
