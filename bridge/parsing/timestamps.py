"""Every accepted form of a timestamp, as microseconds since 1970."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from bridge.parsing.refusal import Refused, invalid, kind

MICROS = 1_000_000
_timestamp = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))?"
).fullmatch
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_US = -62_135_596_800 * MICROS
_MAX_US = 253_402_300_800 * MICROS - 1


def stamp_of(stamp: Any) -> str | int | float:
    """The timestamp if its form is right; its range is looked at later."""
    if isinstance(stamp, str):
        if not _timestamp(stamp):
            invalid("timestamp", stamp, "is not of the form YYYY-MM-DDThh:mm:ss[.ffffff][Z|±hh:mm]")
        return _require_calendar(stamp)
    if isinstance(stamp, bool) or not isinstance(stamp, int | float):
        invalid("timestamp", stamp, f"is {kind(stamp)}, neither a string nor a number")
    return stamp


def _require_calendar(stamp: str) -> str:
    try:
        event_us_of(stamp)
    except ValueError:
        invalid("timestamp", stamp, "is no date and time of the calendar")
    except Refused:
        pass  # a real date, shifted out of the years by its offset: judged with the range
    return stamp


def event_us_of(stamp: str | int | float) -> int:
    """Microseconds since 1970. ValueError: not a time; Refused: outside the years 1 to 9999."""
    micros = _text_us(stamp) if isinstance(stamp, str) else _number_us(stamp)
    # A literal beyond a double (or of thousands of digits) is still a finite JSON number.
    if micros is None or not _MIN_US <= micros <= _MAX_US:
        raise Refused("timestamp_out_of_range", "timestamp is no date of the years 1 to 9999")
    return micros


def _text_us(stamp: str) -> int:
    found = _timestamp(stamp)
    if found is None:
        raise ValueError(stamp)
    date, clock, fraction, sign, hours, minutes = found.groups()
    micros = _second_us(date, clock)
    if fraction:
        micros += int(fraction[:6].ljust(6, "0"))
    if sign:
        offset = (int(hours) * 60 + int(minutes)) * 60 * MICROS
        micros += -offset if sign == "+" else offset
    return micros


@lru_cache(maxsize=1024)
def _second_us(date: str, clock: str) -> int:
    moment = datetime.fromisoformat(f"{date}T{clock}+00:00")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _number_us(stamp: int | float) -> int | None:
    if stamp in (math.inf, -math.inf):
        return None
    factor = 1000 if abs(stamp) >= 1e11 else MICROS
    if isinstance(stamp, int):
        return stamp * factor
    # By its decimal digits, so that 1.1 is 1,100,000 microseconds and not one less.
    return math.floor(Decimal(repr(stamp)) * factor)
