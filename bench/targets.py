"""What is promised of the figures. All are ratios or bounds of one run on one machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bench.measures.latency import FEW_SITES, JUDGED_RATE, SITES
from bench.section import Section, Value, numbers
from bench.subjects import BRIDGE, LOCAL, SLOW_BRIDGE

MEMORY_MB = 150.0
FLAT = 1.5  # the most by which what is flat may differ from its least


@dataclass(frozen=True)
class Target:
    """words: what is promised. found: the figure; None: not measured this time, or not possible.
    least, most: its bounds."""

    words: str
    found: float | None
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool | None:
        """None where nothing was measured."""
        if self.found is None:
            return None
        above = self.least is None or self.found >= self.least
        return above and (self.most is None or self.found < self.most)

    @property
    def wanted(self) -> str:
        return f"≥ {self.least:g}" if self.most is None else f"< {self.most:g}"


def targets(sections: Mapping[str, Section]) -> list[Target]:
    """All of them, in the order of the sections."""
    return [
        *_throughput(sections.get("throughput")),
        *_latency(sections.get("latency")),
        *_start(sections.get("start")),
        *_outage(sections.get("outage")),
        *_growth(sections.get("growth")),
    ]


def _throughput(found: Section | None) -> Iterator[Target]:
    ratio = _of(found, "cpu_to_ceiling", subject=BRIDGE.name)
    yield Target("readings per CPU second, all on, to those of the bare client", ratio, least=0.5)
    times = _of(found, "times_original_at_20_ms", subject=SLOW_BRIDGE.name)
    words = "throughput to that of the original design, services at 20 ms"
    yield Target(words, times, least=50)
    peak = _of(found, "peak_mb", subject=BRIDGE.name)
    yield Target("resident memory at full load, MB", peak, most=MEMORY_MB)


def _latency(found: Section | None) -> Iterator[Target]:
    for sink in ("pubsub", "bigquery"):
        for name, column, most in (("p50", "p50_ms", 20), ("p99", "p99_ms", 100)):
            for sites in (FEW_SITES, SITES):
                figure = _of(found, column, rate=JUDGED_RATE, sites=sites, sink=sink)
                words = f"{name} at {JUDGED_RATE:,} readings/s of {sites} sites to {sink}, ms"
                yield Target(words, figure, most=most)


def _start(found: Section | None) -> Iterator[Target]:
    for subject, most in ((LOCAL, 1), (BRIDGE, 3)):
        figure = _of(found, "seconds_to_ready", subject=subject.name)
        yield Target(f"{subject.name} ready, seconds", figure, most=most)


def _outage(found: Section | None) -> Iterator[Target]:
    for sink in ("pubsub", "bigquery"):
        times = _of(found, "times_live_rate", sink=sink)
        yield Target(f"catching up in {sink}, times the live rate", times, least=3)


def _growth(found: Section | None) -> Iterator[Target]:
    for of in ("backlog", "sites", "tags"):
        rows = [row for row in found.rows if row["of"] == of] if found else []
        memory = numbers(row["resident_mb"] for row in rows)
        most = max(memory, default=None)
        yield Target(f"resident memory over all sizes of {of}, MB", most, most=MEMORY_MB)
        spread = _spread(numbers(row["cpu_us_per_reading"] for row in rows))
        words = f"dearest to cheapest reading over all sizes of {of}"
        yield Target(words, spread, most=FLAT)


def _spread(values: list[float]) -> float | None:
    least = min(values, default=0.0)
    return max(values) / least if least else None


def _of(section: Section | None, column: str, **wanted: Value) -> float | None:
    row = section.row(**wanted) if section else None
    value = row.get(column) if row else None
    return value if isinstance(value, int | float) else None
