"""A dead letter as the JSON that the dead-letter topic and the commands show."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import orjson

from bridge.journal.letters import DeadLetter
from bridge.times import iso_us


def letter_fields(letter: DeadLetter) -> dict[str, object]:
    """The contract's members of a dead letter; `event_id` only where there is one."""
    fields: dict[str, object] = {
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": letter.topic,
        "payload_base64": base64.b64encode(letter.payload).decode("ascii"),
        "payload_bytes": letter.payload_bytes,
        "received_at": iso_us(letter.received_us),
        "sink": letter.sink,
    }
    if letter.event_id is not None:
        fields["event_id"] = letter.event_id.hex()
    return fields


def letter_json(letter: DeadLetter) -> bytes:
    return orjson.dumps(letter_fields(letter))


def letter_document(letter: DeadLetter) -> dict[str, object]:
    """All that the journal keeps of it, as the commands and the HTTP side show it."""
    return {
        "id": letter.id,
        **letter_fields(letter),
        "event_id": letter.event_id.hex() if letter.event_id else None,
        "site": letter.site,
        "sha256": letter.sha256.hex(),
        "replayed_at": _time(letter.replayed_us),
        "exported_at": _time(letter.exported_us),
    }


def _time(micros: int | None) -> str | None:
    return None if micros is None else iso_us(micros)


def hex_dump(payload: bytes) -> Iterator[str]:
    """Lines of 16 bytes: where, in hexadecimal, as ASCII."""
    for start in range(0, len(payload), 16):
        row = payload[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{start:08x}  {row.hex(' '):47}  {text}"
