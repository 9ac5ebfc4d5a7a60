"""When to send, and when to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from bridge.clock import Clock


class Stop(Protocol):
    """The part of threading.Event that pacing needs."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float) -> bool: ...


class Pace:
    """A run that starts when it is made, and lasts `duration` seconds (None: until stopped)."""

    def __init__(self, clock: Clock, stop: Stop, duration: float | None = None) -> None:
        self._clock = clock
        self._stop = stop
        self._duration = duration
        self._start = clock.monotonic()

    def due(self, seconds: float) -> bool:
        """Wait until `seconds` after the start; False when the run is over before or by then.
        Returns at once when that time has passed: who is late catches up."""
        if self._duration is not None and seconds >= self._duration:
            return False
        delay = seconds - self.elapsed()
        if delay > 0:
            self._stop.wait(delay)
        late = self._duration is not None and self.elapsed() >= self._duration
        return not late and not self._stop.is_set()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock.monotonic() - self._start


@contextmanager
def stopped_by_signal() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one interrupts whatever is going
    on with KeyboardInterrupt. Main thread only; the handlers before it come back."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
