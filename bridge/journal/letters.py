"""Dead letters: what was refused, kept with its reason until somebody has dealt with it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import orjson

from bridge.reading import Entry, Reading, Rejection
from bridge.times import iso_us

OVERHEAD = 256  # bytes of a letter beside its texts, about
_COLUMNS = (
    "sink, reason, detail, site, topic, payload, payload_bytes, sha256, received_us, event_id"
)
_INSERT = f"INSERT INTO dead_letters ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SELECT = f"SELECT id, {_COLUMNS} FROM dead_letters"


class DeadLetter(NamedTuple):
    """One letter. `sink` is None for a message refused at the entrance, which has no event id."""

    id: int
    sink: str | None
    reason: str
    detail: str
    site: str
    topic: str
    payload: bytes
    payload_bytes: int
    sha256: bytes
    received_us: int
    event_id: bytes | None


class Refused(NamedTuple):
    """An entry that a sink refused for good."""

    entry: Entry
    reason: str
    detail: str


Row = tuple[str | None, str, str, str, str, bytes, int, bytes, int, bytes | None]


def row_of_rejection(rejection: Rejection) -> Row:
    return (
        None,
        rejection.reason,
        rejection.detail,
        rejection.site,
        rejection.topic,
        rejection.payload,
        rejection.payload_bytes,
        rejection.sha256,
        rejection.received_us,
        None,
    )


def row_of_refused(sink: str, refused: Refused) -> Row:
    reading = refused.entry.reading
    payload = payload_of(reading)
    return (
        sink,
        refused.reason,
        refused.detail,
        reading.site,
        reading.topic,
        payload,
        len(payload),
        hashlib.sha256(payload).digest(),
        reading.received_us,
        reading.event_id,
    )


def payload_of(reading: Reading) -> bytes:
    """A payload that parses to this reading: the original bytes are not kept once accepted."""
    members = {
        "site_code": reading.site,
        "sensor_id": reading.sensor_id,
        "timestamp": iso_us(reading.event_us),
        "value": reading.value,
    }
    payload = orjson.dumps(members)
    if reading.attributes is None:
        return payload
    return payload[:-1] + b"," + reading.attributes.encode()[1:]


def row_bytes(row: Row) -> int:
    return OVERHEAD + len(row[5]) + len(row[2]) + len(row[4])


def size(rejection: Rejection) -> int:
    """The bytes that it takes as a letter."""
    return row_bytes(row_of_rejection(rejection))


def stored_bytes(db: sqlite3.Connection) -> int:
    """What all letters take, by the measure of `row_bytes`."""
    found = db.execute(
        f"SELECT sum({OVERHEAD} + length(payload) + length(detail) + length(topic)) "
        "FROM dead_letters"
    ).fetchone()[0]
    return int(found or 0)


def insert(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    db.executemany(_INSERT, rows)


def waiting(db: sqlite3.Connection, limit: int) -> list[DeadLetter]:
    """The oldest letters that were not yet published to the dead-letter topic."""
    rows = db.execute(f"{SELECT} WHERE forwarded = 0 ORDER BY id LIMIT ?", (limit,))
    return [DeadLetter(*row) for row in rows]


def mark_forwarded(db: sqlite3.Connection, letters: Sequence[DeadLetter], keep: bool) -> int:
    """In a transaction: note that they were published, or let them go. Answers the bytes that
    are gone, by the measure of `row_bytes`."""
    if keep:
        db.executemany(
            "UPDATE dead_letters SET forwarded = 1 WHERE id = ?",
            [(letter.id,) for letter in letters],
        )
        return 0
    gone = 0
    for letter in letters:
        if db.execute("DELETE FROM dead_letters WHERE id = ?", (letter.id,)).rowcount:
            gone += OVERHEAD + len(letter.payload) + len(letter.detail) + len(letter.topic)
    return gone


def select(
    db: sqlite3.Connection,
    *,
    reason: str | None = None,
    site: str | None = None,
    limit: int = -1,
) -> Iterable[DeadLetter]:
    """Letters, newest first, as a stream."""
    rows = db.execute(
        f"{SELECT} WHERE (?1 IS NULL OR reason = ?1) AND (?2 IS NULL OR site = ?2) "
        "ORDER BY id DESC LIMIT ?3",
        (reason, site, limit),
    )
    return (DeadLetter(*row) for row in rows)


def find(db: sqlite3.Connection, number: int) -> DeadLetter | None:
    row = db.execute(f"{SELECT} WHERE id = ?", (number,)).fetchone()
    return None if row is None else DeadLetter(*row)
