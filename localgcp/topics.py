"""Topics, subscriptions and messages of the local Pub/Sub: what is delivered, and when again."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from google.pubsub_v1 import PubsubMessage
from google.pubsub_v1 import Subscription as SubscriptionType
from google.pubsub_v1 import Topic as TopicType

_Message, _Topic, _Subscription = PubsubMessage.pb(), TopicType.pb(), SubscriptionType.pb()


class NotFound(Exception):
    """No such topic or subscription."""


class AlreadyExists(Exception):
    """There is one of that name."""


class Delivery(NamedTuple):
    """One message on its way to a subscriber."""

    ack_id: str
    number: int
    message: Any
    attempt: int


@dataclass
class _Outstanding:
    number: int
    message: Any
    deadline: float


@dataclass
class Topic:
    """resource: the protobuf Topic. messages: all that were published and kept, in order."""

    resource: Any
    messages: list[Any] = field(default_factory=list)


@dataclass
class Subscription:
    """resource: the protobuf Subscription. Queues are by ordering key; without ordering there is
    one queue. Not safe by itself."""

    resource: Any
    queues: OrderedDict[str, deque[tuple[int, Any]]] = field(default_factory=OrderedDict)
    outstanding: dict[str, _Outstanding] = field(default_factory=dict)
    by_key: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    attempts: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def _key(self, message: Any) -> str:
        return str(message.ordering_key) if self.resource.enable_message_ordering else ""

    def add(self, number: int, message: Any) -> None:
        self.queues.setdefault(self._key(message), deque()).append((number, message))

    def take(self, most: int, now: float, ack_ids: itertools.count[int]) -> list[Delivery]:
        """Up to `most` messages that may be delivered now. Of an ordering key there are more
        only when those before are acknowledged."""
        self._expire(now)
        taken: list[Delivery] = []
        for key in list(self.queues):
            if key and self.by_key[key]:
                continue
            queue = self.queues[key]
            while queue and len(taken) < most:
                taken.append(self._hand_out(key, *queue.popleft(), now, ack_ids))
            if not queue:
                del self.queues[key]
            if len(taken) >= most:
                break
        return taken

    def _hand_out(
        self, key: str, number: int, message: Any, now: float, ack_ids: itertools.count[int]
    ) -> Delivery:
        ack_id = f"ack-{next(ack_ids)}"
        deadline = now + (self.resource.ack_deadline_seconds or 10)
        self.outstanding[ack_id] = _Outstanding(number, message, deadline)
        self.by_key[key].add(ack_id)
        self.attempts[number] += 1
        return Delivery(ack_id, number, message, self.attempts[number])

    def acknowledge(self, ack_ids: Sequence[str]) -> list[int]:
        """Answers the numbers of the messages that are done with."""
        done = []
        for ack_id in ack_ids:
            held = self.outstanding.pop(ack_id, None)
            if held is not None:
                self.by_key[self._key(held.message)].discard(ack_id)
                self.attempts.pop(held.number, None)
                done.append(held.number)
        return done

    def extend(self, ack_ids: Sequence[str], seconds: int, now: float) -> None:
        """A deadline of 0 gives the message back."""
        for ack_id in ack_ids:
            held = self.outstanding.get(ack_id)
            if held is not None and seconds == 0:
                self._give_back(held)
            elif held is not None:
                held.deadline = now + seconds

    def _expire(self, now: float) -> None:
        for held in [held for held in self.outstanding.values() if held.deadline <= now]:
            self._give_back(held)

    def _give_back(self, held: _Outstanding) -> None:
        """Back into the queue, with what was handed out behind it of the same ordering key."""
        key = self._key(held.message)
        back = [
            (ack_id, other)
            for ack_id in self.by_key[key]
            if (other := self.outstanding[ack_id]) is held or (key and other.number > held.number)
        ]
        for ack_id, _ in back:
            del self.outstanding[ack_id]
            self.by_key[key].discard(ack_id)
        returned = sorted((other.number, other.message) for _, other in back)
        queue = self.queues.setdefault(key, deque())
        queue.extendleft(reversed(returned))


class Topics:
    """All of it. Safe from any thread. With a file, what was answered survives `kill -9`."""

    def __init__(self, path: Path | None = None) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._topics: dict[str, Topic] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._numbers = itertools.count(1)
        self._ack_ids = itertools.count(1)
        self._db = None if path is None else self._open(path)
        if self._db is not None:
            self._load(self._db)

    # --- resources --------------------------------------------------------------------------------

    def create_topic(self, resource: Any) -> None:
        with self.changed:
            if resource.name in self._topics:
                raise AlreadyExists(f"Topic already exists: {resource.name}")
            self._topics[resource.name] = Topic(resource)
            self._save("topics", resource)

    def topic(self, name: str) -> Topic:
        with self.changed:
            if name not in self._topics:
                raise NotFound(f"Resource not found (resource={name.rsplit('/', 1)[-1]}).")
            return self._topics[name]

    def update_topic(self, resource: Any, paths: Sequence[str]) -> Any:
        with self.changed:
            known = self.topic(resource.name).resource
            for path in paths:
                known.ClearField(path)
                given = type(resource)(**{path: getattr(resource, path)})
                known.MergeFrom(given)
            self._save("topics", known)
            return known

    def delete_topic(self, name: str) -> None:
        with self.changed:
            self.topic(name)
            del self._topics[name]
            self._remove("topics", name)

    def topics(self, project: str) -> list[Any]:
        with self.changed:
            return [t.resource for n, t in self._topics.items() if n.startswith(project + "/")]

    def create_subscription(self, resource: Any) -> None:
        with self.changed:
            if resource.name in self._subscriptions:
                raise AlreadyExists(f"Subscription already exists: {resource.name}")
            self.topic(resource.topic)
            self._subscriptions[resource.name] = Subscription(resource)
            self._save("subscriptions", resource)

    def subscription(self, name: str) -> Subscription:
        with self.changed:
            if name not in self._subscriptions:
                raise NotFound(f"Resource not found (resource={name.rsplit('/', 1)[-1]}).")
            return self._subscriptions[name]

    def delete_subscription(self, name: str) -> None:
        with self.changed:
            self.subscription(name)
            del self._subscriptions[name]
            self._remove("subscriptions", name)

    def subscriptions(self, project: str) -> list[Any]:
        with self.changed:
            known = self._subscriptions.items()
            return [s.resource for name, s in known if name.startswith(project + "/")]

    def subscriptions_of(self, topic: str) -> list[str]:
        with self.changed:
            known = self._subscriptions.items()
            return [name for name, s in known if s.resource.topic == topic]

    # --- messages ---------------------------------------------------------------------------------

    def publish(self, name: str, messages: Sequence[Any]) -> list[str]:
        """Kept when it returns; answers the message ids. Without a subscription and without
        retention the messages are thrown away, as the service does."""
        with self.changed:
            topic = self.topic(name)
            readers = [s for s in self._subscriptions.values() if s.resource.topic == name]
            now = time.time_ns()
            numbers = [next(self._numbers) for _ in messages]
            for number, message in zip(numbers, messages, strict=True):
                message.message_id = str(number)
                message.publish_time.FromNanoseconds(now)
            if readers or topic.resource.HasField("message_retention_duration"):
                self._keep(name, topic, numbers, messages)
            for reader in readers:
                for number, message in zip(numbers, messages, strict=True):
                    reader.add(number, message)
            self.changed.notify_all()
        return [str(number) for number in numbers]

    def _keep(
        self, name: str, topic: Topic, numbers: Sequence[int], messages: Sequence[Any]
    ) -> None:
        topic.messages.extend(messages)
        if self._db is not None:
            rows = [
                (number, name, message.SerializeToString())
                for number, message in zip(numbers, messages, strict=True)
            ]
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO messages VALUES (?, ?, ?)", rows)
            self._db.execute("COMMIT")

    def take(self, name: str, most: int) -> list[Delivery]:
        """What may be delivered of a subscription now."""
        with self.changed:
            return self.subscription(name).take(most, time.monotonic(), self._ack_ids)

    def acknowledge(self, name: str, ack_ids: Sequence[str]) -> None:
        with self.changed:
            done = self.subscription(name).acknowledge(ack_ids)
            if self._db is not None:
                self._db.execute("BEGIN")
                self._db.executemany(
                    "INSERT OR IGNORE INTO acks VALUES (?, ?)", [(name, n) for n in done]
                )
                self._db.execute("COMMIT")
            self.changed.notify_all()

    def extend(self, name: str, ack_ids: Sequence[str], seconds: int) -> None:
        with self.changed:
            self.subscription(name).extend(ack_ids, seconds, time.monotonic())
            self.changed.notify_all()

    # --- on disk ----------------------------------------------------------------------------------

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(
            "CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, resource BLOB);"
            "CREATE TABLE IF NOT EXISTS subscriptions (name TEXT PRIMARY KEY, resource BLOB,"
            " since INTEGER);"
            "CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY, topic TEXT,"
            " message BLOB);"
            "CREATE TABLE IF NOT EXISTS acks (subscription TEXT, number INTEGER,"
            " PRIMARY KEY (subscription, number)) WITHOUT ROWID"
        )
        return db

    def _load(self, db: sqlite3.Connection) -> None:
        for name, resource in db.execute("SELECT name, resource FROM topics").fetchall():
            self._topics[name] = Topic(_Topic.FromString(resource))
        since = {}
        for name, resource, first in db.execute("SELECT * FROM subscriptions").fetchall():
            self._subscriptions[name] = Subscription(_Subscription.FromString(resource))
            since[name] = first
        acked = set(db.execute("SELECT subscription, number FROM acks"))
        last = 0
        for number, topic, data in db.execute("SELECT * FROM messages ORDER BY number"):
            last = number
            message = _Message.FromString(data)
            if topic in self._topics:
                self._topics[topic].messages.append(message)
            for name, known in self._subscriptions.items():
                wanted = known.resource.topic == topic and number > since[name]
                if wanted and (name, number) not in acked:
                    known.add(number, message)
        self._numbers = itertools.count(last + 1)

    def _save(self, table: str, resource: Any) -> None:
        if self._db is None:
            return
        row: tuple[Any, ...] = (resource.name, resource.SerializeToString())
        if table == "subscriptions":
            since = self._db.execute("SELECT coalesce(max(number), 0) FROM messages").fetchone()[0]
            row = (*row, since)
        marks = ", ".join("?" * len(row))
        self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)

    def _remove(self, table: str, name: str) -> None:
        if self._db is not None:
            self._db.execute(f"DELETE FROM {table} WHERE name = ?", (name,))
