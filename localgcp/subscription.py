"""One subscription of the local Pub/Sub: what may be delivered now, to whom, and when again.

The rules of the service that it keeps:

1. A message that was handed out is handed out again when its deadline passes, or at once when it
   is given back; never before, and never after it is acknowledged.
2. With ordering, the messages of a key are handed out in the order of publishing. While one of
   them is outstanding, more of the key go only to the stream that holds it.
3. With ordering, a message that comes back brings back all that were handed out behind it, the
   acknowledged ones included.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

DEFAULT_SECONDS = 10
_Waiting = tuple[int, bytes]


class Delivery(NamedTuple):
    """One message on its way to a subscriber. message: the serialized PubsubMessage."""

    ack_id: str
    message: bytes


@dataclass(eq=False)
class Reader:
    """One that takes messages: a pull, or a stream with its flow control (0: no limit).

    seconds: its acknowledgement deadline; 0: the subscription's. follows: takes more of an
    ordering key of which it holds messages already.
    """

    max_messages: int
    max_bytes: int = 0
    seconds: int = 0
    follows: bool = False
    messages: int = 0
    size: int = 0

    def room(self) -> bool:
        """Whether it takes one more. A message larger than all its room goes when it has none."""
        return not (
            (self.max_messages and self.messages >= self.max_messages)
            or (self.max_bytes and self.size >= self.max_bytes)
        )

    def count(self, message: bytes, sign: int) -> None:
        self.messages += sign
        self.size += sign * len(message)


@dataclass(eq=False)
class _Held:
    ack_id: str
    number: int
    message: bytes
    reader: Reader
    lane: _Lane
    deadline: float
    acknowledged: bool = False


@dataclass(eq=False)
class _Lane:
    """The messages of one ordering key, or all those without one. held: by number, in order."""

    ordered: bool
    waiting: deque[_Waiting] = field(default_factory=deque)
    held: OrderedDict[int, _Held] = field(default_factory=OrderedDict)

    def open_to(self, reader: Reader) -> bool:
        if not self.ordered or not self.held:
            return True
        return reader.follows and next(iter(self.held.values())).reader is reader

    def settled(self, held: _Held) -> Iterator[_Held]:
        """What an acknowledgement is the last word on: the message itself or, with ordering, all
        at the front of the key, as none before them can bring them back any more."""
        if not self.ordered:
            yield self.held.pop(held.number)
        while self.ordered and self.held and next(iter(self.held.values())).acknowledged:
            yield self.held.popitem(last=False)[1]

    def returned(self, held: _Held) -> list[_Held]:
        """Take it back, with all behind it where there is an order."""
        numbers = [held.number]
        if self.ordered:
            numbers = [number for number in self.held if number >= held.number]
        back = [self.held.pop(number) for number in numbers]
        self.waiting.extendleft((one.number, one.message) for one in reversed(back))
        return back


class Subscription:
    """Not safe by itself; never blocks. `now`: seconds on any clock that does not go back.

    resource: the protobuf Subscription, never changed in place.
    """

    def __init__(self, resource: Any, id_: int = 0) -> None:
        self.resource = resource
        self.id = id_
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        self._held: dict[str, _Held] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._ack_ids = itertools.count(1)
        # An acknowledgement of an earlier process must not be taken for one of this.
        self._epoch = secrets.token_hex(4)

    def add(self, number: int, message: bytes, ordering_key: str) -> None:
        """Queue a message. Numbers ascend."""
        key = ordering_key if self.resource.enable_message_ordering else ""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(ordered=bool(key))
        lane.waiting.append((number, message))

    def take(self, reader: Reader, most: int, most_bytes: int, now: float) -> list[Delivery]:
        """Up to `most` messages of together `most_bytes` (or one that is larger)."""
        self._expire(now)
        taken: list[Delivery] = []
        size = 0
        for lane in self._open_lanes(reader):
            while lane.waiting and reader.room() and len(taken) < most:
                size += len(lane.waiting[0][1])
                if taken and size > most_bytes:
                    return taken
                taken.append(self._hand_out(lane, reader, now))
            if len(taken) == most or not reader.room():
                break
        return taken

    def acknowledge(self, ack_ids: Sequence[str]) -> list[int]:
        """Answers the numbers of the messages that will never be delivered again. Ids that are
        known no more are passed over. Idempotent."""
        done = []
        for ack_id in ack_ids:
            held = self._held.get(ack_id)
            if held is None or held.acknowledged:
                continue
            held.acknowledged = True
            held.reader.count(held.message, -1)
            for one in held.lane.settled(held):
                del self._held[one.ack_id]
                done.append(one.number)
        return done

    def extend(self, ack_ids: Sequence[str], seconds: int, now: float) -> None:
        """Move the deadline to `seconds` from now; 0 gives the message back. Ids that are known no
        more are passed over."""
        for ack_id in ack_ids:
            held = self._held.get(ack_id)
            if held is None or held.acknowledged:
                continue
            if seconds == 0:
                self._give_back(held)
            else:
                self._set_deadline(held, now + seconds)

    def _open_lanes(self, reader: Reader) -> Iterator[_Lane]:
        for key in list(self._lanes):
            lane = self._lanes[key]
            if not lane.waiting and not lane.held:
                del self._lanes[key]
            elif lane.waiting and lane.open_to(reader):
                # To the back of the line: a busy key must not keep the others waiting for ever.
                self._lanes.move_to_end(key)
                yield lane

    def _hand_out(self, lane: _Lane, reader: Reader, now: float) -> Delivery:
        number, message = lane.waiting.popleft()
        ack_id = f"{self._epoch}-{next(self._ack_ids)}"
        held = _Held(ack_id, number, message, reader, lane, deadline=now)
        lane.held[number] = self._held[ack_id] = held
        reader.count(message, +1)
        seconds = reader.seconds or self.resource.ack_deadline_seconds or DEFAULT_SECONDS
        self._set_deadline(held, now + seconds)
        return Delivery(ack_id, message)

    def _set_deadline(self, held: _Held, deadline: float) -> None:
        # The earlier entry of the message stays in the heap; `_expire` sees that it is overtaken.
        held.deadline = deadline
        heapq.heappush(self._deadlines, (deadline, held.ack_id))

    def _expire(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            held = self._held.get(heapq.heappop(self._deadlines)[1])
            if held is not None and not held.acknowledged and held.deadline <= now:
                self._give_back(held)

    def _give_back(self, held: _Held) -> None:
        for one in held.lane.returned(held):
            del self._held[one.ack_id]
            if not one.acknowledged:
                one.reader.count(one.message, -1)
