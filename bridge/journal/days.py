"""The ledger by day: per sink, site and UTC day of event time, how many readings were settled, and
a checksum of their ids that does not depend on their order. What `audit` compares with BigQuery.

Counted are readings that were received since the sink has this destination in this journal
(`since`): what was received before was counted elsewhere, or nowhere. Days before `floor` are not
kept, or not whole.

The functions work within the caller's transaction, `register` and the pure ones aside.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from bridge.journal import bulk
from bridge.journal.types import Settlement

DAY_US = 86_400_000_000
# Lines of a journal that is handed on: in memory at a time, and how many times that altogether,
# for a stop must not take long.
PIECE = 20_000
PIECES = 5
_MODULUS = 1 << 128
FLOOR = "days_floor"
_ADD = """
INSERT INTO days VALUES (?, ?, ?, ?, ?) ON CONFLICT (sink, site, day) DO UPDATE SET
    settled = settled + excluded.settled,
    checksum = sum_of_ids(checksum, excluded.checksum)"""
_PUT_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_PUT_PUBLISHED = "INSERT OR REPLACE INTO published VALUES (?, ?, ?)"

Line = tuple[str, str, int, int, bytes]  # sink, site, day, settled, checksum
_FIRST: Line = ("", "", 2**62, 0, b"")
Published = tuple[str, str, int]  # site, message id, when (microseconds since 1970)


class Tally(NamedTuple):
    """How many ids, and their sum as unsigned big-endian numbers modulo 2^128."""

    readings: int = 0
    checksum: int = 0

    def plus(self, other: Tally) -> Tally:
        return Tally(self.readings + other.readings, (self.checksum + other.checksum) % _MODULUS)

    def minus(self, other: Tally) -> Tally:
        return Tally(self.readings - other.readings, (self.checksum - other.checksum) % _MODULUS)


class Handed(NamedTuple):
    """What goes to another journal. since: per sink. floor: days before it are not among them."""

    lines: Sequence[Line]
    published: Sequence[Published]
    since: Mapping[str, int]
    floor: int


Deltas = dict[tuple[str, int], Tally]


def tally(ids: Sequence[bytes]) -> Tally:
    return Tally(len(ids), sum(map(int.from_bytes, ids)) % _MODULUS)


def deltas(settlements: Iterable[Settlement], since_us: int) -> Deltas:
    """What these settle, per site and day. Pure."""
    found: dict[int, dict[str, list[bytes]]] = {}
    # Neighbours are of the same day: the one before is kept at hand, for this is done for each
    # reading.
    start = end = 0
    sites: dict[str, list[bytes]] = {}
    for settlement in settlements:
        for _, (event_id, site, _, _, event_us, _, received_us, _) in settlement.settled:
            if received_us >= since_us:
                if not start <= event_us < end:
                    day = event_us // DAY_US
                    start, end = day * DAY_US, (day + 1) * DAY_US
                    sites = found.setdefault(day, defaultdict(list))
                sites[site].append(event_id)
    return {(site, day): tally(ids) for day, of in found.items() for site, ids in of.items()}


def register(db: sqlite3.Connection) -> None:
    """Once a connection, before anything is written on it."""
    db.create_function("sum_of_ids", 2, _sum_of_ids, deterministic=True)


def _sum_of_ids(one: bytes, other: bytes) -> bytes:
    return packed(int.from_bytes(one, "big") + int.from_bytes(other, "big"))


def packed(checksum: int) -> bytes:
    return (checksum % _MODULUS).to_bytes(16, "big")


# --- writing --------------------------------------------------------------------------------------


def write(
    db: sqlite3.Connection, sink: str, added: Deltas, fold: Callable[[str], str], first: int
) -> None:
    """Add to the lines of days from `first` on. `fold`: the site under which one is counted."""
    bulk.insert(
        db,
        _ADD,
        [
            (sink, fold(site), day, more.readings, packed(more.checksum))
            for (site, day), more in added.items()
            if day >= first
        ],
    )


def write_published(
    db: sqlite3.Connection,
    settlements: Iterable[Settlement],
    now_us: int,
    fold: Callable[[str], str],
) -> None:
    """Per site the last message id that was answered."""
    bulk.insert(
        db,
        _PUT_PUBLISHED,
        [(fold(one.lane), one.reference, now_us) for one in settlements if one.reference],
    )


def since_key(sink: str) -> str:
    """Under which `meta` has the time from which on a sink's readings are counted."""
    return f"days_since:{sink}"


