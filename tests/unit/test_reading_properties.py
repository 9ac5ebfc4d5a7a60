"""What holds for every message, tried with many."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge import reading as module
from bridge.journal.letters import payload_of
from bridge.parsing.identity import canonical_json
from bridge.parsing.payload import MEMBERS
from bridge.reading import Limits, Message, Reading, Rejection, event_id, parse
from bridge.times import iso_us
from tests.support.clock import START_US
from tests.support.readings import TOPIC

ALL_TIMES = Limits(max_age_us=2**62, max_future_us=2**62)
FEW = settings(max_examples=60, deadline=None)
MANY = settings(max_examples=120, deadline=None)

names = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=128)
    .map(str.strip)
    .filter(bool)
)
topic_names = names.filter(lambda name: "/" not in name)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
further_members = st.dictionaries(
    texts.filter(lambda name: name not in MEMBERS), values, max_size=4
)
moments = st.datetimes().map(lambda moment: moment.isoformat(sep="T", timespec="microseconds"))
stamps = moments | st.integers(-62_135_596_800, 99_999_999_999)


@st.composite
def valid_members(draw: st.DrawFn, site: str = "MOR") -> dict[str, Any]:
    return {
        "site_code": site,
        "sensor_id": draw(names),
        "timestamp": draw(stamps),
        "value": draw(numbers.filter(_fits_a_double)),
        **draw(further_members),
    }


def _fits_a_double(number: float) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


# What resembles a valid message in all but a detail, so that both ways have much to judge.
odd_literals = st.sampled_from(
    [
        *("0", "-0", "-0.0", "1e5", "1E400", "-1e999", "1e-400", "12.50", "5e-324", "0.1e1"),
        *("9007199254740993", "9" * 19, "9" * 400, "-" + "9" * 4300, "9" * 4301, "01", "1.", "NaN"),
        *("true", "null", "[]", "{}", '""', '"x"', '" x"', '"\\u0041"', '"\\ud800"', '"a\tb"'),
        *('"\\ud83d\\ude00"', '"\x7f"', '"Bad"', '"NaN"', '"2026-09-21T14:00:00Z"', "1790000000"),
        *('"2026-09-21 14:00:00.123456789+05:30"', '"9999-12-31T23:59:59-01:00"', "253402300800"),
        *('"2026-02-30T00:00:00Z"', "1790000000.25", "1790000000123.5", "99999999999.5", '"1"'),
        *("[" * 199 + "]" * 199, "[" * 200 + "]" * 200, '{"a":{"a":1,"a":[1.0]}}', '"é😀"', "-1"),
        *('{"NaN": [1e2, -0.0, 1e22, 0.1, 1e-7, 12345678901234567890]}', '{"":{}, "\\u0000": 1}'),
    ]
)
odd_keys = st.sampled_from(
    [*MEMBERS, "valu\\u0065", "a", "b", "", "é", "\\ud800", "Value", "site_code "]
)


@st.composite
def nearly_valid_payloads(draw: st.DrawFn) -> bytes:
    rows = [
        ("site_code", '"MOR"'),
        ("sensor_id", '"S1"'),
        ("timestamp", '"2026-09-21T14:00:00Z"'),
        ("value", "12.5"),
    ]
    for _ in range(draw(st.integers(0, 4))):
        row = (draw(odd_keys), draw(odd_literals))
        rows.insert(draw(st.integers(0, len(rows))), row)
    if draw(st.integers(0, 5)) == 0:
        rows.pop(draw(st.integers(0, len(rows) - 1)))
    space = draw(st.sampled_from(["", " ", "\n\t", "\u00a0", "\x0b"]))
    text = "{" + ("," + space).join(f'"{key}":{space}{literal}' for key, literal in rows) + "}"
    tail = draw(st.sampled_from(["", "", "", " ", "\r\n", ",", "}", "\x00"]))
    return (text + tail).encode("utf-8")


@FEW
@given(st.text(st.characters(), max_size=60), st.binary(max_size=200))
@example("FCTS/FAE/\ud800/SolvExtract/T", b"\xff")
@example("FCTS/FAE/A/SolvExtract/T", b'{"a": \xff"}')
def test_judging_never_raises_for_any_topic_and_any_bytes(topic: str, payload: bytes) -> None:
    result = parse(Message(topic, payload, START_US), Limits())
    assert isinstance(result, Rejection)
    assert result.reason in module.REASONS
    assert result.detail
    result.topic.encode("utf-8")


@FEW
@given(st.data())
def test_judging_never_raises_for_a_valid_payload_with_some_bytes_changed(
    data: st.DataObject,
) -> None:
    payload = bytearray(json.dumps(data.draw(valid_members())).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    _assert_both_ways_agree(bytes(payload))


@MANY
@given(nearly_valid_payloads())
@example(
    b'{"a": NaN, "a": 1, "value": 1, "site_code": "MOR", "sensor_id": "S", "timestamp": 1789999200}'
)
@example(b'{"value": 1, "value": "x", "site_code": "MOR", "sensor_id": "S", "timestamp": 1}')
def test_what_the_short_way_accepts_the_long_way_yields_too(payload: bytes) -> None:
    _assert_both_ways_agree(payload)


def _assert_both_ways_agree(payload: bytes) -> None:
    message = Message(TOPIC, payload, START_US)
    for limits in (Limits(), ALL_TIMES):
        short = module._short_way(message, limits)
        result = parse(message, limits)
        if short is None:
            assert isinstance(result, Reading | Rejection)
        else:
            long = module._long_way(message, limits)
            assert short == long == result
            assert str(short.value) == str(long.value)


@FEW
@given(valid_members())
def test_a_valid_message_takes_the_short_way(members: dict[str, Any]) -> None:
    payload = json.dumps(members).encode()
    if b"NaN" not in payload and b"Infinity" not in payload:
        assert module._short_way(Message(TOPIC, payload, START_US), ALL_TIMES) is not None


@MANY
@given(topic_names, topic_names, st.data())
def test_further_members_come_through_as_equal_json_values(
    site: str, tag: str, data: st.DataObject
) -> None:
    members = data.draw(valid_members(site))
    ascii_only = data.draw(st.booleans())
    payload = json.dumps(members, ensure_ascii=ascii_only).encode()
    found = parse(Message(f"FCTS/FAE/{site}/SolvExtract/{tag}", payload, START_US), ALL_TIMES)
    assert isinstance(found, Reading)
    further = {name: value for name, value in members.items() if name not in MEMBERS}
    assert json.loads(found.attributes or "{}") == further
    assert (found.attributes is None) == (not further)
    assert (found.site, found.pi_tag, found.sensor_id) == (site, tag, members["sensor_id"])
    assert found.value == float(members["value"])


@FEW
@given(valid_members())
def test_a_dead_letter_made_of_a_reading_parses_to_the_same_reading(
    members: dict[str, Any],
) -> None:
    message = Message(TOPIC, json.dumps(members).encode(), START_US)
    found = parse(message, ALL_TIMES)
    assert isinstance(found, Reading)
    assert parse(message._replace(payload=payload_of(found)), ALL_TIMES) == found


# --- identity -------------------------------------------------------------------------------------


def _spelled(value: Any, data: st.DataObject) -> str:
    """The same JSON value in other words."""
    space = data.draw(st.sampled_from(["", " ", "\n", "\t "]))
    if isinstance(value, dict):
        rows = [
            f"{_spelled(name, data)}{space}:{_spelled(member, data)}"
            for name, member in data.draw(st.permutations(list(value.items())))
        ]
        return "{" + space + f",{space}".join(rows) + space + "}"
    if isinstance(value, list):
        return "[" + f"{space},".join(_spelled(item, data) for item in value) + space + "]"
    if isinstance(value, str):
        if data.draw(st.booleans()):
            units = value.encode("utf-16-be")
            pairs = [units[index : index + 2].hex() for index in range(0, len(units), 2)]
            return '"' + "".join(f"\\u{pair}" for pair in pairs) + '"'
        return json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        whole = int(value)
        if abs(whole) < 2**53:
            forms = (f"{whole}", f"{whole}.0", f"{whole}e0", f"{whole}.000E+0")
            return data.draw(st.sampled_from(forms))
    return json.dumps(value)


def _judged(payload: str) -> Reading:
    found = parse(Message(TOPIC, payload.encode(), START_US), ALL_TIMES)
    assert isinstance(found, Reading), found
    return found


@FEW
@given(valid_members(), st.data())
def test_the_same_content_has_the_same_identity_however_it_is_spelled(
    members: dict[str, Any], data: st.DataObject
) -> None:
    found = _judged(json.dumps(members))
    spelled = dict(members)
    if isinstance(spelled["timestamp"], int) and abs(spelled["timestamp"]) >= 10**8:
        spelled["timestamp"] = data.draw(
            st.sampled_from([spelled["timestamp"], spelled["timestamp"] * 1000])
        )
    if isinstance(spelled["timestamp"], str):
        ends = ("", "Z", "z", "+00:00", "-00:00", "000Z")
        spelled["timestamp"] += data.draw(st.sampled_from(ends))
        between = data.draw(st.sampled_from("Tt "))
        spelled["timestamp"] = spelled["timestamp"].replace("T", between)
    assert _judged(_spelled(spelled, data)) == found


@FEW
@given(valid_members(), st.integers(-23 * 60 - 59, 23 * 60 + 59))
def test_an_offset_does_not_change_the_identity(members: dict[str, Any], minutes: int) -> None:
    moment = "2026-09-21T14:00:00.250000"
    plain = _judged(json.dumps(members | {"timestamp": moment}))
    local = iso_us(plain.event_us + minutes * 60_000_000)[:-1]
    sign, size = "-" if minutes < 0 else "+", abs(minutes)
    stamp = f"{local}{sign}{size // 60:02d}:{size % 60:02d}"
    assert _judged(json.dumps(members | {"timestamp": stamp})) == plain


readings = st.builds(
    Reading,
    event_id=st.just(b""),
    site=names,
    pi_tag=names,
    sensor_id=names,
    event_us=st.integers(-(2**55), 2**57),
    value=st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0),
    received_us=st.just(START_US),
    attributes=further_members.map(lambda value: canonical_json(value) if value else None),
)


@FEW
@given(readings, readings)
def test_any_field_changed_changes_the_identity(one: Reading, other: Reading) -> None:
    for field in ("site", "pi_tag", "sensor_id", "event_us", "value", "attributes"):
        changed = one._replace(**{field: getattr(other, field)})
        same = getattr(one, field) == getattr(other, field)
        assert (event_id(changed) == event_id(one)) is same, field


@FEW
@given(readings)
def test_the_time_of_receipt_does_not_change_the_identity(one: Reading) -> None:
    assert event_id(one._replace(received_us=0, event_id=b"other")) == event_id(one)


@FEW
@given(names, names, names, st.integers(0, 300))
def test_moving_characters_between_the_names_changes_the_identity(
    site: str, tag: str, sensor: str, cut: int
) -> None:
    base = Reading(b"", site, tag, sensor, 0, 0.0, 0, None)
    whole = site + tag + sensor
    first, second = sorted((cut % len(whole), (cut * 7) % len(whole)))
    parts = whole[:first], whole[first:second], whole[second:]
    moved = Reading(b"", *parts, 0, 0.0, 0, None)
    assert (event_id(moved) == event_id(base)) is (parts == (site, tag, sensor))


@FEW
@given(values)
def test_canonical_json_is_a_fixed_point(value: Any) -> None:
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text
    assert json.loads(text) == value
