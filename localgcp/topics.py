"""The state of the local Pub/Sub: topics, what was published to them, and their subscriptions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import timestamp_pb2
from google.pubsub_v1 import PubsubMessage
from google.pubsub_v1 import Subscription as SubscriptionType
from google.pubsub_v1 import Topic as TopicType

from localgcp.subscription import Delivery, Reader, Subscription
from localgcp.topic_store import TopicStore

_Message, _Topic, _Subscription = PubsubMessage.pb(), TopicType.pb(), SubscriptionType.pb()
DELETED = "_deleted-topic_"
MAX_DELIVERY = 1_000
MAX_DELIVERY_BYTES = 10_000_000


class NotFound(Exception):
    """No such topic or subscription."""


class AlreadyExists(Exception):
    """There is one of that name."""


@dataclass(eq=False)
class Topic:
    """resource: the protobuf Topic, never changed in place. messages: all that were published and
    kept, serialized, in order; it only ever grows."""

    resource: Any
    id: int = 0
    messages: list[bytes] = field(default_factory=list)
    readers: list[Subscription] = field(default_factory=list)


class Topics:
    """All of it. Safe from any thread. With a file, what was answered survives `kill -9`.

    clock: seconds, for acknowledgement deadlines. Every method raises NotFound where a name is
    not known; those that change something raise sqlite3.Error when the file cannot be written, and
    have then changed nothing (but an acknowledgement holds until the next start).
    """

    def __init__(
        self, path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._topics: dict[str, Topic] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._next = self._reserved = 1
        self._store = None if path is None else TopicStore(path)
        if self._store is not None:
            self._load(self._store)

    def close(self) -> None:
        with self._changed:
            if self._store is not None:
                self._store.close()

    # --- topics -----------------------------------------------------------------------------------

    def create_topic(self, resource: Any) -> None:
        with self._changed:
            if resource.name in self._topics:
                raise AlreadyExists(f"Topic already exists: {resource.name}")
            id_ = 0
            if self._store is not None:
                id_ = self._store.add_topic(resource.name, resource.SerializeToString())
            self._topics[resource.name] = Topic(resource, id_)

    def topic(self, name: str) -> Topic:
        with self._changed:
            return self._topic(name)

    def update_topic(self, name: str, change: Callable[[Any], None]) -> Any:
        """`change` is given a copy of the resource, which then takes its place."""
        with self._changed:
            topic = self._topic(name)
            resource = _Topic.FromString(topic.resource.SerializeToString())
            change(resource)
            if self._store is not None:
                self._store.set_topic(topic.id, resource.SerializeToString())
            topic.resource = resource
            return resource

    def delete_topic(self, name: str) -> None:
        """Its subscriptions stay, with what they have not acknowledged."""
        with self._changed:
            topic = self._topic(name)
            orphans = [_with_topic(reader.resource, DELETED) for reader in topic.readers]
            if self._store is not None:
                rows = [
                    (orphan.SerializeToString(), reader.id)
                    for orphan, reader in zip(orphans, topic.readers, strict=True)
                ]
                self._store.delete_topic(topic.id, rows)
            for orphan, reader in zip(orphans, topic.readers, strict=True):
                reader.resource = orphan
            del self._topics[name]

    def topics(self, project: str) -> list[Any]:
        with self._changed:
            found = self._topics.items()
            return [one.resource for name, one in found if name.startswith(project + "/")]

    # --- subscriptions ----------------------------------------------------------------------------

    def create_subscription(self, resource: Any) -> None:
        with self._changed:
            if resource.name in self._subscriptions:
                raise AlreadyExists(f"Subscription already exists: {resource.name}")
            topic = self._topic(resource.topic)
            id_ = 0
            if self._store is not None:
                data = resource.SerializeToString()
                id_ = self._store.add_subscription(resource.name, data, topic.id)
            self._subscriptions[resource.name] = subscription = Subscription(resource, id_)
            topic.readers.append(subscription)

    def subscription(self, name: str) -> Any:
        """The resource."""
        with self._changed:
            return self._subscription(name).resource

    def delete_subscription(self, name: str) -> None:
        """Those that wait for its messages are told."""
        with self._changed:
            subscription = self._subscription(name)
            if self._store is not None:
                self._store.delete_subscription(subscription.id)
            del self._subscriptions[name]
            topic = self._topics.get(subscription.resource.topic)
            if topic is not None:
                topic.readers.remove(subscription)
            self._changed.notify_all()

    def subscriptions(self, project: str) -> list[Any]:
        with self._changed:
            found = self._subscriptions.items()
            return [one.resource for name, one in found if name.startswith(project + "/")]

    def subscriptions_of(self, topic: str) -> list[str]:
        with self._changed:
            return [str(reader.resource.name) for reader in self._topic(topic).readers]

    # --- messages ---------------------------------------------------------------------------------

    def publish(self, name: str, messages: Sequence[Any]) -> list[str]:
        """Answers the message ids, which it also writes into the messages, with the time. Kept
        when it returns; without a subscription and without retention the messages are thrown away,
        as the service does."""
        with self._changed:
            topic = self._topic(name)
            numbers = self._numbered(len(messages))
            _stamp(messages, numbers)
            if topic.readers or topic.resource.HasField("message_retention_duration"):
                self._keep(topic, numbers, messages)
                self._changed.notify_all()
            return [str(number) for number in numbers]

    def take(self, name: str, reader: Reader, seconds: float) -> list[Delivery]:
        """What may be delivered to the reader; waits up to `seconds` of real time for a first
        message, but does not notice a deadline that passes meanwhile."""
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                subscription = self._subscription(name)
                now = self._clock()
                taken = subscription.take(reader, MAX_DELIVERY, MAX_DELIVERY_BYTES, now)
                left = end - time.monotonic()
                if taken or left <= 0:
                    return taken
                self._changed.wait(left)

    def acknowledge(self, name: str, ack_ids: Sequence[str]) -> None:
        with self._changed:
            subscription = self._subscription(name)
            done = subscription.acknowledge(ack_ids)
            if self._store is not None and done:
                self._store.acknowledge(subscription.id, done)
            # The next of an ordering key may be free now, and a stream may have room.
            self._changed.notify_all()

    def extend(self, name: str, ack_ids: Sequence[str], seconds: int) -> None:
        with self._changed:
            self._subscription(name).extend(ack_ids, seconds, self._clock())
            self._changed.notify_all()

    # --- inside: with the lock held ---------------------------------------------------------------

    def _topic(self, name: str) -> Topic:
        if name not in self._topics:
            raise NotFound(f"Topic not found: {name}")
        return self._topics[name]

    def _subscription(self, name: str) -> Subscription:
        if name not in self._subscriptions:
            raise NotFound(f"Subscription does not exist: {name}")
        return self._subscriptions[name]

    def _numbered(self, count: int) -> range:
        if self._store is not None and self._next + count > self._reserved:
            _, self._reserved = self._store.reserve()
        numbers = range(self._next, self._next + count)
        self._next += count
        return numbers

    def _keep(self, topic: Topic, numbers: Sequence[int], messages: Sequence[Any]) -> None:
        kept = [message.SerializeToString() for message in messages]
        if self._store is not None:
            self._store.add_messages(topic.id, numbers, kept)
        topic.messages.extend(kept)
        for reader in topic.readers:
            for number, message, data in zip(numbers, messages, kept, strict=True):
                reader.add(number, data, message.ordering_key)

    def _load(self, store: TopicStore) -> None:
        self._next, self._reserved = store.reserve()
        topics = {id_: Topic(_Topic.FromString(data), id_) for id_, data in store.topics()}
        self._topics = {topic.resource.name: topic for topic in topics.values()}
        readers: dict[int, list[tuple[int, Subscription]]] = {}
        for id_, data, topic_id, since in store.subscriptions():
            subscription = Subscription(_Subscription.FromString(data), id_)
            self._subscriptions[subscription.resource.name] = subscription
            readers.setdefault(topic_id, []).append((since, subscription))
            if topic_id in topics:
                topics[topic_id].readers.append(subscription)
        acknowledged = store.acknowledged()
        for number, topic_id, data in store.messages():
            if topic_id in topics:
                topics[topic_id].messages.append(data)
            for since, subscription in readers.get(topic_id, ()):
                if number > since and (subscription.id, number) not in acknowledged:
                    subscription.add(number, data, _Message.FromString(data).ordering_key)


def _stamp(messages: Sequence[Any], numbers: Sequence[int]) -> None:
    now = timestamp_pb2.Timestamp()
    now.FromNanoseconds(time.time_ns())
    for number, message in zip(numbers, messages, strict=True):
        message.message_id = str(number)
        message.publish_time.CopyFrom(now)


def _with_topic(resource: Any, topic: str) -> Any:
    changed = _Subscription.FromString(resource.SerializeToString())
    changed.topic = topic
    return changed
