"""Both services fail for a while and come back, under a load that goes on all the time."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.arrivals import Arrival, by_sink
from bench.generator import Load
from bench.scale import Scale
from bench.section import Row, Section, Tell
from bench.stage import Stage
from bench.subjects import BRIDGE

BEFORE_SECONDS = 2
CALLS = ("pubsub.*", "storage.*")


def measure(scale: Scale, tell: Tell) -> Section:
    rate = scale.live_rate
    # Live readings keep coming for as long again as the outage was.
    count = rate * (BEFORE_SECONDS + 2 * scale.outage_seconds)
    with Stage() as stage:
        running = BRIDGE.start(stage)
        generator = stage.begin(Load(count, rate))
        time.sleep(BEFORE_SECONDS)
        faults = [stage.services.add_fault(c, status="UNAVAILABLE", times=None) for c in CALLS]
        time.sleep(scale.outage_seconds)
        for fault in faults:
            stage.services.remove_fault(fault)
        back_us = time.time_ns() // 1_000
        generator.finish()
        running.finish(count)
        found = by_sink(stage, count)
    rows = [_row(sink, arrivals, back_us, rate) for sink, arrivals in found.items()]
    for row in rows:
        tell(f"{row['sink']} caught up at {row['readings_per_second']:,.0f} readings/s")
    return Section(
        "outage",
        "Catching up after an outage",
        f"Both services answered UNAVAILABLE for {scale.outage_seconds} s while {rate:,} readings "
        "a second came, and went on coming. From the first arrival after their return until the "
        "last reading of the outage has arrived; live readings that arrive meanwhile count.",
        rows,
    )


def _row(sink: str, arrivals: Sequence[Arrival], back_us: int, live: int) -> Row:
    after = [arrival for arrival in arrivals if arrival.arrived_us >= back_us]
    old = [arrival for arrival in after if arrival.due_us < back_us]
    if not old:  # where there was hardly an outage
        return {"sink": sink, "readings_per_second": 0.0, "times_live_rate": 0.0}
    first, last = after[0].arrived_us, max(arrival.arrived_us for arrival in old)
    taken = sum(1 for arrival in after if arrival.arrived_us <= last)
    rate = taken / max((last - first) / 1e6, 1e-3)
    return {
        "sink": sink,
        "backlog": len(old),
        "seconds_until_first": (first - back_us) / 1e6,
        "seconds_to_catch_up": (last - first) / 1e6,
        "readings_per_second": rate,
        "times_live_rate": rate / live,
    }