def begin(
    db: sqlite3.Connection,
    former: Mapping[str, str],
    destinations: Mapping[str, str],
    now_us: int,
) -> dict[str, int]:
    """Count anew for each sink whose rows go elsewhere now. `former`: per active sink where they
    went. Answers since when each one counts: what has become of `meta`."""
    for sink, destination in destinations.items():
        if _place(former.get(sink)) != _place(destination):
            db.execute("DELETE FROM days WHERE sink = ?", (sink,))
            db.execute("DELETE FROM meta WHERE key = ?", (since_key(sink),))
        db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (since_key(sink), now_us))
    return {since_key(sink): since(db, sink) or 0 for sink in destinations}


def _place(destination: str | None) -> str | None:
    # "table by method": the same rows are there, whichever way they came.
    return None if destination is None else destination.partition(" by ")[0]


def forget(db: sqlite3.Connection, sinks: Iterable[str], now_us: int) -> dict[str, int]:
    """All of it is another journal's now; count anew. Answers as `begin`."""
    db.execute("DELETE FROM days")
    anew = {since_key(sink): now_us for sink in sinks}
    db.executemany(_PUT_META, list(anew.items()))
    return anew


def prune(db: sqlite3.Connection, first: int, limit: int) -> dict[str, int]:
    """Let go of up to `limit` lines of days before `first`. Answers as `begin`."""
    db.execute(
        "DELETE FROM days WHERE (sink, site, day) IN "
        "(SELECT sink, site, day FROM days WHERE day < ? ORDER BY day LIMIT ?)",
        (first, limit),
    )
    db.execute(_PUT_META, (FLOOR, first))
    return {FLOOR: first}


# --- reading --------------------------------------------------------------------------------------


def since(db: sqlite3.Connection, sink: str) -> int | None:
    """From when on (microseconds since 1970) what a sink's readings are received is counted."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (since_key(sink),)).fetchone()
    return None if row is None else int(row[0])


def floor(db: sqlite3.Connection) -> int:
    """Days before it are not kept, or not whole."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (FLOOR,)).fetchone()
    return 0 if row is None else int(row[0])


def span(db: sqlite3.Connection) -> tuple[int, int] | None:
    """The first and the last day of which there is a line."""
    first, last = db.execute(
        "SELECT (SELECT min(day) FROM days), (SELECT max(day) FROM days)"
    ).fetchone()
    return None if first is None else (first, last)


def lines(db: sqlite3.Connection, sink: str, first: int, last: int) -> dict[tuple[str, int], Tally]:
    """Per site and day, from day `first` to day `last`."""
    rows = db.execute(
        "SELECT site, day, settled, checksum FROM days WHERE day BETWEEN ? AND ? AND sink = ?",
        (first, last, sink),
    )
    return {
        (site, day): Tally(settled, int.from_bytes(checksum, "big"))
        for site, day, settled, checksum in rows
    }


def published(db: sqlite3.Connection) -> list[Published]:
    return db.execute("SELECT * FROM published ORDER BY site").fetchall()


# --- handing on -----------------------------------------------------------------------------------


def handed(db: sqlite3.Connection, sinks: Iterable[str], after: Line | None, last: bool) -> Handed:
    """A piece of it, the newest days first: what follows the line `after`. With `last` no other
    piece comes: if this one is full, only days that are whole are in it."""
    sink, site, day = (after or _FIRST)[:3]
    found: list[Line] = db.execute(
        "SELECT * FROM days WHERE (day, sink, site) < (?, ?, ?) "
        "ORDER BY day DESC, sink DESC, site DESC LIMIT ?",
        (day, sink, site, PIECE),
    ).fetchall()
    first = floor(db)
    if last and len(found) == PIECE:
        first = found[-1][2] + 1
        found = [line for line in found if line[2] >= first]
    begun = {sink: moment for sink in sinks if (moment := since(db, sink)) is not None}
    return Handed(found, published(db), begun, first)


def take_over(db: sqlite3.Connection, given: Handed) -> dict[str, int]:
    """Go on with what another journal has counted. Answers as `begin`."""
    db.executemany(_ADD, given.lines)
    db.executemany("INSERT OR IGNORE INTO published VALUES (?, ?, ?)", given.published)
    changed = {FLOOR: max(floor(db), given.floor)}
    for sink, moment in given.since.items():
        changed[since_key(sink)] = min(moment, since(db, sink) or moment)
    db.executemany(_PUT_META, list(changed.items()))
    return changed
