"""A long outage: what a large backlog does to memory, and to the sink that is well.

both sinks away, readings pile up             memory by size of the backlog
Pub/Sub comes back, BigQuery stays away       how fast it drains; live latency beside the rest
BigQuery comes back, readings keep coming     how fast it drains; live latency meanwhile
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bridge.cli.publishing import Publisher
from bridge.settings import load
from chaos.rig import SITES, Rig
from chaos.scenario import Scenario
from chaos.sensors import payload, topic

STEPS = 4  # how often memory is looked at while the backlog grows
PATIENCE_SECONDS = 1_800.0
BUCKET = re.compile(
    r'bridge_settle_latency_seconds_bucket\{le="(?P<bound>[^"]+)",sink="pubsub"\} (?P<count>.+)'
)


class Latency(NamedTuple):
    """Seconds, as upper bounds: from the reading's arrival at the bridge until it is settled."""

    p50: float
    p99: float


@dataclass
class Measured:
    """resident: bytes by size of the backlog, in readings, and after it. rates: readings a second,
    by sink, from its return until it had caught up. latencies: of live readings in Pub/Sub, by
    what else is going on."""

    resident: dict[int, int] = field(default_factory=dict)
    resident_after: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    latencies: dict[str, Latency] = field(default_factory=dict)


def backlog(count: int, measured: Measured, tell: Callable[[str], None]) -> Scenario:
    """As a scenario: `count` readings pile up under the usual load."""
    return Scenario(
        "backlog",
        "recovery",
        f"both services are away for {count:,} readings",
        lambda rig: _fault(rig, count, measured, tell),
        settings={"JOURNAL_MAX_BYTES": str(16 * 1024**3)},
        alone=True,
    )


def _fault(rig: Rig, count: int, measured: Measured, tell: Callable[[str], None]) -> None:
    measured.latencies["without a backlog"] = _latency(rig)
    pubsub = rig.services.add_fault("pubsub.*", status="UNAVAILABLE", times=None)
    bigquery = rig.services.add_fault("storage.*", status="UNAVAILABLE", times=None)
    measured.resident[0] = rig.bridge.resident_bytes
    _pile_up(rig, count, measured, tell)
    rig.services.remove_fault(pubsub)
    measured.rates["pubsub"] = _drained(rig, "pubsub", tell)
    measured.latencies["beside the other sink's backlog"] = _latency(rig)
    rig.services.remove_fault(bigquery)
    measured.latencies["while the other sink catches up"] = _latency(rig)
    measured.rates["bigquery"] = _drained(rig, "bigquery", tell)
    measured.resident_after = rig.bridge.resident_bytes


def _pile_up(rig: Rig, count: int, measured: Measured, tell: Callable[[str], None]) -> None:
    first = rig.first_number
    sites = [f"PILE{index}" for index in range(len(SITES))]
    share = count // len(sites)
    rig.also_sent.update({site: range(first, first + share) for site in sites})
    messages = ((site, number) for number in range(first, first + share) for site in sites)
    settings = load({**rig.bridge.environment, "MQTT_PORT": str(rig.broker.port)})
    with Publisher(settings, "backlog") as publisher:
        for step in range(1, STEPS + 1):
            _send(publisher, islice(messages, count // STEPS))
            reached = _taken(rig, step * (count // STEPS))
            measured.resident[reached] = rig.bridge.resident_bytes
            tell(f"backlog {reached:,}: {measured.resident[reached] / 1e6:.0f} MB resident")


def _taken(rig: Rig, goal: int) -> int:
    rig.wait_until(lambda: rig.of_sink("pubsub", "pending") >= goal, "taken", 600)
    return goal


def _send(publisher: Publisher, messages: Iterator[tuple[str, int]]) -> None:
    for site, number in messages:
        publisher.publish(topic(site, number), payload(site, number))
    publisher.settle()


def _drained(rig: Rig, sink: str, tell: Callable[[str], None]) -> float:
    """Until nothing old is pending for a sink; readings a second."""
    began, before = time.monotonic(), rig.resolved(sink)
    goal = rig.total("accepted")
    rig.wait_until(lambda: rig.resolved(sink) >= goal, f"{sink} caught up", PATIENCE_SECONDS)
    rate = (rig.resolved(sink) - before) / (time.monotonic() - began)
    tell(f"{sink} caught up at {rate:,.0f} readings/s")
    return rate


def _latency(rig: Rig) -> Latency:
    """Of the live readings, while they come for a few seconds."""
    rig.rest(1, 3)  # those that had to wait before are not meant
    before = _buckets(rig)
    rig.rest(2, 15)
    after = _buckets(rig)
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in after}
    return Latency(quantile(counts, 0.5), quantile(counts, 0.99))


def _buckets(rig: Rig) -> dict[float, float]:
    """Settlements in Pub/Sub so far, by the upper bound of their latency in seconds, cumulative."""
    found = {}
    for line in rig.bridge.text("/metrics").splitlines():
        if match := BUCKET.match(line):
            found[float(match["bound"])] = float(match["count"])
    return found


def quantile(cumulative: Mapping[float, float], share: float) -> float:
    """The least bound that this share of all is within; NaN where there is nothing."""
    total = max(cumulative.values(), default=0.0)
    within = (bound for bound in sorted(cumulative) if cumulative[bound] >= share * total)
    return next(within, math.nan) if total else math.nan


def tables(measured: Measured) -> Iterator[Table]:
    """For the terminal."""
    memory = Table("backlog, readings", "resident, MB", box=SIMPLE_HEAD)
    for size, resident in measured.resident.items():
        memory.add_row(f"{size:,}", f"{resident / 1e6:.0f}")
    memory.add_row("after", f"{measured.resident_after / 1e6:.0f}")
    yield memory
    speed = Table("catching up", "readings/s", box=SIMPLE_HEAD)
    for sink, rate in measured.rates.items():
        speed.add_row(sink, f"{rate:,.0f}")
    yield speed
    live = Table("live readings, Pub/Sub", "p50 ≤ ms", "p99 ≤ ms", box=SIMPLE_HEAD)
    for situation, latency in measured.latencies.items():
        live.add_row(situation, f"{latency.p50 * 1e3:.0f}", f"{latency.p99 * 1e3:.0f}")
    yield live
