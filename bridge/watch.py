"""The watchdog's eye: which part has made no progress, and when that is the machine's fault."""

from __future__ import annotations

from bridge.clock import Clock

STALLED_SECONDS = 60.0
EXIT_SECONDS = 50.0  # before the health check fails and the platform throws the disk away
PAUSE_SECONDS = 5.0


class Watch:
    """Beats may come from any thread; `look` belongs to the one that looks every second."""

    def __init__(self, clock: Clock, parts: tuple[str, ...]) -> None:
        self._clock = clock
        now = clock.monotonic()
        self._beats = dict.fromkeys(parts, now)
        self._looked_at = now

    def beat(self, part: str) -> None:
        self._beats[part] = self._clock.monotonic()

    def look(self) -> str | None:
        """The part that has stood still for too long; None while all move."""
        now = self._clock.monotonic()
        paused = now - self._looked_at > PAUSE_SECONDS
        self._looked_at = now
        if paused:
            # The whole process stood still (SIGSTOP, a frozen machine): nobody could beat.
            for part in self._beats:
                self._beats[part] = now
        return self._still(EXIT_SECONDS)

    def stalled(self) -> str | None:
        """What the health check says."""
        return self._still(STALLED_SECONDS)

    def _still(self, seconds: float) -> str | None:
        now = self._clock.monotonic()
        for part, beat in self._beats.items():
            if now - beat >= seconds:
                return f"{part} has made no progress for {now - beat:.0f} s"
        return None
