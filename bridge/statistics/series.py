"""Samples of counters over the last 35 minutes: a few numbers each, whatever the plant's size."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

STEP_SECONDS = 10.0
KEPT_SECONDS = 35 * 60.0
RATE_SECONDS = 60.0
INTAKE_SECONDS = 600.0
MAX_KEYS = 1_000
KEY_STEP_SECONDS = 60.0
TREND_SAMPLES = 5


class SinkSample(NamedTuple):
    """One sink at one moment. latencies: cumulative counts per bound, since the start."""

    settled: int
    pending: int
    oldest_pending_seconds: float
    latencies: tuple[int, ...]


class Sample(NamedTuple):
    """One moment. at: monotonic seconds; unix: the same on the wall clock. received: messages
    since the journal began. last_seq: the last number that the journal gave."""

    at: float
    unix: int
    received: int
    last_seq: int
    sinks: Mapping[str, SinkSample]


@dataclass(frozen=True)
class Series:
    """Samples, oldest first."""

    samples: tuple[Sample, ...]

    def back(self, seconds: float) -> Sample | None:
        """The oldest sample of the last so many seconds; None where there is only one sample."""
        if len(self.samples) < 2:
            return None
        since = self.samples[-1].at - seconds
        found = next(sample for sample in self.samples if sample.at >= since - STEP_SECONDS / 2)
        return self.samples[-2] if found is self.samples[-1] else found

    def rate(self, of: Callable[[Sample], float], seconds: float = RATE_SECONDS) -> float | None:
        """How much a counter grew per second; None before the second sample."""
        before = self.back(seconds)
        return None if before is None else _rate(before, self.samples[-1], of)

    def rates(self, of: Callable[[Sample], float]) -> list[float | None]:
        """Between each sample and the one before it; None for the first."""
        pairs = zip(self.samples, self.samples[1:], strict=False)
        grown = [_rate(before, after, of) for before, after in pairs]
        return [None, *grown] if self.samples else []


def _rate(before: Sample, after: Sample, of: Callable[[Sample], float]) -> float | None:
    seconds = after.at - before.at
    # A counter that is reset goes down: nothing is known of that step.
    return max(0.0, of(after) - of(before)) / seconds if seconds > 0 else None


class Recorder:
    """Takes samples in one thread; `series` may be asked from any."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=int(KEPT_SECONDS / STEP_SECONDS) + 1)

    def due(self, now: float) -> bool:
        return not self._samples or now - self._samples[-1].at >= STEP_SECONDS

    def add(self, sample: Sample) -> None:
        self._samples.append(sample)

    def series(self) -> Series:
        return Series(tuple(self._samples))


class SiteCounters:
    """Messages received per site, in the order in which the sites appeared; of the last minute."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, array[int]]] = deque(
            maxlen=int(RATE_SECONDS / STEP_SECONDS) + 1
        )

    def add(self, at: float, received: array[int]) -> None:
        self._samples.append((at, received))

    def rates(self) -> list[float]:
        """Per second, one a site; those without any yet are left out at the end."""
        samples = list(self._samples)
        if len(samples) < 2:
            return []
        (first_at, first), (last_at, last) = samples[0], samples[-1]
        seconds = max(last_at - first_at, 1e-3)
        # A site that has appeared since then had none before.
        before = [*first, *[0] * (len(last) - len(first))]
        return [max(0, now - was) / seconds for now, was in zip(last, before, strict=False)]


class KeyTrends:
    """Bytes per second by ordering key, one sample a minute, of the first thousand keys."""

    def __init__(self) -> None:
        self._usage: dict[str, deque[tuple[float, float]]] = {}
        self._sampled_at = float("-inf")

    def look(self, now: float, usage: Mapping[str, float]) -> None:
        """Take a sample when it is time for one. A key that is not in use has none."""
        if now - self._sampled_at < KEY_STEP_SECONDS:
            return
        self._sampled_at = now
        for key in usage:
            if key not in self._usage and len(self._usage) < MAX_KEYS:
                self._usage[key] = deque(maxlen=int(KEPT_SECONDS / KEY_STEP_SECONDS))
        for key, samples in list(self._usage.items()):
            samples.append((now, usage.get(key, 0.0)))
            if not any(used for _, used in samples):
                del self._usage[key]

    def growth(self, key: str) -> float | None:
        """Bytes per second per second; None before the fifth sample."""
        samples = list(self._usage.get(key, ()))
        return slope(samples) if len(samples) >= TREND_SAMPLES else None


def slope(points: list[tuple[float, float]]) -> float:
    """Of the straight line with the least squares through these points."""
    middle = sum(x for x, _ in points) / len(points)
    mean = sum(y for _, y in points) / len(points)
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * (y - mean) for x, y in points) / spread if spread else 0.0


def seconds_until(limit: float, now: float, growth: float | None) -> float | None:
    """When `now` reaches the limit; None when it does not grow, or nobody knows yet."""
    if now >= limit:
        return 0.0
    return None if growth is None or growth <= 0 else (limit - now) / growth
