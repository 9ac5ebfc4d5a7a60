"""So much a second: what a service's limits, or the price of a request, ask for."""

from __future__ import annotations


class Budget:
    """A token bucket of any unit. What is not spent adds up to `burst`; who spends more than there
    is makes a debt, and waits until time has paid it. Times are monotonic seconds, given by the
    caller. Not safe by itself: one thread's, or under its owner's lock."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._level = burst
        self._at = 0.0

    def left(self, now: float) -> float:
        """What may be spent now; negative in debt."""
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._per_second)
            self._at = now
        return self._level

    def wait(self, now: float, amount: float) -> float:
        """Seconds until so much may be spent (`burst` at most); 0: now."""
        missing = min(amount, self._burst) - self.left(now)
        return max(0.0, missing / self._per_second)

    def spend(self, amount: float, now: float) -> None:
        """Spend it, whether it is there or not."""
        self._level = self.left(now) - amount
