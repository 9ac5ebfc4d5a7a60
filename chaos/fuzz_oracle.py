"""What the contract says of a message, worked out a second time with nothing of the bridge's.

Strict `json` for the payload, `datetime` for the calendar, doubles for the numbers. Numbers stay
as they were written until they are judged, so that nothing is rounded on the way. Where the
contract leaves the answer open, several outcomes are allowed.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import accumulate
from typing import Any, NamedTuple, NoReturn

ACCEPTED = "accepted"
NESTING_PROMISED = 100  # deeper than this, a parser may refuse or not
DIGITS_CARRIED = 4300  # of an integer among the further members
MEMBERS = ("site_code", "sensor_id", "timestamp", "value")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
_string = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class Rules(NamedTuple):
    """The time of receipt and the limits. Microseconds, bytes."""

    received_us: int
    max_payload_bytes: int
    max_age_us: int
    max_future_us: int


class Whole(str):
    """A number without fraction and exponent, as written."""


class Broken(str):
    """Any other number, as written."""


class Content(NamedTuple):
    """What an accepted reading has to say. `slack_us`: how far off a time may be that was written
    as a number with a fraction. `further`: the members beyond the four, numbers as written."""

    site: str
    pi_tag: str
    sensor_id: str
    event_us: int
    slack_us: int
    value: float
    further: dict[str, Any]


class Judgement(NamedTuple):
    """`outcomes`: ACCEPTED or a reason, several where the contract leaves it open. `content`:
    where the message can be accepted."""

    outcomes: frozenset[str]
    content: Content | None


class _Refused(Exception):
    pass


class _Time(NamedTuple):
    us: int
    slack_us: int


def judge(topic: str, payload: bytes, rules: Rules) -> Judgement:
    """The outcomes that the contract allows for a message. Pure; raises nothing."""
    lenient: set[str] = set()
    content = None
    try:
        content, outcomes = _judged(topic, payload, rules, lenient)
    except _Refused as refused:
        outcomes = {str(refused)}
    return Judgement(frozenset(outcomes | lenient), content if ACCEPTED in outcomes else None)


def _judged(
    topic: str, payload: bytes, rules: Rules, lenient: set[str]
) -> tuple[Content, set[str]]:
    site, tag = _names_of(topic)
    document = _document(payload, rules, lenient)
    if not isinstance(document, dict):
        _refuse("payload_not_object")
    if any(member not in document for member in MEMBERS):
        _refuse("field_missing")
    code, sensor, stamp, value = (document[member] for member in MEMBERS)
    further = {name: member for name, member in document.items() if name not in MEMBERS}
    time = _require_members(code, sensor, stamp, value, further)
    if code != site:
        _refuse("site_mismatch")
    outcomes = _range(time, rules)
    moment = time or _Time(0, 0)
    return Content(site, tag, sensor, *moment, float(value) + 0.0, further), outcomes


def _refuse(reason: str) -> NoReturn:
    raise _Refused(reason)


def _names_of(topic: str) -> tuple[str, str]:
    levels = topic.split("/")
    if len(levels) != 5 or (levels[0], levels[1], levels[3]) != ("FCTS", "FAE", "SolvExtract"):
        _refuse("topic_malformed")
    if not (_is_name(levels[2]) and _is_name(levels[4])):
        _refuse("topic_malformed")
    return levels[2], levels[4]


def _is_name(text: object) -> bool:
    if type(text) is not str or not 1 <= len(text) <= 128:
        return False
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        return False
    return not (text[0].isspace() or text[-1].isspace())


# --- the payload ----------------------------------------------------------------------------------


def _document(payload: bytes, rules: Rules, lenient: set[str]) -> Any:
    if len(payload) > rules.max_payload_bytes:
        _refuse("payload_too_large")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        _refuse("payload_not_utf8")
    strings: list[str] = []
    document = _parsed(text, strings)
    # Those of a member that a later one of the same name replaces are among the strings.
    if _has_lone_surrogate(document) or any(map(_has_lone_surrogate, strings)):
        _refuse("payload_not_json")
    if _nesting(text) > NESTING_PROMISED:
        lenient.add("payload_not_json")  # refused or not, but for no other reason
    return document


def _parsed(text: str, strings: list[str]) -> Any:
    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, value in pairs:
            strings.append(name)
            strings.extend(_strings(value))
        return dict(pairs)

    try:
        return json.loads(
            text,
            parse_int=Whole,
            parse_float=Broken,
            parse_constant=lambda _token: _refuse("payload_not_json"),
            object_pairs_hook=members,
        )
    except (ValueError, RecursionError):
        _refuse("payload_not_json")


def _strings(value: Any) -> Iterator[str]:
    """Every string of a value, names included; not recursive."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting += [*item, *item.values()]
        elif isinstance(item, list):
            waiting += item


