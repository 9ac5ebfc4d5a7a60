"""From an MQTT message to a reading, or to the reason why it is refused. Pure.

`parse` first tries the short way: one compiled validator over the payload's bytes. The short way
can only accept. Whatever it does not accept goes the long way, step by step in the order of the
refusal reasons, which is the judge and knows the words for the operator. For every message that
the short way accepts, the long way yields the same reading (a property test holds them together).
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from bridge.parsing.identity import attributes_of, checked_attributes, digest, prefixed
from bridge.parsing.names import name_of, name_problem, parse_topic, storable, topic_problem
from bridge.parsing.payload import (
    MAX_NESTING,
    MEMBERS,
    require_members,
    require_object,
    strict_json,
    text_of,
    value_of,
)
from bridge.parsing.refusal import Refused, quoted
from bridge.parsing.timestamps import MICROS, event_us_of, stamp_of

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


class Again(Entry):
    """An entry for one sink alone: it refused the reading once, and is to try again. The others
    have resolved it under the number that it came with."""

    sink: str

    def __new__(cls, seq: int, reading: Reading, sink: str) -> Again:
        made = super().__new__(cls, seq, reading)
        made.sink = sink
        return made


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


@with_config(ConfigDict(extra="allow", strict=True))
class _Payload(TypedDict):
    site_code: str
    sensor_id: str
    timestamp: str | int | Annotated[float, Field(allow_inf_nan=False)]
    value: Annotated[float, Field(allow_inf_nan=False)]


_validate = TypeAdapter(_Payload).validator.validate_json


def parse(message: Message, limits: Limits) -> Reading | Rejection:
    """Judge one message. Never raises for anything that a message can hold; does not block."""
    reading = _short_way(message, limits)
    if reading is not None:
        return reading
    try:
        return _long_way(message, limits)
    except Refused as refused:
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
        event_us = event_us_of(members["timestamp"])
        sensor = members["sensor_id"]
        attributes = None if len(members) == len(MEMBERS) else attributes_of(members)
    except (ValidationError, Refused, ValueError):
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
    event_id = digest(prefix, sensor, event_us, value, attributes)
    return Reading(event_id, site, tag, sensor, event_us, value, message.received_us, attributes)


def _long_way(message: Message, limits: Limits) -> Reading:
    levels = parse_topic(message.topic)
    if levels is None:
        raise Refused("topic_malformed", topic_problem(message.topic))
    site, tag, prefix = levels
    members = require_object(strict_json(text_of(message.payload, limits.max_payload_bytes)))
    require_members(members)
    code = name_of(members, "site_code")
    sensor = name_of(members, "sensor_id")
    stamp = stamp_of(members["timestamp"])
    value = value_of(members["value"])
    attributes = checked_attributes(members)
    if code != site:
        raise Refused(
            "site_mismatch",
            f"site_code is {quoted(code)}, but the topic's site is {quoted(site)}",
        )
    event_us = event_us_of(stamp)
    _require_range(event_us, message.received_us, limits)
    event_id = digest(prefix, sensor, event_us, value, attributes)
    return Reading(event_id, site, tag, sensor, event_us, value, message.received_us, attributes)


def _rejection(message: Message, limits: Limits, reason: str, detail: str) -> Rejection:
    levels = parse_topic(message.topic)
    return Rejection(
        reason=reason,
        detail=detail,
        site="" if levels is None else levels[0],
        topic=storable(message.topic),
        payload=message.payload[: limits.max_payload_bytes],
        payload_bytes=len(message.payload),
        sha256=hashlib.sha256(message.payload).digest(),
        received_us=message.received_us,
    )


def _require_range(event_us: int, received_us: int, limits: Limits) -> None:
    age = received_us - event_us
    if age > limits.max_age_us:
        raise Refused(
            "timestamp_out_of_range",
            f"timestamp is {age / MICROS / 86_400:.1f} days old, "
            f"more than {limits.max_age_us / MICROS / 86_400:g}",
        )
    if -age > limits.max_future_us:
        raise Refused(
            "timestamp_out_of_range",
            f"timestamp is {-age / MICROS:.0f} s ahead of the time it was received, "
            f"more than {limits.max_future_us / MICROS:g}",
        )


def event_id(reading: Reading) -> bytes:
    """The identity of a reading's content: 16 bytes. `received_us` has no part in it."""
    prefix = prefixed(reading.site) + prefixed(reading.pi_tag)
    value = reading.value + 0.0
    return digest(prefix, reading.sensor_id, reading.event_us, value, reading.attributes)
