"""What the figures of tags must be, reckoned one reading after the other in plain Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bridge.reading import Reading

MINUTE_US = 60_000_000
HALF_US = 30_000_000


@dataclass
class Expected:
    """One tag after some readings."""

    value: float
    event_us: int
    received_us: int
    newest_us: int
    since_us: int
    offset_us: float
    interval_us: float = 0.0
    readings: int = 1
    same: int = 1
    late_us: int = 0
    minutes: dict[int, list[float]] = field(default_factory=dict)
    halves: dict[int, list[float]] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)

    def keep(self, reading: Reading, late: bool) -> None:
        minute = reading.received_us // MINUTE_US
        self.minutes.setdefault(minute, []).append(reading.value)
        self.halves.setdefault(reading.received_us // HALF_US, []).append(reading.value)
        self.late[minute] = self.late.get(minute, 0) + late

    def take(self, reading: Reading) -> None:
        gap: float = max(0, reading.received_us - self.received_us)
        if self.readings >= 5:
            gap = min(gap, max(30_000_000, 5 * self.interval_us))
        self.interval_us += (gap - self.interval_us) / min(20, self.readings)
        self.readings += 1
        offset = reading.received_us - reading.event_us
        self.offset_us += (offset - self.offset_us) / min(20, self.readings)
        late = reading.event_us < self.newest_us
        if late:
            self.late_us = reading.received_us
        self.newest_us = max(self.newest_us, reading.event_us)
        if reading.value != self.value:
            self.since_us, self.same = reading.received_us, 0
        self.same += 1
        self.value, self.event_us = reading.value, reading.event_us
        self.received_us = reading.received_us
        self.keep(reading, late)

    def states(self, now_us: int) -> list[str]:
        silence = max(30_000_000, 5 * self.interval_us)
        of = {
            "stale": self.readings >= 5 and now_us - self.received_us > silence,
            "flat": self.same >= 20 and self.received_us - self.since_us >= 600_000_000,
            "ahead": self.offset_us < -30_000_000,
            "behind": self.offset_us > 30_000_000,
            "disorder": self.late_us > now_us - 1_800_000_000,
        }
        return [name for name, is_so in of.items() if is_so]


def expected(readings: Iterable[Reading]) -> dict[tuple[str, str], Expected]:
    tags: dict[tuple[str, str], Expected] = {}
    for reading in readings:
        name = (reading.site, reading.pi_tag)
        if name in tags:
            tags[name].take(reading)
        else:
            tags[name] = Expected(
                reading.value,
                reading.event_us,
                reading.received_us,
                reading.event_us,
                reading.received_us,
                reading.received_us - reading.event_us,
            )
            tags[name].keep(reading, False)
    return tags
