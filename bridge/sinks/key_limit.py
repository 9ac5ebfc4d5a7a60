"""Pub/Sub's limit of bytes per second and ordering key: kept before the service has to refuse."""

from __future__ import annotations

import logging
import math

from bridge.budget import Budget
from bridge.clock import Clock

log = logging.getLogger(__name__)

LIMIT = 1_000_000  # bytes a second and ordering key (cloud.google.com/pubsub/quotas)
PACE = 0.9 * LIMIT
WINDOW_SECONDS = 60.0  # over which the use of a key is smoothed, and at least between two warnings
MAX_KEYS = 20_000  # far more than sites; beyond, those go that were used least lately


class _Key:
    """What one key has used. `rate`: bytes a second at the time `at`, falling exponentially."""

    __slots__ = ("at", "budget", "rate", "warned_at")

    def __init__(self, now: float) -> None:
        self.budget = Budget(PACE, PACE)
        self.rate = 0.0
        self.at = now
        self.warned_at = -math.inf

    def rate_at(self, now: float) -> float:
        return self.rate * math.exp((self.at - now) / WINDOW_SECONDS)

    def use(self, size: int, now: float) -> None:
        self.rate = self.rate_at(now) + size / WINDOW_SECONDS
        self.at = now
        self.budget.spend(size, now)


class KeyLimit:
    """`spend` and `ready_in` belong to the thread that writes; `usage` may be asked from any."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[str, _Key] = {}

    def spend(self, key: str, size: int) -> None:
        """Count a request of so many bytes, whether there was room for it or not."""
        now = self._clock.monotonic()
        used = self._keys.pop(key, None) or _Key(now)
        used.use(size, now)
        if len(self._keys) >= MAX_KEYS:
            del self._keys[next(iter(self._keys))]
        self._keys[key] = used

    def ready_in(self, key: str) -> float:
        """Seconds until the key may be used again; 0: now."""
        used = self._keys.get(key)
        if used is None:
            return 0.0
        now = self._clock.monotonic()
        wait = used.budget.wait(now, 0.0)
        if wait > 0.0:
            self._warn(key, used, now)
        return wait

    def _warn(self, key: str, used: _Key, now: float) -> None:
        if now - used.warned_at < WINDOW_SECONDS:
            return
        used.warned_at = now
        log.warning(
            "a site sends as much as Pub/Sub takes for one ordering key: its events are paced, and "
            "wait in the journal. Let it send less, or under several site codes, if it stays so",
            extra={
                "fields": {
                    "site": key,
                    "bytes_per_second": round(used.rate_at(now)),
                    "limit": LIMIT,
                }
            },
        )

    def usage(self) -> dict[str, float]:
        """Bytes a second by key, over the last minute or so; keys that were not used are left
        out."""
        now = self._clock.monotonic()
        rates = {key: used.rate_at(now) for key, used in list(self._keys.items())}
        return {key: rate for key, rate in rates.items() if rate >= 1.0}
