"""A clock that only the test moves."""

from __future__ import annotations

START_US = 1_790_000_000_000_000  # 2026-09-21T14:13:20Z


class ManualClock:
    """Both clocks of `bridge.clock.Clock`. `pass_` moves both, as time does; `jump` moves the
    wall clock alone, as an operator or a time server does."""

    def __init__(self, now_us: int = START_US, monotonic: float = 100.0) -> None:
        self._now_us = now_us
        self._monotonic = monotonic

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._monotonic

    def pass_(self, seconds: float) -> None:
        self._now_us += round(seconds * 1e6)
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        self._now_us += round(seconds * 1e6)
