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
ENTRANCE = "entrance"  # stands for a sink where none has refused the message
_COLUMNS = (
    "sink, reason, detail, site, topic, payload, payload_bytes, sha256, received_us, event_id"
)
_INSERT = f"INSERT INTO dead_letters ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SELECT = f"SELECT id, {_COLUMNS}, replayed_us, exported_us FROM dead_letters"
# With the fields of a `Selection` as its first five values.
SELECTED = (
    "(?1 IS NULL OR reason = ?1) AND (?2 IS NULL OR site = ?2) "
    f"AND (?3 IS NULL OR coalesce(sink, '{ENTRANCE}') = ?3) "
    "AND (?4 IS NULL OR received_us >= ?4) AND (?5 IS NULL OR received_us < ?5)"
)


class Selection(NamedTuple):
    """Which letters: all that fit what is given. sink: `ENTRANCE` for what no sink refused.
    received: from this moment on, and before that one (microseconds since 1970)."""

    reason: str | None = None
    site: str | None = None
    sink: str | None = None
    first_us: int | None = None
    before_us: int | None = None


class DeadLetter(NamedTuple):
    """One letter. `sink` is None for a message refused at the entrance, which has no event id.
    When it was replayed and exported: None while it was not."""

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
    replayed_us: int | None = None
    exported_us: int | None = None

    @property
    def row(self) -> Row:
        """What it was made of: neither its number nor what became of it."""
        return self[1:11]

    @property
    def whole(self) -> bool:
        """Whether all of its payload was kept."""
        return len(self.payload) == self.payload_bytes


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


def select(db: sqlite3.Connection, selection: Selection, limit: int = -1) -> Iterable[DeadLetter]:
    """Letters, newest first, as a stream."""
    rows = db.execute(f"{SELECT} WHERE {SELECTED} ORDER BY id DESC LIMIT ?6", (*selection, limit))
    return (DeadLetter(*row) for row in rows)


def numbers(db: sqlite3.Connection, selection: Selection, fresh: bool = False) -> list[int]:
    """Their numbers alone, the oldest first; of `fresh` ones, that were not replayed."""
    rows = db.execute(
        f"SELECT id FROM dead_letters WHERE {SELECTED} AND NOT (?6 AND replayed_us IS NOT NULL) "
        "ORDER BY id",
        (*selection, fresh),
    )
    return [number for (number,) in rows]


def find(db: sqlite3.Connection, number: int) -> DeadLetter | None:
    row = db.execute(f"{SELECT} WHERE id = ?", (number,)).fetchone()
    return None if row is None else DeadLetter(*row)


def mark_replayed(db: sqlite3.Connection, number: int, now_us: int) -> None:
    """In a transaction."""
    db.execute("UPDATE dead_letters SET replayed_us = ? WHERE id = ?", (now_us, number))


def mark_exported(db: sqlite3.Connection, some: Iterable[int], now_us: int) -> None:
    """In a transaction."""
    db.executemany(
        "UPDATE dead_letters SET exported_us = ? WHERE id = ?",
        [(now_us, number) for number in some],
    )


_GOING = (
    "FROM dead_letters WHERE id = ? AND exported_us IS NOT NULL AND (forwarded = 1 OR NOT ?) "
    "AND id NOT IN (SELECT letter FROM orders WHERE done_us IS NULL)"
)


def may_go(db: sqlite3.Connection, some: Iterable[int], forwarding: bool) -> list[int]:
    """Of these, the ones that an export has covered, for which nothing is ordered and which, if
    there is a dead-letter topic, have been published there."""
    return [
        number
        for number in some
        if db.execute(f"SELECT 1 {_GOING}", (number, forwarding)).fetchone()
    ]


def purge(db: sqlite3.Connection, some: Iterable[int], forwarding: bool) -> int:
    """In a transaction: delete those of these that may go. Answers how many."""
    return sum(db.execute(f"DELETE {_GOING}", (number, forwarding)).rowcount for number in some)