def _has_lone_surrogate(value: Any) -> bool:
    return any(
        "\ud800" <= character <= "\udfff" for string in _strings(value) for character in string
    )


def _nesting(text: str) -> int:
    """The deepest level of brackets in valid JSON."""
    steps = {"[": 1, "{": 1, "]": -1, "}": -1}
    return max(accumulate(steps.get(token, 0) for token in _string.sub("", text)), default=0)


# --- the members ----------------------------------------------------------------------------------


def _require_members(
    code: Any, sensor: Any, stamp: Any, value: Any, further: dict[str, Any]
) -> _Time | None:
    """The time, None where it is no date of the years 1 to 9999."""
    if not (_is_name(code) and _is_name(sensor)):
        _refuse("field_invalid")
    if not isinstance(value, Whole | Broken) or not math.isfinite(float(value)):
        _refuse("field_invalid")
    if not all(_can_be_carried(item) for item in _strings([*further.values()])):
        _refuse("field_invalid")
    if isinstance(stamp, Whole | Broken):
        return _number_time(stamp)
    if type(stamp) is str:
        return _text_time(stamp)
    _refuse("field_invalid")


def _can_be_carried(item: str) -> bool:
    if isinstance(item, Whole):
        return len(item.lstrip("-")) <= DIGITS_CARRIED
    return not isinstance(item, Broken) or math.isfinite(float(item))


def _number_time(stamp: Whole | Broken) -> _Time | None:
    number = float(stamp)
    if abs(number) > 1e16:
        return None
    factor = 1000 if abs(number) >= 1e11 else 1_000_000
    if isinstance(stamp, Whole):
        return _within_years(int(stamp) * factor, 0)
    exact = Fraction(number) * factor
    slack = math.ceil(math.ulp(number) * factor)
    return _within_years(math.floor(exact), slack)


def _text_time(stamp: str) -> _Time | None:
    if not stamp.isascii() or len(stamp) < 19 or stamp[10] not in "Tt ":
        _refuse("field_invalid")
    fields = [stamp[0:4], stamp[5:7], stamp[8:10], stamp[11:13], stamp[14:16], stamp[17:19]]
    if stamp[4] + stamp[7] + stamp[13] + stamp[16] != "--::" or not all(map(str.isdigit, fields)):
        _refuse("field_invalid")
    micros, rest = _fraction(stamp[19:])
    offset = _offset_minutes(rest)
    try:
        moment = datetime(*map(int, fields), tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        _refuse("field_invalid")
    us = (moment - EPOCH) // timedelta(microseconds=1)
    return _within_years(us + micros - offset * 60_000_000, 0)


def _fraction(rest: str) -> tuple[int, str]:
    """Microseconds, and what follows them."""
    if not rest.startswith("."):
        return 0, rest
    digits = rest[1 : len(rest) - len(rest[1:].lstrip("0123456789"))]
    if not 1 <= len(digits) <= 9:
        _refuse("field_invalid")
    return int(digits.ljust(9, "0")) // 1000, rest[1 + len(digits) :]


def _offset_minutes(rest: str) -> int:
    if rest in ("", "Z", "z"):
        return 0
    hours, minutes = rest[1:3], rest[4:6]
    shape = len(rest) == 6 and rest[0] in "+-" and rest[3] == ":"
    if not (shape and hours.isdigit() and minutes.isdigit()):
        _refuse("field_invalid")
    if int(hours) > 23 or int(minutes) > 59:
        _refuse("field_invalid")
    total = int(hours) * 60 + int(minutes)
    return total if rest[0] == "+" else -total


def _within_years(us: int, slack: int) -> _Time | None:
    return _Time(us, slack) if FIRST_US <= us <= LAST_US else None


def _range(time: _Time | None, rules: Rules) -> set[str]:
    """Both outcomes where the slack decides."""
    if time is None:
        return {"timestamp_out_of_range"}
    inside = {
        -rules.max_future_us <= rules.received_us - us <= rules.max_age_us
        for us in (time.us - time.slack_us, time.us + time.slack_us)
    }
    return {ACCEPTED if good else "timestamp_out_of_range" for good in inside}
