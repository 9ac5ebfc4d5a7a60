"""What one journal hands to another: entries, ids and letters, as they go in and out of the file.

The functions work within the caller's transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bridge.journal import days, letters, orders, store
from bridge.journal.types import Resume
from bridge.reading import Again, Entry, Reading


class Handed(NamedTuple):
    """What comes with a predecessor's readings.

    note: made of the first and last sequence number that the readings get (the last is one less
        than the first where there are none): a key and value of `meta`, written in the same
        transaction, so that the same part is never taken in twice.
    ids: event times and event ids by which redelivered readings are recognised.
    letters: rows of dead letters, kept but not counted again.
    streams: on which the readings may have been appended by others.
    again: readings that one sink alone is to get, with its name: it refused them once.
    days: the ledger by day, to be gone on with.
    """

    note: Callable[[int, int], tuple[str, str]]
    ids: Sequence[tuple[int, bytes]] = ()
    letters: Sequence[letters.Row] = ()
    streams: Sequence[str] = ()
    again: Sequence[tuple[str, Reading]] = ()
    days: days.Handed | None = None

    @property
    def before(self) -> int:
        """How many sequence numbers it takes before those of the readings."""
        return len(self.ids) + len(self.again)


FOREIGN = "foreign_streams"
_UNHANDLED = "forwarded = 0 AND replayed_us IS NULL"


def insert(db: sqlite3.Connection, handed: Handed, first: int, last: int) -> dict[str, Any]:
    """Everything but the readings, which get the sequence numbers from `first` to `last`; ids and
    what one sink alone is to get have those before. Answers what has become of `meta`."""
    db.executemany(
        "INSERT OR IGNORE INTO ids VALUES (?, ?, ?)",
        [(seq, *known) for seq, known in enumerate(handed.ids, first - handed.before)],
    )
    first -= len(handed.again)
    for seq, (sink, reading) in enumerate(handed.again, first):
        orders.insert(db, Again(seq, reading, sink))
        _count_again(db, sink, reading.site)
    letters.insert(db, handed.letters)
    # A sink that can look whether it has one already is to look before it writes it.
    meta = dict([handed.note(first, last), ("verify_up_to", last)])
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(meta.items()))
    _note_foreign(db, handed.streams)
    if handed.days is not None:
        meta |= days.take_over(db, handed.days)
    return meta


def _count_again(db: sqlite3.Connection, sink: str, site: str) -> None:
    """As a reading that was accepted, and of which the other sinks get nothing."""
    db.execute(
        "INSERT INTO ledger VALUES (?, 1, 1, 0, 0) ON CONFLICT (site) "
        "DO UPDATE SET received = received + 1, accepted = accepted + 1",
        (site,),
    )
    db.execute(
        "INSERT INTO sink_ledger SELECT name, ?, 0, 0, 1 FROM sinks WHERE active = 1 AND name <> ? "
        "ON CONFLICT (sink, site) DO UPDATE SET skipped = skipped + 1",
        (site, sink),
    )


def _note_foreign(db: sqlite3.Connection, streams: Sequence[str]) -> None:
    if streams:
        names = json.dumps(sorted({*foreign_streams(db), *streams}))
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (FOREIGN, names))


def new_letters(db: sqlite3.Connection, rows: Sequence[letters.Row]) -> list[letters.Row]:
    """Those that are not here yet: a record may have been handed on twice."""
    known = _letters_like(db, rows, "true")
    return [row for row in rows if _identity(row) not in known]


def letters_left(db: sqlite3.Connection, rows: Sequence[letters.Row]) -> list[letters.Row]:
    """Those that are still here for somebody to deal with, as `letters_after` has them."""
    left = _letters_like(db, rows, _UNHANDLED)
    return [row for row in rows if _identity(row) in left]


def _letters_like(
    db: sqlite3.Connection, rows: Sequence[letters.Row], condition: str
) -> set[tuple[object, ...]]:
    times = [row[8] for row in rows]
    found = db.execute(
        "SELECT sink, topic, sha256, received_us FROM dead_letters "
        f"WHERE received_us BETWEEN ? AND ? AND {condition}",
        (min(times, default=0), max(times, default=0)),
    )
    return set(found)


def _identity(row: letters.Row) -> tuple[object, ...]:
    return row[0], row[4], row[7], row[8]


def foreign_streams(db: sqlite3.Connection) -> list[str]:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (FOREIGN,)).fetchone()
    return [] if row is None else list(json.loads(row[0]))


class Open:
    """Which entries a sink that is as far as `resume` says has still to resolve."""

    def __init__(self, sink: str, resume: Resume) -> None:
        self._sink = sink
        self._position = resume.position
        self._lanes = {
            key: (lane.position, frozenset(lane.beyond)) for key, lane in resume.lanes.items()
        }

    def __contains__(self, entry: Entry) -> bool:
        # A lane is a site, or the whole sink: the two kinds of order there are.
        return (
            entry.seq > self._position
            and not (isinstance(entry, Again) and entry.sink != self._sink)
            and not self._resolved("", entry.seq)
            and not self._resolved(entry.reading.site, entry.seq)
        )

    def _resolved(self, lane: str, seq: int) -> bool:
        position, beyond = self._lanes.get(lane, (0, frozenset()))
        return seq <= position or seq in beyond


def known_ids(
    db: sqlite3.Connection, after: int, last: int, count: int
) -> list[tuple[int, int, bytes]]:
    """The newest `count` of those after number `after` and up to `last`."""
    rows = db.execute(
        "SELECT seq, event_us, event_id FROM ids WHERE seq > ? AND seq <= ? "
        "ORDER BY seq DESC LIMIT ?",
        (after, last, count),
    )
    return rows.fetchall()[::-1]


def letters_after(db: sqlite3.Connection, number: int, limit: int) -> list[letters.DeadLetter]:
    """Letters that are nowhere else yet and were not replayed, from the one after `number` on."""
    rows = db.execute(
        f"{letters.SELECT} WHERE id > ? AND {_UNHANDLED} ORDER BY id LIMIT ?",
        (number, limit),
    )
    return [letters.DeadLetter(*row) for row in rows]


def skip(db: sqlite3.Connection, pending: Mapping[str, Iterable[Entry]]) -> None:
    """Per sink: count these as skipped."""
    for sink, entries in pending.items():
        sites = Counter(entry.reading.site for entry in entries)
        db.executemany(
            "INSERT INTO sink_ledger VALUES (?, ?, 0, 0, ?) ON CONFLICT (sink, site) "
            "DO UPDATE SET skipped = skipped + excluded.skipped",
            [(sink, site, count) for site, count in sites.items()],
        )


def forget(db: sqlite3.Connection, first: int, last: int) -> None:
    """Let go of entries that are another journal's now. Their ids stay: sent again by the broker,
    they are duplicates. An append that some of them were in is left to a look-up in the table."""
    db.execute("DELETE FROM entries WHERE seq BETWEEN ? AND ?", (first, last))
    for sink, stream, packed in db.execute("SELECT sink, stream, seqs FROM appends").fetchall():
        seqs = store.unpacked(packed)
        rest = [seq for seq in seqs if not first <= seq <= last]
        if len(rest) < len(seqs):
            db.execute(
                "UPDATE appends SET stream = '', position = 0, seqs = ? WHERE sink = ?",
                (store.packed(rest), sink),
            )
            _note_foreign(db, [stream] if stream else [])
