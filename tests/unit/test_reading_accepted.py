"""What a sensor may send, and what becomes of it."""

from __future__ import annotations

import json
import sys

import pytest

from bridge.parsing.names import MAX_NAME
from bridge.parsing.payload import MAX_NESTING
from bridge.reading import Limits, Reading
from bridge.times import iso_us
from tests.support.clock import START_US
from tests.support.readings import Raw, accepted, text

SECOND = 1_000_000
DAY = 86_400 * SECOND
ANY_TIME = Limits(max_age_us=10_000 * 366 * DAY, max_future_us=10_000 * 366 * DAY)


def at(stamp: object) -> str:
    return iso_us(accepted(text(timestamp=stamp), limits=ANY_TIME).event_us)


def test_a_plain_message_becomes_a_reading_with_every_field_in_its_place() -> None:
    found = accepted(text())
    assert found == Reading(
        event_id=found.event_id,
        site="MOR",
        pi_tag="FT-101",
        sensor_id="S1",
        event_us=1_789_999_200 * SECOND,
        value=12.5,
        received_us=START_US,
        attributes=None,
    )
    assert len(found.event_id) == 16
    assert found.topic == "FCTS/FAE/MOR/SolvExtract/FT-101"


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "x" * MAX_NAME,
        "é" * MAX_NAME,
        "😀" * MAX_NAME,
        "Mor Süd",
        "a.b-c_d:e#f+g",
        "日本",
        "\u200bzero width",
        "a\u2028b",
        '"quoted"\\',
        "__other__",
        "{}",
    ],
)
def test_names_may_hold_any_characters_but_control_ones(name: str) -> None:
    found = accepted(
        text(site_code=name, sensor_id=name), topic=f"FCTS/FAE/{name}/SolvExtract/{name}"
    )
    assert (found.site, found.pi_tag, found.sensor_id) == (name, name, name)


@pytest.mark.parametrize("sensor", ["a/b/c", "/", "+", "#", "FCTS/FAE"])
def test_a_sensor_id_may_hold_what_would_separate_a_topic(sensor: str) -> None:
    assert accepted(text(sensor_id=sensor)).sensor_id == sensor


@pytest.mark.parametrize(
    ("stamp", "meant"),
    [
        ("2026-09-21T14:00:00Z", "2026-09-21T14:00:00.000000Z"),
        ("2026-09-21T14:00:00", "2026-09-21T14:00:00.000000Z"),
        ("2026-09-21t14:00:00z", "2026-09-21T14:00:00.000000Z"),
        ("2026-09-21 14:00:00", "2026-09-21T14:00:00.000000Z"),
        ("2026-09-21 14:00:00+00:00", "2026-09-21T14:00:00.000000Z"),
        ("2026-09-21 14:00:00-00:00", "2026-09-21T14:00:00.000000Z"),
        ("2026-09-21T14:00:00+05:30", "2026-09-21T08:30:00.000000Z"),
        ("2026-09-21T14:00:00-23:59", "2026-09-22T13:59:00.000000Z"),
        ("2026-09-21T14:00:00.1Z", "2026-09-21T14:00:00.100000Z"),
        ("2026-09-21T14:00:00.123456Z", "2026-09-21T14:00:00.123456Z"),
        ("2026-09-21T14:00:00.1234569Z", "2026-09-21T14:00:00.123456Z"),
        ("2026-09-21T14:00:00.999999999Z", "2026-09-21T14:00:00.999999Z"),
        ("2026-09-21T14:00:00.000000001", "2026-09-21T14:00:00.000000Z"),
        ("2024-02-29T23:59:59Z", "2024-02-29T23:59:59.000000Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("9999-12-31T23:59:59+00:01", "9999-12-31T23:58:59.000000Z"),
    ],
)
def test_a_timestamp_may_be_written_in_each_of_these_ways(stamp: str, meant: str) -> None:
    assert at(stamp) == meant


@pytest.mark.parametrize(
    ("stamp", "meant"),
    [
        ("1790000000", "2026-09-21T14:13:20.000000Z"),
        ("1790000000.5", "2026-09-21T14:13:20.500000Z"),
        ("1790000000.123456", "2026-09-21T14:13:20.123456Z"),
        ("1790000000123", "2026-09-21T14:13:20.123000Z"),
        ("1790000000123.456", "2026-09-21T14:13:20.123456Z"),
        ("1.79e9", "2026-09-21T14:13:20.000000Z"),
        ("1.79E+12", "2026-09-21T14:13:20.000000Z"),
        ("1.1", "1970-01-01T00:00:01.100000Z"),
        ("0", "1970-01-01T00:00:00.000000Z"),
        ("-0.0", "1970-01-01T00:00:00.000000Z"),
        ("-1", "1969-12-31T23:59:59.000000Z"),
        ("-1.5", "1969-12-31T23:59:58.500000Z"),
        ("1e-320", "1970-01-01T00:00:00.000000Z"),
        # Seconds below a magnitude of 1e11, milliseconds from there on.
        ("99999999999", "5138-11-16T09:46:39.000000Z"),
        ("100000000000", "1973-03-03T09:46:40.000000Z"),
        ("1e11", "1973-03-03T09:46:40.000000Z"),
        ("-100000000000", "1966-10-31T14:13:20.000000Z"),
        ("-62135596800", "0001-01-01T00:00:00.000000Z"),
        ("-62135596800000", "0001-01-01T00:00:00.000000Z"),
        ("253402300799999", "9999-12-31T23:59:59.999000Z"),
    ],
)
def test_a_timestamp_may_be_a_number_of_seconds_or_milliseconds(stamp: str, meant: str) -> None:
    assert at(Raw(stamp)) == meant


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("0", 0.0),
        ("-0", 0.0),
        ("-0.0", 0.0),
        ("-1e-400", 0.0),
        ("1", 1.0),
        ("1.0", 1.0),
        ("1e2", 100.0),
        ("1E-2", 0.01),
        ("9007199254740993", 9007199254740992.0),
        ("123456789012345678901234567890", 1.2345678901234568e29),
        ("9" * 308, 1e308),
        ("1.7976931348623157e308", sys.float_info.max),
        ("-1.7976931348623157e308", -sys.float_info.max),
        ("5e-324", 5e-324),
        ("2.4703282292062328e-324", 5e-324),
        ("0." + "1" * 5000, 0.1111111111111111),
    ],
)
def test_a_value_may_be_any_finite_number(literal: str, value: float) -> None:
    for further in ({}, {"note": "NaN"}):  # which only the long way accepts
        found = accepted(text(value=Raw(literal), **further))
        assert found.value == value
        assert str(found.value) == str(value)  # tells -0.0 from 0.0


