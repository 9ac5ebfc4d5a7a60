"""The parts of the benchmark, in the order in which they run."""

from __future__ import annotations

from bench.measures import capacity, cost, growth, latency, outage, starting, throughput, weight
from bench.section import Measure

ALL: dict[str, Measure] = {
    "capacity": capacity.measure,
    "throughput": throughput.measure,
    "latency": latency.measure,
    "start": starting.measure,
    "outage": outage.measure,
    "growth": growth.measure,
    "weight": weight.measure,
    "cost": cost.measure,
}
