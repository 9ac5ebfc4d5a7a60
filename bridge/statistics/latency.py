"""Percentiles out of histograms."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(
    share: float, bounds: Sequence[float], before: Sequence[int], after: Sequence[int]
) -> float | None:
    """Of what was observed between two cumulative counts per upper bound (the last bound is
    infinity); None where nothing was. Inside its bucket taken to lie evenly, so it is only as
    exact as the bounds; beyond the last finite bound it is that bound."""
    counts = [late - early for early, late in zip(before, after, strict=True)]
    if counts[-1] <= 0:
        return None
    wanted = share * counts[-1]
    index = next(i for i, count in enumerate(counts) if count >= wanted)
    low = bounds[index - 1] if index else 0.0
    if index == len(bounds) - 1:
        return low
    below = counts[index - 1] if index else 0
    return low + (bounds[index] - low) * (wanted - below) / max(1, counts[index] - below)
