"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Counts are of readings, rates of readings a second.

    rounds: how often throughput is measured, in turn. drained, original, slow_original: how many
    readings a trial takes for the fast subjects, for the original design, and for that with slow
    services. warm_seconds: what is left out of latencies at first. outage_seconds: at `live_rate`.
    """

    name: str
    capacity: int = 500_000
    rounds: int = 3
    drained: int = 60_000
    original: int = 2_000
    slow_original: int = 300
    rates: tuple[int, ...] = (500, 2_000, 10_000)
    latency_seconds: int = 20
    warm_seconds: int = 3
    starts: int = 7
    live_rate: int = 2_000
    outage_seconds: int = 45
    backlog: tuple[int, ...] = (100_000, 200_000, 300_000)
    sites: tuple[int, ...] = (1, 10, 100, 1_000)
    tags: tuple[int, ...] = (1_000, 10_000, 100_000)
    growth: int = 60_000
    weighed: int = 20_000


FULL = Scale("full")
QUICK = Scale(
    "quick",
    capacity=300_000,
    rounds=1,
    drained=40_000,
    original=600,
    slow_original=100,
    latency_seconds=6,
    warm_seconds=2,
    starts=3,
    outage_seconds=10,
    backlog=(20_000, 40_000),
    sites=(1, 1_000),
    tags=(1_000, 100_000),
    growth=30_000,
    weighed=6_000,
)
TINY = Scale(
    "tiny",
    capacity=2_000,
    rounds=1,
    drained=400,
    original=20,
    slow_original=5,
    rates=(2_000,),
    latency_seconds=1,
    warm_seconds=1,
    starts=1,
    live_rate=200,
    outage_seconds=1,
    backlog=(200, 400),
    sites=(20,),
    tags=(40,),
    growth=200,
    weighed=200,
)
