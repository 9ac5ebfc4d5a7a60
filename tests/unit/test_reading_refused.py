"""What is refused, for which of the nine reasons, and in which words."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import pytest

from bridge.parsing.names import MAX_NAME
from bridge.parsing.payload import MAX_NESTING, MEMBERS
from bridge.reading import REASONS, Limits, Rejection
from tests.support.clock import START_US
from tests.support.readings import TOPIC, Raw, accepted, judged, refused, text

SECOND = 1_000_000
SMALL = Limits(max_payload_bytes=100)


def raw(**changes: str) -> str:
    return text(**{name: Raw(literal) for name, literal in changes.items()})


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("", "has 1 levels"),
        ("FCTS", "has 1 levels"),
        ("FCTS/FAE/MOR/SolvExtract", "has 4 levels"),
        ("FCTS/FAE/MOR/SolvExtract/T/", "has 6 levels"),
        ("/FCTS/FAE/MOR/SolvExtract/T", "has 6 levels"),
        ("FCTS/FAE/MOR/SolvExtract/T/value", "has 6 levels"),
        ("fcts/FAE/MOR/SolvExtract/T", 'level 1 of the topic is "fcts", not FCTS'),
        ("FCTS/FAB/MOR/SolvExtract/T", 'level 2 of the topic is "FAB", not FAE'),
        ("FCTS/FAE/MOR/solvextract/T", 'level 4 of the topic is "solvextract", not SolvExtract'),
        ("FCTS/FAE/MOR/SolvExtract /T", "level 4"),
        ("FCTS/FAE//SolvExtract/T", "site is empty"),
        ("FCTS/FAE/MOR/SolvExtract/", "PI tag is empty"),
        ("FCTS/FAE/ MOR/SolvExtract/T", "site begins or ends with white space"),
        ("FCTS/FAE/MOR\u3000/SolvExtract/T", "site begins or ends with white space"),
        ("FCTS/FAE/MOR/SolvExtract/T\u00a0", "PI tag begins or ends with white space"),
        ("FCTS/FAE/M\nR/SolvExtract/T", "site has a control character (U+000A)"),
        ("FCTS/FAE/MOR/SolvExtract/T\x7f", "PI tag has a control character (U+007F)"),
        ("FCTS/FAE/MOR/SolvExtract/T\x85x", "PI tag has a control character (U+0085)"),
        ("FCTS/FAE/\0/SolvExtract/T", "site has a control character (U+0000)"),
        (f"FCTS/FAE/{'x' * 129}/SolvExtract/T", "site has 129 characters, more than 128"),
        (f"FCTS/FAE/MOR/SolvExtract/{'é' * 129}", "PI tag has 129 characters, more than 128"),
        (f"FCTS/FAE/MOR/SolvExtract/{'x' * 65_000}", "PI tag has 65000 characters"),
        ("FCTS/FAE/M\ud800R/SolvExtract/T", "site has a lone surrogate"),
        ("FCTS/FAE/MOR/SolvExtract/\udcff", "PI tag has a lone surrogate"),
    ],
)
def test_a_topic_that_is_not_five_well_formed_levels(topic: str, words: str) -> None:
    found = refused(text(), topic)
    assert (found.reason, found.site) == ("topic_malformed", "")
    assert words in found.detail


@pytest.mark.parametrize("size", [101, 102, 150, 1_000, 70_000])
def test_a_payload_above_the_limit(size: int) -> None:
    found = refused(b"\xff" * size, limits=SMALL)
    assert found.reason == "payload_too_large"
    assert str(size) in found.detail
    assert "more than 100" in found.detail


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\xff\xfe{\x00}\x00", "byte 0"),  # UTF-16
        (text().encode("utf-16"), "byte 0"),
        (text().encode("utf-8")[:-2] + b"\xc3", "unexpected end of data"),
        (text(unit="m\u00b3/h").replace("\\u00b3", "\u00b3").encode("latin-1"), "not UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "byte 7"),  # a surrogate, as UTF-8 would write it
        (b'{"a": "\xc0\x80"}', "byte 7"),  # an overlong NUL
        (b'{"a": "\xf4\x90\x80\x80"}', "byte 7"),  # beyond U+10FFFF
        (b"\x80", "byte 0"),
    ],
)
def test_a_payload_that_is_not_utf_8(payload: bytes, words: str) -> None:
    found = refused(payload)
    assert found.reason == "payload_not_utf8"
    assert words in found.detail


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("", "empty"),
        (" ", "Expecting value"),
        ("Bad Input", "at character 0"),
        ("nan", "Expecting value"),
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        (raw(value="NaN"), "NaN"),
        (raw(value="Infinity"), "Infinity"),
        (raw(further="[1, NaN]"), "NaN"),
        (raw(further='{"a": -Infinity}'), "-Infinity"),
        (text().replace('"', "'"), "double quotes"),
        (text()[:-1], "at character"),
        (text()[:-1] + ",}", "at character"),
        (text() + text(), "Extra data"),
        (text() + "\x00", "Extra data"),
        ("\x00" + text(), "at character 0"),
        ("\ufeff" + text(), "byte order mark"),
        ("\u00a0" + text(), "at character 0"),
        (text(value=5).replace("5}", "05}"), "at character"),
        (text(value=5).replace("5}", "5.}"), "at character"),
        (text(value=5).replace("5}", ".5}"), "at character"),
        (text(value=5).replace("5}", "+5}"), "at character"),
        (text(value=5).replace("5}", "0x5}"), "at character"),
        (text(value=5).replace("5}", "1_0}"), "at character"),
        (text(value=5).replace("5}", "5} // comment"), "Extra data"),
        (raw(value="True"), "Expecting value"),
        (raw(value="undefined"), "Expecting value"),
        (raw(unit='"a\nb"'), "control character"),
        (raw(unit='"a\\xb"'), "escape"),
        (raw(unit='"\\ud800"'), "lone surrogate"),
        (raw(unit='"\\udfff\\ud800"'), "lone surrogate"),
        (raw(unit='{"deep": ["\\uD9ab x"]}'), "lone surrogate"),
        (text()[:-1] + ', "\\udc00": 1}', "lone surrogate"),
        (raw(site_code='"\\ud800"'), "lone surrogate"),
        ("[" * (MAX_NESTING + 1) + "]" * (MAX_NESTING + 1), "deeper than 200"),
        (raw(deep="[" * MAX_NESTING + "]" * MAX_NESTING), "deeper than 200"),
        (raw(deep='{"a":' * MAX_NESTING + "1" + "}" * MAX_NESTING), "deeper than 200"),
        ("[" * 60_000, "deeper than 200"),
        ('{"a":' * 10_000, "deeper than 200"),
        ("]" * 60_000, "at character 0"),
        ('"' * 60_000, "Extra data"),
        ('"' + '\\"' * 30_000, "Unterminated"),
        ("\\" * 60_000, "at character 0"),
    ],
)
def test_a_payload_that_is_not_json(payload: str, words: str) -> None:
    found = refused(payload)
    assert found.reason == "payload_not_json"
    assert words in found.detail


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ("[]", "an array"),
        (f"[{text()}]", "an array"),
        ("12.5", "a number"),
        ("9" * 5000, "a number"),
        ("1e999", "a number"),
        ('"Bad Input"', "a string"),
        ("null", "null"),
        ("true", "a boolean"),
        ("false", "a boolean"),
    ],
)
def test_a_payload_that_is_no_object(payload: str, kind: str) -> None:
    found = refused(payload)
    assert found.reason == "payload_not_object"
    assert f"is {kind}," in found.detail


@pytest.mark.parametrize(
    ("payload", "missing"),
    [
        ("{}", "site_code, sensor_id, timestamp, value"),
        (text(value=...), "value"),
        (text(timestamp=...), "timestamp"),
        (text(sensor_id=...), "sensor_id"),
        (text(site_code=...), "site_code"),
        (text(value=..., timestamp=...), "timestamp, value"),
        (text(value=..., Value=1), "value"),
        (text(value=...) + " ", "value"),
        ('{"payload": ' + text() + "}", "site_code, sensor_id, timestamp, value"),
    ],
)
def test_a_payload_in_which_a_member_is_missing(payload: str, missing: str) -> None:
    found = refused(payload)
    assert (found.reason, found.detail) == ("field_missing", f"missing: {missing}")


@pytest.mark.parametrize("member", ["site_code", "sensor_id"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "is not a string: null"),
        (5, "is not a string: 5"),
        (True, "is not a string: true"),
        (["MOR"], 'is not a string: ["MOR"]'),
        ({}, "is not a string: {}"),
        ("", "is empty"),
        (" MOR", "white space"),
        ("MOR\u2003", "white space"),
        (" ", "white space"),
        ("M\tR", "control character (U+0009)"),
        ("MOR\u009f", "control character (U+009F)"),
        ("x" * (MAX_NAME + 1), "has 129 characters, more than 128"),
        ("x" * 60_000, "has 60000 characters"),
    ],
)
def test_a_name_that_breaks_the_rules(member: str, value: Any, words: str) -> None:
    found = refused(text(**{member: value}))
    assert found.reason == "field_invalid"
    assert found.detail.startswith(f"{member} ")
    assert words in found.detail
    assert len(found.detail) < 250


@pytest.mark.parametrize(
    "stamp",
    [
        "",
        "now",
        "Bad Input",
        "2026-09-21",
        "2026-09-21T14:00",
        "2026-09-21T14",
        "2026-W39-1T14:00:00Z",
        "2026W391T140000",
        "2026-264T14:00:00Z",
        "20260921T140000Z",
        "2026-09-21T140000Z",
        "26-09-21T14:00:00Z",
        "+2026-09-21T14:00:00Z",
        "-2026-09-21T14:00:00Z",
        "12026-09-21T14:00:00Z",
        "2026-9-21T14:00:00Z",
        "21.09.2026 14:00:00",
        "09/21/2026 14:00:00",
        "2026-09-21  14:00:00",
        "2026-09-21_14:00:00",
        "2026-09-21T14:00:00.Z",
        "2026-09-21T14:00:00,5Z",
        "2026-09-21T14:00:00.1234567890Z",
        "2026-09-21T14:00:00 Z",
        "2026-09-21T14:00:00ZZ",
        "2026-09-21T14:00:00Z\n",
        " 2026-09-21T14:00:00Z",
        "2026-09-21T14:00:00+0530",
        "2026-09-21T14:00:00+05",
        "2026-09-21T14:00:00+24:00",
        "2026-09-21T14:00:00+05:60",
        "2026-09-21T14:00:00 +05:00",
        "2026-09-21T14:00:00−05:00",
        "2026-09-21T14:00:00 UTC",
        "٢٠٢٦-09-21T14:00:00Z",
        "1790000000",
        "1790000000.5",
        "1790000000000",
    ],
)
def test_a_timestamp_string_of_another_form(stamp: str) -> None:
    found = refused(text(timestamp=stamp))
    assert found.reason == "field_invalid"
    assert found.detail.startswith("timestamp is not of the form YYYY-MM-DDThh:mm:ss")


@pytest.mark.parametrize(
    "stamp",
    [
        "2026-09-21T24:00:00Z",
        "2026-09-21T24:00:01Z",
        "2026-09-21T25:00:00Z",
        "2026-09-21T14:60:00Z",
        "2026-09-21T14:00:60Z",
        "2016-12-31T23:59:60Z",  # a leap second: no such moment in Unix time
        "2026-02-29T14:00:00Z",
        "2026-02-30T14:00:00Z",
        "2026-13-01T14:00:00Z",
        "2026-00-01T14:00:00Z",
        "2026-09-00T14:00:00Z",
        "2026-09-31T14:00:00Z",
        "0000-01-01T00:00:00Z",
        "0000-12-31T23:59:59-01:00",
    ],
)
def test_a_timestamp_string_that_is_no_moment_of_the_calendar(stamp: str) -> None:
    found = refused(text(timestamp=stamp))
    assert found.reason == "field_invalid"
    assert "is no date and time of the calendar" in found.detail


@pytest.mark.parametrize(
    ("stamp", "kind"),
    [
        (True, "a boolean"),
        (False, "a boolean"),
        (None, "null"),
        ([], "an array"),
        ({}, "an object"),
        ([1790000000], "an array"),
        ({"seconds": 1790000000}, "an object"),
    ],
)
def test_a_timestamp_that_is_neither_string_nor_number(stamp: Any, kind: str) -> None:
    found = refused(text(timestamp=stamp))
    assert found.reason == "field_invalid"
    assert f"timestamp is {kind}, neither a string nor a number" in found.detail


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"12.5"', "value is a string, not a number"),
        ('"Bad Input"', 'value is a string, not a number: "Bad Input"'),
        ('"NaN"', "value is a string"),
        ('""', "value is a string"),
        ("true", "value is a boolean"),
        ("false", "value is a boolean"),
        ("null", "value is null"),
        ("[12.5]", "value is an array"),
        ('{"v": 12.5}', "value is an object"),
        ("1e309", "value overflows a double"),
        ("-1e309", "value overflows a double"),
        ("1.7976931348623159e308", "value overflows a double"),
        ("1" + "0" * 309, "value overflows a double"),
        ("-" + "9" * 4300, "value overflows a double"),
        ("9" * 5000, "value overflows a double"),
        ("1e99999999999", "value overflows a double"),
    ],
)
def test_a_value_that_is_no_finite_number(value: str, words: str) -> None:
    found = refused(raw(value=value))
    assert found.reason == "field_invalid"
    assert words in found.detail


@pytest.mark.parametrize("literal", ["1e999", "[-1e999]", '{"b": [1, {"c": 1e400}]}', "9" * 4301])
def test_a_further_member_whose_number_cannot_be_carried_along(literal: str) -> None:
    found = refused(raw(further=literal))
    assert found.reason == "field_invalid"
    assert found.detail == '"further" holds a number that overflows a double'


@pytest.mark.parametrize(
    ("code", "topic"),
    [
        ("NEV", TOPIC),
        ("mor", TOPIC),
        ("MOR1", TOPIC),
        ("FT-101", TOPIC),
        # The same picture, two texts: not equal.
        ("M\u00fcr", "FCTS/FAE/Mu\u0308r/SolvExtract/T"),
        ("MOR\u200b", TOPIC),
    ],
)
def test_a_site_code_that_is_not_the_topics_site(code: str, topic: str) -> None:
    found = refused(text(site_code=code), topic)
    assert found.reason == "site_mismatch"
    assert found.site == topic.split("/")[2]


@pytest.mark.parametrize(
    "stamp",
    [
        '"0001-01-01T00:00:00Z"',
        '"9999-12-31T23:59:59Z"',
        '"0001-01-01T00:00:00+00:01"',
        '"9999-12-31T23:59:59-23:59"',
        "0",
        "-1",
        "-62135596801",
        "-62135596800001",
        "253402300800000",
        "99999999999",
        "1e18",
        "1790000000000000",  # microseconds
        "1.7976931348623157e308",
        "-1.7976931348623157e308",
        "1e309",
        "-1e999999",
        "9" * 4300,
        "-" + "9" * 4301,
        "9" * 5000,
    ],
)
def test_a_timestamp_too_far_away(stamp: str) -> None:
    assert refused(raw(timestamp=stamp)).reason == "timestamp_out_of_range"


def test_one_microsecond_beyond_the_limits_of_age_and_future() -> None:
    limits = Limits(max_age_us=10 * SECOND, max_future_us=5 * SECOND)
    event_us = accepted(text()).event_us
    old = refused(text(), limits=limits, received_us=event_us + 10 * SECOND + 1)
    early = refused(text(), limits=limits, received_us=event_us - 5 * SECOND - 1)
    assert old.reason == early.reason == "timestamp_out_of_range"
    assert "days old" in old.detail
    assert "5 s ahead of the time it was received" in early.detail


# --- the order of the reasons ---------------------------------------------------------------------

BAD_TOPIC = "FCTS/FAE/MOR/SolvExtract"
STEPS: dict[str, Any] = {
    # For each reason, the least payload (as text) that has this defect and none before it.
    "payload_too_large": b"\xff" * 101,
    "payload_not_utf8": b"\xff{",
    "payload_not_json": b"{]",
    "payload_not_object": b"[]",
    "field_missing": b'{"site_code": 5, "sensor_id": "", "timestamp": "x"}',
    "field_invalid": b'{"site_code": "X", "sensor_id": "S", "timestamp": 1e999, "value": "Bad"}',
    "site_mismatch": b'{"site_code": "X", "sensor_id": "S", "timestamp": 1e999, "value": 1}',
    "timestamp_out_of_range": b'{"site_code": "MOR", "sensor_id": "S", "timestamp": 0, "value": 1}',
}


@pytest.mark.parametrize("reason", STEPS)
def test_the_first_defect_in_the_order_of_the_reasons_counts(reason: str) -> None:
    assert refused(STEPS[reason], limits=SMALL).reason == reason
    assert refused(STEPS[reason], BAD_TOPIC, limits=SMALL).reason == "topic_malformed"


def test_these_are_the_nine_reasons_in_their_order() -> None:
    assert ("topic_malformed", *STEPS) == REASONS


@pytest.mark.parametrize("member", [*MEMBERS, "further"])
def test_an_invalid_member_comes_before_a_wrong_site_and_a_time_out_of_range(member: str) -> None:
    bad = {member: Raw("1e999") if member in ("value", "further") else None}
    changes = {"site_code": "NEV", "timestamp": Raw("9" * 5000)} | bad
    found = refused(text(**changes))
    assert found.reason == "field_invalid"
    assert member in found.detail


def test_a_wrong_site_comes_before_a_time_out_of_range() -> None:
    for stamp in ("0", '"0001-01-01T00:00:00+01:00"', "1e999"):
        assert refused(text(site_code="NEV", timestamp=Raw(stamp))).reason == "site_mismatch"


# --- what is kept of it ---------------------------------------------------------------------------


def test_a_rejection_keeps_the_first_bytes_and_the_length_and_hash_of_all() -> None:
    payload = bytes(range(256))
    found = refused(payload, limits=SMALL)
    assert found == Rejection(
        reason="payload_too_large",
        detail="the payload has 256 bytes, more than 100",
        site="MOR",
        topic=TOPIC,
        payload=payload[:100],
        payload_bytes=256,
        sha256=hashlib.sha256(payload).digest(),
        received_us=START_US,
    )


def test_a_rejections_texts_can_be_stored_whatever_the_topic_was() -> None:
    found = refused("Bad Input", "FCTS/\ud800/\udfff")
    assert found.topic == "FCTS/\\ud800/\\udfff"
    (found.topic + found.detail + found.site).encode("utf-8")


def test_a_long_value_is_quoted_in_part() -> None:
    found = refused(text(value="x" * 60_000))
    assert len(found.detail) < 150
    assert found.detail.endswith("...")


# --- a stranger's payloads ------------------------------------------------------------------------

LARGE = Limits(max_payload_bytes=8 * 1024**2)


@pytest.mark.parametrize(
    "payload",
    [
        "[" * 8 * 1024**2,
        '{"":' * (2 * 1024**2),
        '"' * 8 * 1024**2,
        '"' + '\\"' * (4 * 1024**2 - 1),
        "[" * 201 + '"' + '\\"' * (4 * 1024**2 - 200),
        "[]" * 201 + '"' + '\\"' * (4 * 1024**2 - 300),
        "\\" * 8 * 1024**2,
        "[]" * (4 * 1024**2),
        "9" * 8 * 1024**2,
        "0." + "1" * (8 * 1024**2 - 2),
        '{"value": ' + "9" * (8 * 1024**2 - 20) + "}",
    ],
    ids=lambda payload: payload[:4],
)
@pytest.mark.timeout(60)
def test_no_payload_keeps_the_bridge_busy_for_long(payload: str) -> None:
    # Seconds on any machine; hours where the work grows with the square of the length.
    assert isinstance(judged(payload, limits=LARGE), Rejection)


def test_nothing_is_remembered_of_texts_that_cannot_be_names() -> None:
    before = _remembered()
    for number in range(100):
        refused(text(), "FCTS/FAE/MOR/SolvExtract/" + "x" * (10_000 + number))
        refused(text(sensor_id="x" * (10_000 + number)))
    assert _remembered() == before


def _remembered() -> int:
    from bridge.parsing import names

    return sum(
        cache.cache_info().currsize for cache in (names._parsed_topic, names._short_name_problem)
    )


def test_judging_works_from_deep_within_a_programs_stack() -> None:
    deep = text(deep=Raw("[" * (MAX_NESTING - 1) + "]" * (MAX_NESTING - 1)))

    def judge_from(depth: int) -> object:
        return judge_from(depth - 1) if depth else judged(deep)

    assert sys.getrecursionlimit() >= 1000
    assert not isinstance(judge_from(200), Rejection)


def test_a_lone_surrogate_in_a_member_that_a_later_one_replaces_is_no_json() -> None:
    assert refused(text()[:-1] + ', "a": "\\ud800", "a": 1}').reason == "payload_not_json"
