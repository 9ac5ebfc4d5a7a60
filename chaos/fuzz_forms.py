"""What the bridge makes of a reading and of a dead letter, read back and compared."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import struct
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from bridge.journal import letters
from bridge.journal.letters import DeadLetter
from bridge.logs import JsonFormatter, TextFormatter
from bridge.policy import estimate
from bridge.reading import Entry, Limits, Message, Reading, Rejection, parse
from bridge.sinks.append_stream import serialized_rows
from bridge.sinks.bigquery_insert import _row as json_row
from bridge.sinks.letter_json import letter_json
from bridge.sinks.pubsub import _message as pubsub_message
from bridge.sinks.schema import COLUMNS
from chaos.fuzz_oracle import EPOCH, Broken, Content, Whole

# A reading's attributes can be longer than the payload they came in: `1e18` has 19 digits.
NO_LIMITS = Limits(max_payload_bytes=2**30, max_age_us=2**62, max_future_us=2**62)
KEY_BYTES = 1_024  # what Pub/Sub takes of an ordering key, and of an attribute's value
EVENT_BYTES = 10_000_000


def check_forms(entry: Entry, content: Content) -> None:
    """An accepted reading's event, rows and dead letter. Raises AssertionError."""
    _check_event(entry, content)
    _check_row(entry)
    _check_json_row(entry)
    _check_refused_by_sink(entry)


def _check_event(entry: Entry, content: Content) -> None:
    reading = entry.reading
    message = pubsub_message(reading)
    data = message.SerializeToString()
    assert type(message).FromString(data) == message
    assert len(data) <= min(estimate(entry), EVENT_BYTES)
    event = json.loads(message.data.decode("utf-8"))
    assert same(event.pop("attributes"), content.further)
    assert isinstance(event["value"], float)
    common = {
        "event_id": reading.event_id.hex(),
        "event_type": "kpi.reading",
        "site_code": reading.site,
        "event_time": _written(reading.event_us),
    }
    assert event == common | {
        "schema_version": 1,
        "process": "SolvExtract",
        "kpi": reading.pi_tag,
        "sensor_id": reading.sensor_id,
        "value": reading.value,
        "received_at": _written(reading.received_us),
    }
    attributes = dict(message.attributes)
    assert attributes == common | {"schema_version": "1", "pi_tag": reading.pi_tag}
    assert message.ordering_key == reading.site
    keys = [message.ordering_key, *attributes.values()]
    assert max(len(key.encode()) for key in keys) <= KEY_BYTES


def _written(micros: int) -> str:
    moment = (EPOCH + timedelta(microseconds=micros)).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


def _columns(reading: Reading) -> list[Any]:
    return [
        reading.event_id.hex(),
        reading.site,
        reading.pi_tag,
        reading.sensor_id,
        reading.event_us,
        reading.value,
        reading.received_us,
        reading.topic,
        reading.attributes,
    ]


def _check_row(entry: Entry) -> None:
    [data] = serialized_rows([entry])
    assert len(data) <= estimate(entry)
    found = dict(_wire_fields(data))
    for number, (column, wanted) in enumerate(
        zip(COLUMNS, _columns(entry.reading), strict=True), 1
    ):
        raw = found.pop(number, None)
        if wanted is None:
            assert raw is None, column
        elif isinstance(wanted, str):
            assert raw == wanted.encode(), column
        elif isinstance(wanted, float):
            assert raw == struct.pack("<d", wanted), column
        else:
            assert raw == wanted % 2**64, column
    assert found == {}


def _wire_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Protobuf's wire format: varints as numbers, doubles and strings as their bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if kind == 2:
            length, place = _varint(data, place)
        else:
            assert kind == 1, f"wire type {kind}"
            length = 8
        yield number, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while data[place] & 0x80:
        number |= (data[place] & 0x7F) << shift
        shift += 7
        place += 1
    return number | data[place] << shift, place + 1


def _check_json_row(entry: Entry) -> None:
    reading = entry.reading
    names = [column.name for column in COLUMNS]
    wanted = dict(zip(names, _columns(reading), strict=True))
    wanted |= {name: _written(wanted[name]) for name in ("event_time", "received_at")}
    if reading.attributes is None:
        del wanted["attributes"]
    assert json.loads(json.dumps(json_row(reading), allow_nan=False)) == wanted


def _check_refused_by_sink(entry: Entry) -> None:
    refused = letters.Refused(entry, "refused", "the service's words")
    letter = DeadLetter(1, *letters.row_of_refused("bigquery", refused))
    shown = json.loads(letter_json(letter))
    assert (shown["sink"], shown["event_id"]) == ("bigquery", entry.reading.event_id.hex())
    payload = base64.b64decode(shown["payload_base64"], validate=True)
    assert shown["payload_bytes"] == len(payload) == letter.payload_bytes
    assert letter.sha256 == hashlib.sha256(payload).digest()
    again = parse(Message(shown["topic"], payload, entry.reading.received_us), NO_LIMITS)
    assert repr(again) == repr(entry.reading)


def check_letter(
    letter: DeadLetter, rejection: Rejection, message: Message, limits: Limits
) -> None:
    """A refused message's dead letter: its JSON, its line in the log, and what it is judged to be
    when it comes again. Raises AssertionError."""
    assert json.loads(letter_json(letter)) == {
        "reason": rejection.reason,
        "detail": rejection.detail,
        "topic": rejection.topic,
        "payload_base64": base64.b64encode(rejection.payload).decode(),
        "payload_bytes": rejection.payload_bytes,
        "received_at": _written(rejection.received_us),
        "sink": None,
    }
    _check_log_line(rejection)
    # A topic that was no text is kept with escapes in it, and those are characters of a name.
    is_whole = letter.payload_bytes <= limits.max_payload_bytes
    if is_whole and letter.topic == message.topic:
        again = parse(Message(letter.topic, letter.payload, letter.received_us), limits)
        assert isinstance(again, Rejection)
        assert again.reason == rejection.reason


def _check_log_line(rejection: Rejection) -> None:
    fields = {"reason": rejection.reason, "detail": rejection.detail, "topic": rejection.topic}
    record = logging.LogRecord("bridge", logging.WARNING, "", 0, "refused", None, None)
    record.fields = fields
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line.encode("utf-8")) | fields == json.loads(line)
    text = TextFormatter().format(record)
    assert text.encode("utf-8").splitlines() == [text.encode("utf-8")]


def same(found: Any, written: Any) -> bool:
    """Whether two JSON values are equal, the second with its numbers as written."""
    if isinstance(written, Whole | Broken):
        if isinstance(found, bool) or not isinstance(found, int | float):
            return False
        return bool(found == (int(written) if isinstance(written, Whole) else float(written)))
    if type(found) is not type(written):
        return False
    if isinstance(written, dict):
        pairs = ((found[name], written[name]) for name in written if name in found)
        return found.keys() == written.keys() and all(same(*pair) for pair in pairs)
    if isinstance(written, list):
        return len(found) == len(written) and all(map(same, found, written))
    return bool(found == written)
