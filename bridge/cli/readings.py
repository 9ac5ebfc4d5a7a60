"""Plausible readings of copper solvent extraction: plants, instruments, and how values wander.

Everything but the times follows from the random generator that is passed in.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from bridge.clock import Clock
from bridge.times import iso_us

SITES = ("MOR", "BAG", "SIE", "SAF", "TYR", "CHI", "MIA", "CVE", "ELA")
STAGES = ("E1", "E2", "W1", "S1", "S2")

Due = Callable[[float], bool]
"""Waits until so many seconds after the start; False when the run is over by then."""


class Sample(NamedTuple):
    """One reading as it goes out. `value` is JSON text; `further` are members beyond the four."""

    site: str
    pi_tag: str
    sensor_id: str
    timestamp: str
    value: str
    further: tuple[tuple[str, str], ...] = ()

    @property
    def topic(self) -> str:
        return topic(self.site, self.pi_tag)

    @property
    def payload(self) -> bytes:
        return payload(self)


@dataclass(frozen=True)
class Quantity:
    """What a kind of instrument measures: the tag's last part, the letters of the instrument, the
    unit, the bounds of plausible values, how far one reading lies from the last, and decimals."""

    suffix: str
    instrument: str
    unit: str
    low: float
    high: float
    step: float
    decimals: int


QUANTITIES = (
    Quantity("FLOW", "FT", "m3/h", 350, 950, 6, 1),
    Quantity("PH", "AT", "pH", 1.3, 2.3, 0.01, 2),
    Quantity("TEMP", "TT", "degC", 16, 36, 0.05, 2),
    Quantity("OA-RATIO", "RT", "1", 0.85, 1.35, 0.005, 3),
    Quantity("CU", "CT", "g/L", 1.2, 7.5, 0.02, 3),
    Quantity("LEVEL", "LT", "%", 25, 90, 0.4, 1),
    Quantity("PRESS", "PT", "kPa", 160, 430, 1.5, 1),
    Quantity("COND", "QT", "mS/cm", 35, 95, 0.3, 2),
    Quantity("SPEED", "ST", "rpm", 40, 75, 0.2, 1),
    Quantity("CURRENT", "IT", "A", 18, 64, 0.5, 2),
)


class Walk:
    """A value that wanders within its quantity's bounds, drawn gently back to the middle."""

    def __init__(self, quantity: Quantity, rng: Random) -> None:
        self._quantity = quantity
        self._rng = rng
        self._value = rng.uniform(quantity.low, quantity.high)

    def next(self) -> float:
        quantity = self._quantity
        middle = (quantity.low + quantity.high) / 2
        wandered = self._value + (middle - self._value) * 0.005 + self._rng.gauss(0, quantity.step)
        self._value = min(quantity.high, max(quantity.low, wandered))
        return round(self._value, quantity.decimals)


class Sensor(NamedTuple):
    site: str
    pi_tag: str
    sensor_id: str
    unit: str
    walk: Walk


def site_codes(number: int) -> tuple[str, ...]:
    """The first `number` sites: known mines, then numbered ones."""
    numbered = (f"S{index:03d}" for index in itertools.count(len(SITES) + 1))
    return tuple(itertools.islice(itertools.chain(SITES, numbered), number))


def sensors(sites: Sequence[str], tags: int, rng: Random) -> list[Sensor]:
    """`tags` sensors of each site, the sites taking turns."""
    places = list(itertools.islice(_places(), tags))
    return [
        Sensor(site, tag, f"{quantity.instrument}-{site}-{number:04d}", quantity.unit, walk)
        for number, (tag, quantity) in enumerate(places, start=101)
        for site in sites
        for walk in [Walk(quantity, rng)]
    ]


def _places() -> Iterator[tuple[str, Quantity]]:
    for train in itertools.count(1):
        for stage, quantity in itertools.product(STAGES, QUANTITIES):
            yield f"SX{train}-{stage}-{quantity.suffix}", quantity


def simulated(
    instruments: Sequence[Sensor], rate: float, due: Due, clock: Clock, attributes: bool = False
) -> Iterator[Sample]:
    """Readings of the instruments in turn, each yielded when it is due, until `due` says no.

    rate: readings a second over all of them, 0 for no waiting. No two timestamps are the same.
    """
    last_us = 0
    for number, sensor in enumerate(itertools.cycle(instruments)):
        if not due(number / rate if rate else 0.0):
            return
        last_us = max(last_us + 1, clock.now_us())
        further = (("unit", json.dumps(sensor.unit)), ("quality", '"Good"')) if attributes else ()
        value = json.dumps(sensor.walk.next())
        yield Sample(sensor.site, sensor.pi_tag, sensor.sensor_id, iso_us(last_us), value, further)


def topic(site: str, pi_tag: str) -> str:
    return f"FCTS/FAE/{site}/SolvExtract/{pi_tag}"


def payload(sample: Sample) -> bytes:
    """The sample as a JSON object; the value's text goes in as it is."""
    members = (
        ("site_code", json.dumps(sample.site)),
        ("sensor_id", json.dumps(sample.sensor_id)),
        ("timestamp", json.dumps(sample.timestamp)),
        ("value", sample.value),
        *sample.further,
    )
    return ("{" + ", ".join(f'"{name}": {text}' for name, text in members) + "}").encode()
