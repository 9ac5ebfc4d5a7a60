"""Time and chance, passed in so that tests own them."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_us(self) -> int:
        """Wall clock: microseconds since 1970, UTC. May jump."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start. Never jumps."""


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()
