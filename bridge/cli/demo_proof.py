"""What was sent against what the services hold. Pure: no service is asked here.

A reading is recognised by what it says (site, tag, sensor, time, value), not by an id of the
bridge's making, so that the bridge is no witness in its own cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from bridge.cli.traffic import Outgoing


class Content(NamedTuple):
    """What one reading says. `event_time` with six digits and Z."""

    site: str
    pi_tag: str
    sensor_id: str
    event_time: str
    value: float


class Event(NamedTuple):
    """One message found in Pub/Sub. `message_id` is Pub/Sub's own, and the same when it hands out
    one message twice."""

    message_id: str
    event_id: str
    content: Content


class Row(NamedTuple):
    """One row found in BigQuery."""

    event_id: str
    content: Content


@dataclass
class Published:
    """What was published, in order."""

    readings: list[Content] = field(default_factory=list)
    duplicates: int = 0
    junk: Counter[str] = field(default_factory=Counter)

    def add(self, message: Outgoing) -> None:
        sample = message.sample
        if message.kind == "reading":
            identity = (sample.site, sample.pi_tag, sample.sensor_id, sample.timestamp)
            self.readings.append(Content(*identity, float(sample.value)))
        elif message.kind == "duplicate":
            self.duplicates += 1
        else:
            self.junk[message.reason or ""] += 1

    @property
    def messages(self) -> int:
        return len(self.readings) + self.duplicates + self.junk.total()


@dataclass(frozen=True)
class Found:
    """What the services hold at the end, and what the bridge says of itself.

    events: in the order in which Pub/Sub hands them out. dead_letters: their reasons.
    refused: messages that the broker refused. exit_code: the bridge's.
    """

    events: Sequence[Event]
    rows: Sequence[Row]
    dead_letters: Sequence[str]
    ledger: dict[str, Any]
    refused: int
    exit_code: int


class Check(NamedTuple):
    """One line of the proof."""

    name: str
    expected: object
    found: object

    @property
    def holds(self) -> bool:
        return self.expected == self.found


def proof(published: Published, found: Found) -> list[Check]:
    """Every check, in the order in which to read them."""
    return [
        *_transport(published, found),
        *_pubsub(published, found),
        *_bigquery(published, found),
        *_bookkeeping(published, found),
    ]


def _transport(published: Published, found: Found) -> Iterator[Check]:
    distinct = len(set(published.readings))
    yield Check("readings published, all distinct", distinct, len(published.readings))
    yield Check("messages the broker refused", 0, found.refused)


def _pubsub(published: Published, found: Found) -> Iterator[Check]:
    events = once(found.events)
    contents = [event.content for event in events]
    yield Check("events in Pub/Sub, as they were sent", *_same(published, contents))
    yield Check("copies of events in Pub/Sub", 0, len(events) - len(set(contents)))
    yield Check("event ids in Pub/Sub", len(set(contents)), len({e.event_id for e in events}))
    yield Check("events out of order within their site", 0, inversions(published, contents))


def _bigquery(published: Published, found: Found) -> Iterator[Check]:
    contents = [row.content for row in found.rows]
    yield Check("rows in BigQuery, as they were sent", *_same(published, contents))
    yield Check("copies of rows in BigQuery", 0, len(contents) - len(set(contents)))
    of_events = {event.event_id for event in found.events}
    strange = [row for row in found.rows if row.event_id not in of_events]
    yield Check("rows whose id no event has", 0, len(strange))


def _bookkeeping(published: Published, found: Found) -> Iterator[Check]:
    totals = found.ledger.get("totals", {})
    letters = Counter(found.dead_letters)
    for reason in sorted(published.junk | letters):
        yield Check(f"dead letters: {reason}", published.junk[reason], letters[reason])
    yield Check("duplicates recognised", published.duplicates, totals.get("duplicates"))
    yield Check("messages the bridge counted", published.messages, totals.get("received"))
    yield Check("the ledger balances", True, found.ledger.get("balanced"))
    yield Check("exit code of the bridge, drained", 0, found.exit_code)


def _same(published: Published, contents: Iterable[Content]) -> tuple[int | str, int | str]:
    """Both numbers, or what is missing and what is too much."""
    wanted, seen = set(published.readings), set(contents)
    if wanted == seen:
        return len(wanted), len(seen)
    return len(wanted), f"{len(seen)} ({len(wanted - seen)} missing, {len(seen - wanted)} strange)"


def once(events: Iterable[Event]) -> list[Event]:
    """Each message of Pub/Sub once, although it may hand one out again."""
    return list({event.message_id: event for event in events}.values())


def inversions(published: Published, contents: Iterable[Content]) -> int:
    """How often a reading is followed by one of its site that was published before it. Copies do
    not count: only where each appears first."""
    position = {content: index for index, content in enumerate(published.readings)}
    by_site: dict[str, list[int]] = {}
    for content in dict.fromkeys(contents):
        if content in position:
            by_site.setdefault(content.site, []).append(position[content])
    return sum(
        later < earlier for positions in by_site.values() for earlier, later in pairwise(positions)
    )
