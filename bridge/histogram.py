"""Counts of observations per bound, cheap for whole batches."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from bridge.snapshot import HistogramCounts

BATCH_BOUNDS = (1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0)
LATENCY_BOUNDS = (
    *(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0),
    *(2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0),
)


class Histogram:
    """Observed from one thread; `counts` may be asked from any and is a moment's view."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def observe_ascending(self, values: Sequence[float]) -> None:
        """Many values in ascending order, in one look at each bound."""
        before = 0
        for index, bound in enumerate(self._bounds):
            upto = bisect_left(values, bound, before)
            self._counts[index] += upto - before
            before = upto
            if before == len(values):
                break
        self._counts[-1] += len(values) - before
        self._total += sum(values)

    def counts(self) -> HistogramCounts:
        cumulative = tuple(accumulate(self._counts))
        return HistogramCounts((*self._bounds, float("inf")), cumulative, self._total)
