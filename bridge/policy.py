"""How much goes into one batch, and when a failed one is tried again. Frozen and pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from bridge.reading import Entry


@dataclass(frozen=True)
class BatchPolicy:
    """Bounds of one batch: entries, and bytes by the sink's own (upper) estimate."""

    max_entries: int
    max_bytes: int


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential back-off with jitter. Seconds."""

    initial: float = 0.5
    factor: float = 2.0
    maximum: float = 30.0

    def delay(self, attempts: int, random: Random) -> float:
        """How long to wait after this many failures in a row (1 or more): between half of the
        exponential step and all of it, so that many lanes do not come back at once."""
        step = min(self.maximum, self.initial * self.factor ** min(attempts - 1, 60))
        return step * random.uniform(0.5, 1.0)


def estimate(entry: Entry) -> int:
    """An upper bound of an entry's bytes in either service's form. Names are counted three times
    over (once as bytes of an event, once as attributes or topic, and for escapes)."""
    reading = entry.reading
    names = len(reading.site) + len(reading.pi_tag) + len(reading.sensor_id)
    attributes = reading.attributes
    if attributes is None:
        return 600 + 12 * names
    return 600 + 12 * names + (len(attributes) if attributes.isascii() else 4 * len(attributes))


def fitting(entries: Iterable[Entry], policy: BatchPolicy) -> int:
    """How many of the first entries make one batch: at least one where there is any."""
    count = size = 0
    for entry in entries:
        size += estimate(entry)
        if count and size > policy.max_bytes:
            break
        count += 1
        if count == policy.max_entries:
            break
    return count
