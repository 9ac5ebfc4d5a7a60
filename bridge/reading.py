"""From an MQTT message to a reading, or to the reason why it is refused. Pure.

`parse` first tries the short way: one compiled validator over the payload's bytes. The short way
can only accept. Whatever it does not accept goes the long way, step by step in the order of the
refusal reasons, which is the judge and knows the words for the operator. For every message that
the short way accepts, the long way yields the same reading (a property test holds them together).

Identity (`event_id`): BLAKE2b with a 16-byte digest over

    len(site) site  len(tag) tag  len(sensor) sensor   lengths: 4 bytes, big-endian; text: UTF-8
    event time                                         8 bytes, signed, microseconds since 1970
    value                                              8 bytes, IEEE 754 double, big-endian
    len(attributes) attributes                         canonical JSON (see `canonical_json`)
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, NoReturn

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

MICROS = 1_000_000
MAX_NESTING = 200
MAX_NAME = 128
MAX_TOPIC = len("FCTS/FAE//SolvExtract/") + 2 * MAX_NAME
REASONS = (
    "topic_malformed",
    "payload_too_large",
    "payload_not_utf8",
    "payload_not_json",
    "payload_not_object",
    "field_missing",
    "field_invalid",
    "site_mismatch",
    "timestamp_out_of_range",
)
MEMBERS = ("site_code", "sensor_id", "timestamp", "value")


class Message(NamedTuple):
    """One MQTT PUBLISH as it came in. `received_us`: microseconds since 1970, UTC."""

    topic: str
    payload: bytes
    received_us: int


class Reading(NamedTuple):
    """One valid reading. Times in microseconds since 1970, UTC; `attributes` is canonical JSON
    text, None where the payload had no further members."""

    event_id: bytes
    site: str
    pi_tag: str
    sensor_id: str
    event_us: int
    value: float
    received_us: int
    attributes: str | None

    @property
    def topic(self) -> str:
        return f"FCTS/FAE/{self.site}/SolvExtract/{self.pi_tag}"


class Entry(NamedTuple):
    """A reading in the journal. `seq` grows in the order of arrival."""

    seq: int
    reading: Reading


class Rejection(NamedTuple):
    """One refused message. `payload` is cut at the limit, `payload_bytes` and `sha256` are of the
    whole; `site` is the topic's, empty where the topic is malformed."""

    reason: str
    detail: str
    site: str
    topic: str
    payload: bytes
    payload_bytes: int
    sha256: bytes
    received_us: int


class Limits(NamedTuple):
    """What the settings say of payloads and times."""

    max_payload_bytes: int = 65_536
    max_age_us: int = 1825 * 86_400 * MICROS
    max_future_us: int = 3600 * MICROS


class _Refused(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@with_config(ConfigDict(extra="allow", strict=True))
class _Payload(TypedDict):
    site_code: str
    sensor_id: str
    timestamp: str | int | Annotated[float, Field(allow_inf_nan=False)]
    value: Annotated[float, Field(allow_inf_nan=False)]


_validate = TypeAdapter(_Payload).validator.validate_json
_doubles = struct.Struct(">qd").pack
_length = struct.Struct(">I").pack
_surrogate = re.compile("[\ud800-\udfff]")
_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
_timestamp = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))?"
).fullmatch
# Possessive, and a string may lack its end: an unclosed one is not tried again at each quote.
_string_or_bracket = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL).finditer
_surrogate_escape = re.compile(r"\\u[dD][89a-fA-F]").search
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MIN_US = -62_135_596_800 * MICROS
_MAX_US = 253_402_300_800 * MICROS - 1


def parse(message: Message, limits: Limits) -> Reading | Rejection:
    """Judge one message. Never raises for anything that a message can hold; does not block."""
    reading = _short_way(message, limits)
    if reading is not None:
        return reading
    try:
        return _long_way(message, limits)
    except _Refused as refused:
        return _rejection(message, limits, refused.reason, str(refused))


