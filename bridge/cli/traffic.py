"""What a plant's network makes of readings: retries of a sensor, and messages that are none."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from random import Random
from typing import Literal, NamedTuple

from bridge.cli.readings import Sample, topic

RETRY_REACH = 50


class Outgoing(NamedTuple):
    """One message to publish. `reason`: why the bridge is going to refuse it, for junk."""

    topic: str
    payload: bytes
    kind: Literal["reading", "duplicate", "junk"]
    sample: Sample
    reason: str | None = None


class Junk(NamedTuple):
    """A kind of bad message as plants really send them, made from a good reading."""

    reason: str
    make: Callable[[Sample], tuple[str, bytes]]


def _value(text: str) -> Callable[[Sample], tuple[str, bytes]]:
    return lambda sample: (sample.topic, sample._replace(value=text).payload)


def _timestamp(text: str) -> Callable[[Sample], tuple[str, bytes]]:
    return lambda sample: (sample.topic, sample._replace(timestamp=text).payload)


def _as(change: Callable[[bytes], bytes]) -> Callable[[Sample], tuple[str, bytes]]:
    return lambda sample: (sample.topic, change(sample.payload))


def _without_sensor(payload: bytes) -> bytes:
    members = json.loads(payload)
    del members["sensor_id"]
    return json.dumps(members).encode()


def _from_neighbour(sample: Sample) -> tuple[str, bytes]:
    return sample.topic, sample._replace(site=f"{sample.site}2").payload


def _under_padded_tag(sample: Sample) -> tuple[str, bytes]:
    return topic(sample.site, f"{sample.pi_tag} "), sample.payload


JUNK = (
    Junk("field_invalid", _value('"Bad Input"')),  # digital states of a PI server
    Junk("field_invalid", _value('"I/O Timeout"')),
    Junk("field_invalid", _value("null")),
    Junk("field_invalid", _timestamp("21-Nov-26 03:00:00")),  # a PI server's own format
    Junk("payload_not_json", _value("NaN")),
    Junk("payload_not_json", _as(lambda payload: payload.replace(b'"', b"'"))),  # Python's repr
    Junk("payload_not_json", _as(lambda _: b"")),
    Junk("payload_not_json", _as(lambda payload: payload[: len(payload) // 2])),  # a full buffer
    Junk("payload_not_utf8", _as(lambda payload: payload.decode().encode("utf-16"))),
    Junk("payload_not_object", _as(lambda payload: b"[" + payload + b"]")),
    Junk("field_missing", _as(_without_sensor)),
    Junk("site_mismatch", _from_neighbour),
    Junk("timestamp_out_of_range", _timestamp("1970-01-01T00:00:03Z")),  # a clock reset
    Junk("topic_malformed", _under_padded_tag),
)


def mixed(
    samples: Iterable[Sample], rng: Random, junk: float = 0.0, duplicates: float = 0.0
) -> Iterator[Outgoing]:
    """The samples as messages, in order, with junk and duplicates on top.

    junk, duplicates: how many of them for each 100 readings, on average. A duplicate is one of
    the last `RETRY_REACH` readings, byte for byte.
    """
    recent: deque[Sample] = deque(maxlen=RETRY_REACH)
    for sample in samples:
        recent.append(sample)
        yield Outgoing(sample.topic, sample.payload, "reading", sample)
        if rng.random() * 100 < junk:
            yield _junk(sample, rng)
        if rng.random() * 100 < duplicates:
            again = rng.choice(recent)
            yield Outgoing(again.topic, again.payload, "duplicate", again)


def _junk(sample: Sample, rng: Random) -> Outgoing:
    kind = rng.choice(JUNK)
    where, payload = kind.make(sample)
    return Outgoing(where, payload, "junk", sample, kind.reason)
