"""Microseconds since 1970 as text and as moments."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.times import from_us, iso_us


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1_790_000_000_123_000, "2026-09-21T14:13:20.123000Z"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_is_written_in_utc_with_six_digits_and_four_of_the_year(
    micros: int, text: str
) -> None:
    assert iso_us(micros) == text


@given(st.datetimes())
def test_text_and_moment_are_those_of_the_same_microsecond(moment: datetime) -> None:
    micros = (moment.replace(tzinfo=UTC) - from_us(0)) // timedelta(microseconds=1)
    assert from_us(micros) == moment.replace(tzinfo=UTC)
    assert datetime.fromisoformat(iso_us(micros)) == moment.replace(tzinfo=UTC)