def _short_way(message: Message, limits: Limits) -> Reading | None:
    payload = message.payload
    levels = parse_topic(message.topic)
    # The validator lets the tokens NaN and Infinity pass in members it does not look into.
    if levels is None or len(payload) > limits.max_payload_bytes:
        return None
    if b"NaN" in payload or b"Infinity" in payload:
        return None
    # Nor does it count the levels of nesting exactly as the judge does.
    if payload.count(b"[") + payload.count(b"{") > MAX_NESTING:
        return None
    try:
        members: dict[str, Any] = _validate(payload)
        event_us = _event_us(members["timestamp"])
        sensor = members["sensor_id"]
        attributes = None if len(members) == len(MEMBERS) else _attributes(members)
    except (ValidationError, _Refused, ValueError):
        return None
    site, tag, prefix = levels
    age = message.received_us - event_us
    if (
        members["site_code"] != site
        or name_problem(sensor) is not None
        or not -limits.max_future_us <= age <= limits.max_age_us
    ):
        return None
    value = members["value"] + 0.0  # -0.0 becomes 0.0
    event_id = _digest(prefix, sensor, event_us, value, attributes)
    return Reading(event_id, site, tag, sensor, event_us, value, message.received_us, attributes)


def _long_way(message: Message, limits: Limits) -> Reading:
    levels = parse_topic(message.topic)
    if levels is None:
        raise _Refused("topic_malformed", topic_problem(message.topic))
    site, tag, prefix = levels
    members = _object(_json(_text(message.payload, limits)))
    _require_members(members)
    code = _name(members, "site_code")
    sensor = _name(members, "sensor_id")
    stamp = _stamp(members["timestamp"])
    value = _value(members["value"])
    attributes = _checked_attributes(members)
    if code != site:
        raise _Refused(
            "site_mismatch",
            f"site_code is {_quoted(code)}, but the topic's site is {_quoted(site)}",
        )
    event_us = _event_us(stamp)
    _require_range(event_us, message.received_us, limits)
    event_id = _digest(prefix, sensor, event_us, value, attributes)
    return Reading(event_id, site, tag, sensor, event_us, value, message.received_us, attributes)


def _rejection(message: Message, limits: Limits, reason: str, detail: str) -> Rejection:
    levels = parse_topic(message.topic)
    return Rejection(
        reason=reason,
        detail=detail,
        site="" if levels is None else levels[0],
        topic=_storable(message.topic),
        payload=message.payload[: limits.max_payload_bytes],
        payload_bytes=len(message.payload),
        sha256=hashlib.sha256(message.payload).digest(),
        received_us=message.received_us,
    )


# --- topic and names ------------------------------------------------------------------------------


def parse_topic(topic: str) -> tuple[str, str, bytes] | None:
    """Site, PI tag and their bytes in the identity; None for a malformed topic."""
    # Only what can be well formed is remembered: a stranger's long texts would fill the memory.
    return _parsed_topic(topic) if len(topic) <= MAX_TOPIC else None


@lru_cache(maxsize=8192)
def _parsed_topic(topic: str) -> tuple[str, str, bytes] | None:
    levels = topic.split("/")
    if len(levels) != 5 or levels[:2] != ["FCTS", "FAE"] or levels[3] != "SolvExtract":
        return None
    site, tag = levels[2], levels[4]
    if name_problem(site) is not None or name_problem(tag) is not None:
        return None
    return site, tag, _prefixed(site) + _prefixed(tag)


def topic_problem(topic: str) -> str:
    """Why a topic is malformed, in words."""
    levels = topic.split("/")
    if len(levels) != 5:
        return f"the topic has {len(levels)} levels, not the 5 of FCTS/FAE/<site>/SolvExtract/<tag>"
    for index, wanted in ((0, "FCTS"), (1, "FAE"), (3, "SolvExtract")):
        if levels[index] != wanted:
            return f"level {index + 1} of the topic is {_quoted(levels[index])}, not {wanted}"
    if problem := name_problem(levels[2]):
        return f"the topic's site {problem}"
    return f"the topic's PI tag {name_problem(levels[4])}"


