"""How many readings a second, and for how much CPU: bare client, original design and bridge.

All under the same conditions: the subject connects and is stopped (SIGSTOP), the broker is filled
with readings for it, and then it goes on and is timed until the last reading has gone all its way.
So the generator rests meanwhile, and no start-up is counted. Subjects take turns, each round in the
opposite order of the one before, for the machine may be slower at one time than at another.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import process
from bench.generator import Load
from bench.scale import Scale
from bench.section import Row, Section, Tell, summed_up
from bench.stage import Stage
from bench.subjects import (
    BRIDGE,
    CEILING,
    INSERT_ALL,
    LOCAL,
    ORIGINAL,
    SLOW_BRIDGE,
    SLOW_ORIGINAL,
    Subject,
)

SUBJECTS: tuple[Subject, ...] = (
    CEILING,
    BRIDGE,
    INSERT_ALL,
    LOCAL,
    SLOW_BRIDGE,
    ORIGINAL,
    SLOW_ORIGINAL,
)


@dataclass(frozen=True)
class Drained:
    """Of one trial. cpu_seconds: of the subject alone. peak_mb: since its start. The shares are of
    one core, of the neighbours, meanwhile."""

    readings: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    resident_mb: float
    broker_cpu_share: float
    services_cpu_share: float


def drain(subject: Subject, load: Load) -> Drained:
    """Let a subject take what the broker has queued for it. Raises Stuck, ProgramFailed."""
    with Stage() as stage:
        running = subject.start(stage, load.count)
        pids = (running.pid, stage.broker.program.pid, stage.services.pid)
        running.pause()
        stage.send(load)
        before = [process.cpu_seconds(pid) for pid in pids]
        began = time.monotonic()
        running.go_on()
        running.finish(load.count)
        seconds = time.monotonic() - began
        used = [process.cpu_seconds(pid) - cpu for pid, cpu in zip(pids, before, strict=True)]
        memory = (process.peak_mb(running.pid), process.resident_mb(running.pid))
        return Drained(load.count, seconds, used[0], *memory, used[1] / seconds, used[2] / seconds)


def measure(scale: Scale, tell: Tell) -> Section:
    trials = []
    for number in range(scale.rounds):
        for subject in SUBJECTS[:: 1 if number % 2 == 0 else -1]:
            found = drain(subject, Load(_count(subject, scale)))
            trials.append(_row(number, subject, found))
            tell(f"{subject.name}: {found.readings / found.seconds:,.0f} readings/s")
    trials.sort(key=lambda row: [s.name for s in SUBJECTS].index(str(row["subject"])))
    _compare(trials, CEILING, "readings_per_cpu_second", "cpu_to_ceiling")
    _compare(trials, SLOW_ORIGINAL, "readings_per_second", "times_original_at_20_ms")
    return Section(
        "throughput",
        "Throughput",
        "Medians of several rounds; least and most are of readings per CPU second. The ratios are "
        "taken within each round.",
        summed_up(trials, ["subject"], "readings_per_cpu_second"),
        trials,
    )


def _count(subject: Subject, scale: Scale) -> int:
    if subject == ORIGINAL:
        return scale.original
    return scale.slow_original if subject == SLOW_ORIGINAL else scale.drained


def _row(number: int, subject: Subject, found: Drained) -> Row:
    return {
        "subject": subject.name,
        "round": number,
        "readings": found.readings,
        "readings_per_second": found.readings / found.seconds,
        # A CPU time of nothing is less than the kernel counts.
        "readings_per_cpu_second": found.readings / max(found.cpu_seconds, 1 / process.TICKS),
        "cpu_us_per_reading": found.cpu_seconds / found.readings * 1e6,
        "peak_mb": found.peak_mb,
        "broker_cpu_share": found.broker_cpu_share,
        "services_cpu_share": found.services_cpu_share,
    }


def _compare(trials: Sequence[Row], base: Subject, column: str, name: str) -> None:
    """Add a column: the ratio to what the base had in the same round."""
    bases = {row["round"]: row[column] for row in trials if row["subject"] == base.name}
    for row in trials:
        value, unit = row[column], bases[row["round"]]
        assert isinstance(value, float)
        assert isinstance(unit, float)
        row[name] = value / unit
