"""When each reading arrived at the services, by their own clocks, and whether all did.

It is the machine's one clock: generator and services run side by side. A reading counts as arrived
when the service has it; the answer to the bridge takes a fraction of a millisecond more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import orjson

from bench.generator import BASE
from bench.stage import Stage

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Miscounted(AssertionError):
    """What arrived is not what was sent; the message has the counts."""


class Arrival(NamedTuple):
    """Microseconds since 1970. due_us: when the reading was to be published."""

    number: int
    due_us: int
    arrived_us: int

    @property
    def latency_ms(self) -> float:
        return (self.arrived_us - self.due_us) / 1_000


def by_sink(stage: Stage, count: int) -> dict[str, list[Arrival]]:
    """In the order of their coming. Raises Miscounted unless each of the readings 0 to `count` is
    there once. To be asked when nothing is under way any more."""
    found = {"pubsub": list(_events(stage)), "bigquery": list(_rows(stage))}
    for sink, arrivals in found.items():
        require_each_once(sink, (arrival.number for arrival in arrivals), count)
    return found


def require_each_once(sink: str, found: Iterable[int], count: int) -> None:
    """Raises Miscounted."""
    times = Counter(found)
    lost = sum(1 for number in range(count) if number not in times)
    copies = times.total() - len(times)
    if lost or copies or len(times) != count:
        raise Miscounted(
            f"{sink}: of {count} readings {lost} are missing, {copies} are copies, and "
            f"{len(times) - count + lost} were never sent"
        )


def _events(stage: Stage) -> Iterator[Arrival]:
    for message in stage.services.events(stage.settings):
        event = orjson.loads(message["data"])
        due = (datetime.fromisoformat(event["event_time"]) - EPOCH) // MICROSECOND
        yield Arrival(int(event["value"]) - BASE, due, message["publish_us"])


def _rows(stage: Stage) -> Iterator[Arrival]:
    times = (us for count, us in stage.services.arrivals(stage.settings) for _ in range(count))
    for row, arrived in zip(stage.services.rows(stage.settings), times, strict=True):
        yield Arrival(int(row["value"]) - BASE, row["event_time"], arrived)