def name_problem(text: str) -> str | None:
    """What is wrong with a site, PI tag or sensor id; None when nothing is."""
    if len(text) > MAX_NAME:
        return f"has {len(text)} characters, more than {MAX_NAME}"
    return _short_name_problem(text)


@lru_cache(maxsize=8192)
def _short_name_problem(text: str) -> str | None:
    if not text:
        return "is empty"
    if _surrogate.search(text):
        return "has a lone surrogate, which is no character"
    if found := _control(text):
        return f"has a control character (U+{ord(found.group()):04X})"
    return "begins or ends with white space" if text != text.strip() else None


def _storable(topic: str) -> str:
    """The topic as text that a file can hold, whatever the client library made of its bytes."""
    return _surrogate.sub(lambda found: f"\\u{ord(found.group()):04x}", topic)


def _name(members: dict[str, Any], member: str) -> str:
    text = members[member]
    if not isinstance(text, str):
        _invalid(member, text, "is not a string")
    if problem := name_problem(text):
        _invalid(member, text, problem)
    return text


# --- payload --------------------------------------------------------------------------------------


def _text(payload: bytes, limits: Limits) -> str:
    if len(payload) > limits.max_payload_bytes:
        raise _Refused(
            "payload_too_large",
            f"the payload has {len(payload)} bytes, more than {limits.max_payload_bytes}",
        )
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Refused(
            "payload_not_utf8", f"byte {error.start} of the payload is not UTF-8: {error.reason}"
        ) from None


def _json(text: str) -> Any:
    if not text:
        _not_json("the payload is empty")
    if text[0] == "\ufeff":
        _not_json("the payload begins with a byte order mark")
    if _too_deep(text):
        _not_json(f"the payload is nested deeper than {MAX_NESTING} levels")
    try:
        document = json.loads(text, parse_constant=_constant, parse_int=_integer)
    except json.JSONDecodeError as error:
        _not_json(f"at character {error.pos}: {error.msg}")
    if _surrogate_escape(text):
        _require_no_surrogates(document)
    return document


