"""A clock for code that waits: waiting takes no time, but moves the clock."""

from __future__ import annotations

from tests.support.clock import ManualClock


class WaitingClock(ManualClock):
    """Also stands in for the event that pacing waits on (`bridge.cli.pacing.Stop`). `elapsed`:
    seconds since the clock was made. `stopped`: what the event says."""

    def __init__(self) -> None:
        super().__init__()
        self._began = self.monotonic()
        self.stopped = False

    @property
    def elapsed(self) -> float:
        return self.monotonic() - self._began

    def is_set(self) -> bool:
        return self.stopped

    def wait(self, timeout: float) -> bool:
        self.pass_(timeout)
        return self.stopped
