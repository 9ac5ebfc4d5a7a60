"""Figures as people read them."""

from __future__ import annotations

import math

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def count(number: int) -> str:
    """1234567 → 1,234,567."""
    return f"{number:,}"


def times(number: int) -> str:
    return "once" if number == 1 else f"{count(number)} times"


def duration(seconds: float) -> str:
    """Seconds in the two largest units: `3 min 5 s`."""
    if math.isinf(seconds):
        return "for ever"
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    left = int(seconds)
    parts: list[str] = []
    for length, unit in _UNITS:
        number, left = divmod(left, length)
        if number or parts:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])