def _too_deep(text: str) -> bool:
    """Whether brackets outside strings are nested beyond the limit; without recursion, and in
    one pass that never goes back, whatever a stranger sends."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    depth = 0
    for token in _string_or_bracket(text):
        if token.group() in ("[", "{"):
            depth += 1
            if depth > MAX_NESTING:
                return True
        elif token.group() in ("]", "}"):
            depth -= 1
    return False


def _constant(token: str) -> NoReturn:
    _not_json(f"the token {token} is not JSON")


def _integer(digits: str) -> int | float:
    # Python refuses to convert longer ones; as a double they overflow anyway.
    return int(digits) if len(digits.lstrip("-")) <= 4300 else math.inf


def _require_no_surrogates(document: Any) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        _not_json("a string holds a lone surrogate")


def _object(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        kind = _kind(document)
        raise _Refused("payload_not_object", f"the payload is {kind}, not a JSON object")
    return document


def _require_members(members: dict[str, Any]) -> None:
    missing = [name for name in MEMBERS if name not in members]
    if missing:
        raise _Refused("field_missing", f"missing: {', '.join(missing)}")


def _value(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _invalid("value", value, f"is {_kind(value)}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Refused("field_invalid", "value overflows a double")
    return number + 0.0


# --- time -----------------------------------------------------------------------------------------


def _stamp(stamp: Any) -> str | int | float:
    """The timestamp if its form is right; its range is looked at later."""
    if isinstance(stamp, str):
        if not _timestamp(stamp):
            _invalid(
                "timestamp", stamp, "is not of the form YYYY-MM-DDThh:mm:ss[.ffffff][Z|±hh:mm]"
            )
        return _require_calendar(stamp)
    if isinstance(stamp, bool) or not isinstance(stamp, int | float):
        _invalid("timestamp", stamp, f"is {_kind(stamp)}, neither a string nor a number")
    return stamp


def _require_calendar(stamp: str) -> str:
    try:
        _event_us(stamp)
    except ValueError:
        _invalid("timestamp", stamp, "is no date and time of the calendar")
    except _Refused:
        pass  # a real date, shifted out of the years by its offset: judged with the range
    return stamp


def _event_us(stamp: str | int | float) -> int:
    """Microseconds since 1970. ValueError: not a time; _Refused: outside the years 1 to 9999."""
    micros = _text_us(stamp) if isinstance(stamp, str) else _number_us(stamp)
    # A literal beyond a double (or of thousands of digits) is still a finite JSON number.
    if micros is None or not _MIN_US <= micros <= _MAX_US:
        raise _Refused("timestamp_out_of_range", "timestamp is no date of the years 1 to 9999")
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


def _require_range(event_us: int, received_us: int, limits: Limits) -> None:
    age = received_us - event_us
    if age > limits.max_age_us:
        raise _Refused(
            "timestamp_out_of_range",
            f"timestamp is {age / MICROS / 86_400:.1f} days old, "
            f"more than {limits.max_age_us / MICROS / 86_400:g}",
        )
    if -age > limits.max_future_us:
        raise _Refused(
            "timestamp_out_of_range",
            f"timestamp is {-age / MICROS:.0f} s ahead of the time it was received, "
            f"more than {limits.max_future_us / MICROS:g}",
        )


# --- attributes and identity ----------------------------------------------------------------------


def canonical_json(value: Any) -> str:
    """The one text of equal JSON values: members sorted by code point, no white space, no
    needless escapes; a whole number of a magnitude below 2^63 without fraction and exponent,
    any other non-integer by its shortest digits. ValueError for what overflows a double."""
    return json.dumps(
        _normal(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _normal(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, float) and abs(value) < 2**63 and value.is_integer():
        return int(value)
    return value


def _attributes(members: dict[str, Any]) -> str | None:
    further = {name: member for name, member in members.items() if name not in MEMBERS}
    return canonical_json(further) if further else None


def _checked_attributes(members: dict[str, Any]) -> str | None:
    for name in members.keys() - set(MEMBERS):
        try:
            canonical_json(members[name])
        except ValueError:
            raise _Refused(
                "field_invalid", f"{_quoted(name)} holds a number that overflows a double"
            ) from None
    return _attributes(members)


def event_id(reading: Reading) -> bytes:
    """The identity of a reading's content: 16 bytes. `received_us` has no part in it."""
    prefix = _prefixed(reading.site) + _prefixed(reading.pi_tag)
    value = reading.value + 0.0
    return _digest(prefix, reading.sensor_id, reading.event_us, value, reading.attributes)


def _digest(
    prefix: bytes, sensor: str, event_us: int, value: float, attributes: str | None
) -> bytes:
    content = (
        prefix
        + _prefixed(sensor)
        + _doubles(event_us, value)
        + (_NO_ATTRIBUTES if attributes is None else _prefixed(attributes))
    )
    return hashlib.blake2b(content, digest_size=16).digest()


def _prefixed(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return _length(len(encoded)) + encoded


_NO_ATTRIBUTES = _prefixed("{}")


# --- words ----------------------------------------------------------------------------------------


def _not_json(problem: str) -> NoReturn:
    raise _Refused("payload_not_json", problem)


def _invalid(member: str, value: Any, problem: str) -> NoReturn:
    raise _Refused("field_invalid", f"{member} {problem}: {_quoted(value)}")


def _quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names: dict[type, str] = {str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")
