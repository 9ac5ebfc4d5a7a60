"""One MQTT connection: the messages in hand, and what the broker can still send again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.reading import Message

BATCH = 500  # messages of one commit
BATCH_BYTES = 4 * 1024**2  # of payload; a batch holds one message however large it is
# What may wait for the journal: more than Receive Maximum lets a broker send.
HAND = 1_500
HAND_BYTES = 128 * 1024**2


class Received(NamedTuple):
    """A message in hand. `mid` 0: QoS 0, there is nothing to acknowledge."""

    message: Message
    mid: int
    retained: bool


class Barrier(NamedTuple):
    """A question to the broker under way, and what had come and been acknowledged before it went
    out."""

    mid: int
    arrived: int
    done: int
    seq: int


@dataclass
class Link:
    """What holds for one connection only. Used from the subscriber's thread alone; times are
    monotonic seconds.

    window: how many messages the broker may have sent without an acknowledgement.
    received, done: messages that want an acknowledgement, and those of them that were
        acknowledged, or left unacknowledged for good (`left`, refused messages without room; the
        smallest of them needs `least_room` bytes).
    passing_over: more came than may wait, so this one and all after it are to be sent again.
    """

    began_at: float
    window: int
    answered: bool = False  # CONNACK came, good or bad
    subscribed_at: float | None = None
    version_refused: bool = False
    planned_end: bool = False
    passing_over: bool = False
    arrived: int = 0
    received: int = 0
    done: int = 0
    left: int = 0
    least_room: int = 0
    barrier: Barrier | None = None
    barrier_at: float = 0.0
    confirmed_seq: int = -1
    subscribe_at: float = 0.0
    leaving: int | None = None  # the packet id that takes leave of a former filter
    first_at: float = 0.0  # when the oldest message in hand came
    waiting: list[Received] = field(default_factory=list)
    _bytes: int = 0

    def arrive(self, received: Received) -> None:
        """Count a message, whatever becomes of it."""
        self.arrived += 1
        self.received += bool(received.mid)

    def hold(self, received: Received, now: float) -> None:
        """Take a message in hand, unless too many wait already."""
        if self.passing_over or len(self.waiting) >= HAND or self._bytes >= HAND_BYTES:
            self.passing_over = True
            return
        if not self.waiting:
            self.first_at = now
        self.waiting.append(received)
        self._bytes += len(received.message.payload)

    @property
    def batch_is_full(self) -> bool:
        return len(self.waiting) >= BATCH or self._bytes >= BATCH_BYTES

    def batch(self) -> list[Received]:
        """The oldest messages in hand, as many as one commit takes."""
        if self._bytes <= BATCH_BYTES:
            return self.waiting[:BATCH]
        count = size = 0
        for received in self.waiting[:BATCH]:
            size += len(received.message.payload)
            if count and size > BATCH_BYTES:
                break
            count += 1
        return self.waiting[:count]

    def taken(self, batch: Sequence[Received], left: Mapping[int, int], now: float) -> None:
        """Note that the oldest messages in hand are done with, but those of `left`: by index, the
        room that each would have needed."""
        del self.waiting[: len(batch)]
        self._bytes -= sum(len(received.message.payload) for received in batch)
        self.first_at = now
        self.done += sum(1 for received in batch if received.mid)
        if left:
            least = min(left.values())
            self.least_room = min(self.least_room, least) if self.left else least
            self.left += len(left)

    def drop_waiting(self) -> list[Received]:
        dropped, self.waiting, self._bytes = self.waiting, [], 0
        return dropped

    @property
    def all_left(self) -> bool:
        """Whether nothing more can come, for all that the broker may send is unacknowledged."""
        return self.left >= self.window

    @property
    def may_confirm(self) -> bool:
        """Whether it is of use to ask the broker how far it has read."""
        return self.received == self.done or self.done >= self.window

    def is_last(self, barrier: Barrier) -> bool:
        """Whether the answer to `barrier`, come just now, says that the broker has nothing more:
        nothing was outstanding when the question went out, and nothing came before the answer."""
        settled = barrier.done == self.received or self.all_left
        return settled and barrier.arrived == self.arrived and not self.waiting

    def confirms(self, barrier: Barrier) -> bool:
        """Whether the answer to `barrier`, come just now, says that nothing up to its `seq` can be
        sent again. What earlier connections left unacknowledged comes first on this one, and is
        not more than the window: it is done with once so many are, or when nothing else came."""
        return barrier.done >= self.window or self.received == barrier.done
