"""From the moment a reading is due at the sensor until each service has it, at several rates.

Seen from outside, by the services' clock (bench/arrivals.py); beside it the bridge's own histogram,
from reception until the settlement is in the journal, which knows only its buckets' bounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from bench import process
from bench.arrivals import Arrival, by_sink
from bench.generator import Load, Sent
from bench.scale import Scale
from bench.section import Row, Section, Tell, quantile, summed_up
from bench.stage import Stage
from bench.subjects import BRIDGE
from chaos.backlog import quantile as quantile_of_buckets

SITES, JUDGED_RATE = 20, 2_000
FEW_SITES = 5  # each is a request of its own to Pub/Sub: how many there are matters

BUCKET = re.compile(
    r'bridge_settle_latency_seconds_bucket\{le="([^"]+)",sink="([^"]+)"\} (\S+)', re.ASCII
)


def measure(scale: Scale, tell: Tell) -> Section:
    trials = []
    for number in range(scale.rounds):
        for rate, sites in _loads(scale, number):
            for row in _at(rate, sites, scale):
                trials.append({"round": number, **row})
                words = f"{rate:,} readings/s of {sites} sites to {row['sink']}"
                tell(f"{words}: p50 {row['p50_ms']:,.1f} ms, p99 {row['p99_ms']:,.1f} ms")
    return Section(
        "latency",
        "Latency from publish to confirmed",
        f"From when a reading was due, not from when it was written. At {JUDGED_RATE:,} readings/s "
        "medians of several runs; least and most are of p50. `own` is the bridge's own histogram: "
        "upper bounds of its buckets, over the whole run.",
        summed_up(trials, ["rate", "sites", "sink"], "p50_ms"),
        trials,
    )


def _loads(scale: Scale, number: int) -> Iterator[tuple[int, int]]:
    """Rates and sites of one round. What is judged comes in each."""
    for rate in scale.rates:
        if rate == JUDGED_RATE:
            yield from ((rate, SITES), (rate, FEW_SITES))
        elif number == 0:
            yield rate, SITES


def _at(rate: int, sites: int, scale: Scale) -> list[Row]:
    count = rate * (scale.warm_seconds + scale.latency_seconds)
    with Stage() as stage:
        running = BRIDGE.start(stage)
        before = process.cpu_seconds(running.pid)
        sent = stage.send(Load(count, rate, sites=sites))
        share = (process.cpu_seconds(running.pid) - before) / sent.seconds
        running.finish(count)
        own = _own(running.bridge.text("/metrics"))
        memory = process.peak_mb(running.pid)
        return [
            {
                "rate": rate,
                "sites": sites,
                **_figures(sink, arrivals[rate * scale.warm_seconds :], own[sink]),
                "bridge_cpu_share": share,
                "peak_mb": memory,
                **_generator(sent),
            }
            for sink, arrivals in by_sink(stage, count).items()
        ]


def _figures(sink: str, arrivals: Sequence[Arrival], own: dict[float, float]) -> Row:
    latencies = sorted(arrival.latency_ms for arrival in arrivals)
    return {
        "sink": sink,
        "readings": len(latencies),
        "p50_ms": quantile(latencies, 0.5),
        "p99_ms": quantile(latencies, 0.99),
        "most_ms": latencies[-1],
        "own_p50_ms": _ms(quantile_of_buckets(own, 0.5)),
        "own_p99_ms": _ms(quantile_of_buckets(own, 0.99)),
    }


def _ms(seconds: float) -> float | None:
    """JSON knows no infinity, nor NaN."""
    return seconds * 1_000 if math.isfinite(seconds) else None


def _generator(sent: Sent) -> Row:
    return {
        "generator_cpu_share": sent.cpu_share,
        "generator_late_ms": sent.late_seconds * 1_000,
    }


def _own(metrics: str) -> dict[str, dict[float, float]]:
    """By sink: cumulative counts by upper bound in seconds."""
    found: dict[str, dict[float, float]] = {}
    for bound, sink, value in BUCKET.findall(metrics):
        found.setdefault(sink, {})[float(bound)] = float(value)
    return found
