"""Microseconds since 1970 as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso_us(micros: int) -> str:
    """RFC 3339 in UTC, always with six digits: `2026-11-21T03:00:00.123000Z`. Years 1 to 9999."""
    second, fraction = divmod(micros, 1_000_000)
    return f"{_iso_second(second)}.{fraction:06d}Z"


@lru_cache(maxsize=1024)
def _iso_second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S").zfill(19)


def from_us(micros: int) -> datetime:
    """The same moment as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def us_of(moment: datetime) -> int:
    """The microseconds since 1970 of an aware datetime."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
