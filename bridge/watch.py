"""The watchdog's eye: which part has made no progress, and when that is the machine's fault."""

from __future__ import annotations

from bridge.clock import Clock

STALLED_SECONDS = 60.0
EXIT_SECONDS = 50.0  # before the health check fails and the platform throws the disk away
PAUSE_SECONDS = 15.0  # while the process runs, something is asked or told every second or two


class Watch:
    """Safe from any thread; nothing blocks. `look` is to be called every second."""

    def __init__(self, clock: Clock, parts: tuple[str, ...]) -> None:
        self._clock = clock
        now = clock.monotonic()
        self._beats = dict.fromkeys(parts, now)
        self._awake_at = now

    def beat(self, part: str) -> None:
        """Say that this part makes progress."""
        self._beats[part] = self._now()

    def look(self) -> str | None:
        """The part that has stood still for too long; None while all move."""
        return self._still(EXIT_SECONDS)

    def stalled(self) -> str | None:
        """What the health check says."""
        return self._still(STALLED_SECONDS)

    def _still(self, seconds: float) -> str | None:
        now = self._now()
        for part, beat in self._beats.items():
            if now - beat >= seconds:
                return f"{part} has made no progress for {now - beat:.0f} s"
        return None

    def _now(self) -> float:
        """Whoever comes first after a pause of the whole process (SIGSTOP, a frozen machine)
        forgives all parts the time in which nobody could beat."""
        now = self._clock.monotonic()
        paused = now - self._awake_at > PAUSE_SECONDS
        self._awake_at = now
        if paused:
            for part in self._beats:
                self._beats[part] = now
        return now
