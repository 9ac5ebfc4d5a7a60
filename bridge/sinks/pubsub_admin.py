"""What `provision` and `check` ask of Pub/Sub. Blocking calls with explicit deadlines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.api_core.exceptions import AlreadyExists, GoogleAPICallError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.iam.v1 import iam_policy_pb2

from bridge.settings import Settings
from bridge.sinks import connect
from bridge.sinks.admin import AdminError, member

CALL_SECONDS = 10.0
RETENTION_SECONDS = 7 * 86_400
ACK_DEADLINE_SECONDS = 60

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class TopicFacts:
    """One topic that exists. `regions`: where it may keep messages; empty: anywhere."""

    retention_seconds: int
    subscriptions: tuple[str, ...]
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class SubscriptionFacts:
    """One subscription that exists. `expires_seconds`: after which it is deleted when nobody
    reads; 0: never."""

    topic: str
    ordered: bool
    expires_seconds: int = 0


class PubSubAdmin:
    """Names are ids, of the settings' project. Raises AdminError, ConfigurationError."""

    def __init__(self, settings: Settings) -> None:
        self._project = f"projects/{settings.gcp_project_id}"
        self._publisher: Any = connect.publisher(settings)
        self._subscriber: Any = connect.subscriber(settings)

    def topic(self, name: str) -> TopicFacts | None:
        """None where there is none."""
        path = f"{self._project}/topics/{name}"
        found = _call(f"topic {name}", self._publisher.get_topic, topic=path)
        if found is None:
            return None
        readers = _call(f"subscriptions of topic {name}", self._subscriptions_of, topic=path)
        retention = int(found.message_retention_duration.total_seconds())
        regions = tuple(found.message_storage_policy.allowed_persistence_regions)
        return TopicFacts(retention, readers or (), regions)

    def _subscriptions_of(self, **call: Any) -> tuple[str, ...]:
        # To its end here: further pages are further calls, which fail like the first.
        return tuple(self._publisher.list_topic_subscriptions(**call))

    def create_topic(self, name: str) -> bool:
        """With a week's retention. False where there is one."""
        return _create(
            f"topic {name}",
            self._publisher.create_topic,
            name=f"{self._project}/topics/{name}",
            message_retention_duration={"seconds": RETENTION_SECONDS},
        )

    def subscription(self, name: str) -> SubscriptionFacts | None:
        path = f"{self._project}/subscriptions/{name}"
        found = _call(f"subscription {name}", self._subscriber.get_subscription, subscription=path)
        if found is None:
            return None
        return SubscriptionFacts(
            found.topic.rsplit("/", 1)[-1],
            found.enable_message_ordering,
            int(found.expiration_policy.ttl.total_seconds()),
        )

    def create_subscription(self, name: str, topic: str) -> bool:
        """Ordered, and never expiring. False where there is one."""
        return _create(
            f"subscription {name}",
            self._subscriber.create_subscription,
            name=f"{self._project}/subscriptions/{name}",
            topic=f"{self._project}/topics/{topic}",
            enable_message_ordering=True,
            ack_deadline_seconds=ACK_DEADLINE_SECONDS,
            expiration_policy={},
        )

    def may_publish(self, topic: str) -> bool | None:
        """None where the service does not tell."""
        request = iam_policy_pb2.TestIamPermissionsRequest(
            resource=f"{self._project}/topics/{topic}", permissions=["pubsub.topics.publish"]
        )
        try:
            answer = self._publisher.test_iam_permissions(request, timeout=CALL_SECONDS, retry=None)
        except (GoogleAPICallError, GoogleAuthError, grpc.RpcError):
            return None
        return "pubsub.topics.publish" in answer.permissions

    @property
    def member(self) -> str:
        """As whom the bridge acts. To be asked after a call."""
        return member(getattr(self._publisher.transport, "_credentials", None))

    def close(self) -> None:
        self._publisher.transport.close()
        self._subscriber.transport.close()


def _call(what: str, method: Callable[..., Answer], **request: Any) -> Answer | None:
    try:
        return method(request=request, timeout=CALL_SECONDS, retry=None)
    except NotFound:
        return None
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise AdminError.of(what, error) from error


def _create(what: str, method: Callable[..., Any], **request: Any) -> bool:
    try:
        method(request=request, timeout=CALL_SECONDS, retry=None)
    except AlreadyExists:
        return False
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise AdminError.of(what, error) from error
    return True