@pytest.mark.parametrize(
    ("further", "carried"),
    [
        ('"unit": "m3/h"', '{"unit":"m3/h"}'),
        ('"b": 1, "a": 2', '{"a":2,"b":1}'),
        ('"n": null, "t": true, "f": false', '{"f":false,"n":null,"t":true}'),
        ('"a": [1.0, 1e2, -0.0, 2.50]', '{"a":[1,100,0,2.5]}'),
        ('"a": 9223372036854775807', '{"a":9223372036854775807}'),
        ('"a": 123456789012345678901234567890', '{"a":123456789012345678901234567890}'),
        ('"a": 1e22', '{"a":1e+22}'),
        ('"a": [9223372036854775808.0, 1e18]', '{"a":[9.223372036854776e+18,1000000000000000000]}'),
        (f'"a": -{"9" * 4300}', f'{{"a":-{"9" * 4300}}}'),
        ('"a": "\\u00e9\\ud83d\\ude00\\u0000"', '{"a":"é😀\\u0000"}'),
        ('"": {"": []}', '{"":{"":[]}}'),
        ('"a": {"z": 1, "y": {"x": 1, "w": 2}}', '{"a":{"y":{"w":2,"x":1},"z":1}}'),
        ('"NaN": "Infinity"', '{"NaN":"Infinity"}'),
    ],
)
def test_further_members_are_carried_along_as_equal_values(further: str, carried: str) -> None:
    payload = text()[:-1] + ", " + further + "}"
    found = accepted(payload)
    assert found.attributes == carried
    assert json.loads(carried) == {
        name: value for name, value in json.loads(payload).items() if name in json.loads(carried)
    }


def test_of_duplicate_members_the_last_one_counts() -> None:
    first, last = text(value="Bad Input", timestamp=5)[:-1], text(value=7)[1:]
    assert accepted(first + ", " + last) == accepted(text(value=7))
    nested = accepted(text()[:-1] + ', "a": 1, "a": {"b": 1, "b": 2}}')
    assert nested.attributes == '{"a":{"b":2}}'


@pytest.mark.parametrize("levels", [2, 100, 199, MAX_NESTING])
@pytest.mark.parametrize(("left", "inner", "right"), [("[", "", "]"), ('{"a":', "1", "}")])
def test_nesting_is_accepted_up_to_the_limit(
    levels: int, left: str, inner: str, right: str
) -> None:
    deep = left * (levels - 1) + inner + right * (levels - 1)
    found = accepted(text(deep=Raw(deep)))
    assert found.attributes == '{"deep":' + deep + "}"


def test_brackets_inside_strings_are_no_nesting() -> None:
    note = '["{' * 500 + "\\"
    assert json.loads(accepted(text(note=note)).attributes or "") == {"note": note}


@pytest.mark.parametrize("space", [" ", "\n", "\r\n", "\t", ""])
def test_white_space_around_and_within_does_not_matter(space: str) -> None:
    payload = space + text().replace(" ", space).replace(",", space + ",") + space
    assert accepted(payload) == accepted(text())


def test_a_payload_of_exactly_the_limit_is_accepted() -> None:
    payload = text()
    padded = payload + " " * (200 - len(payload))
    assert accepted(padded, limits=Limits(max_payload_bytes=200)) == accepted(payload)


def test_exactly_the_greatest_age_and_exactly_the_farthest_future_are_accepted() -> None:
    limits = Limits(max_age_us=10 * SECOND, max_future_us=5 * SECOND)
    event_us = accepted(text()).event_us
    for received_us in (event_us + 10 * SECOND, event_us - 5 * SECOND):
        assert accepted(text(), limits=limits, received_us=received_us).event_us == event_us


def test_limits_of_nothing_accept_exactly_now() -> None:
    event_us = accepted(text()).event_us
    limits = Limits(max_age_us=0, max_future_us=0)
    assert accepted(text(), limits=limits, received_us=event_us).received_us == event_us
