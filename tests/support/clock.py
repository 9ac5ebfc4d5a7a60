"""A clock that only moves when a test moves it."""

from __future__ import annotations


class FakeClock:
    """Starts at `now_us` and 0 s; also stands in for the event that pacing waits on, so that
    waiting takes no time but moves the clock."""

    def __init__(self, now_us: int = 1_795_000_000_000_000) -> None:
        self._start_us = now_us
        self._seconds = 0.0
        self.stopped = False

    def now_us(self) -> int:
        return self._start_us + round(self._seconds * 1e6)

    def monotonic(self) -> float:
        return self._seconds

    def advance(self, seconds: float) -> None:
        self._seconds += seconds

    def is_set(self) -> bool:
        return self.stopped

    def wait(self, timeout: float) -> bool:
        self.advance(timeout)
        return self.stopped
