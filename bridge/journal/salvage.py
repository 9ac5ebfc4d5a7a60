"""A journal that is damaged is set aside, never replaced in silence; what can be read of it is
taken over, and the loss is written into the new one for everybody to see.

The order of things, so that a kill between any two of them loses nothing:

    1. what can be read is copied into `<path>.salvaging`     (a rest of it is thrown away)
    2. which becomes `<path>.salvaged-<UTC time>` when it is whole
    3. the damaged file, its log first, becomes `<path>.corrupt-<UTC time>`
    4. the new one takes its place                            (3 and 4 are made up for at a start)
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bridge.clock import Clock
from bridge.errors import JournalDamaged
from bridge.journal import store
from bridge.reading import Again, Entry, Reading, event_id
from bridge.times import from_us

log = logging.getLogger(__name__)

# Larger files are checked page by page only when there is a reason: it would take too long.
QUICK_CHECK_BYTES = 512 * 1024**2
SIDE_FILES = ("-shm", "-wal", "-journal")
ENTRY = """
SELECT e.seq, coalesce(i.event_id, a.event_id), e.site, e.pi_tag, e.sensor_id,
       coalesce(i.event_us, a.event_us), e.value, e.received_us, e.attributes, a.sink
       FROM entries e LEFT JOIN ids i ON i.seq = e.seq LEFT JOIN again a ON a.seq = e.seq"""
_Row = tuple[object, ...]
_BY_ROWID = ("ids", "entries", "again", "ticks", "dead_letters")
# Orders are not taken over: whether one was carried out is in doubt, and who gave it can look.
_KEYS = {
    "ledger": ("site",),
    "reasons": ("reason",),
    "sinks": ("name",),
    "sink_ledger": ("sink", "site"),
    "lanes": ("sink", "lane"),
    "appends": ("sink",),
    "days": ("sink", "site", "day"),
    "published": ("site",),
    "meta": ("key",),
    "replayed": ("sink", "site"),
    "retried": ("sink",),
}


def entry_of(row: tuple[Any, ...]) -> Entry:
    """What a row of `ENTRY` says."""
    seq, *columns, sink = row
    reading = Reading._make(columns)
    return Entry(seq, reading) if sink is None else Again(seq, reading, sink)


def open_sound(path: Path, wal_pages: int, clock: Clock) -> sqlite3.Connection:
    """Open the journal, or make a new one; a damaged one is recovered first."""
    _finish(path)
    if not path.exists() and not _side(path, "-wal").exists():
        _make_new(path)
    try:
        return _open_checked(path, wal_pages)
    except JournalDamaged as error:
        return recover(path, wal_pages, clock, str(error))


def recover(path: Path, wal_pages: int, clock: Clock, why: str) -> sqlite3.Connection:
    """Set the journal's file, which nobody has open, aside as `<path>.corrupt-<UTC time>`, and
    open a new one with what could be read of it."""
    stamp = _unused_stamp(path, clock.now_us())
    log.error(
        "the journal is damaged: it is set aside, and what can be read is taken over. Keep the "
        "file named in `aside`, and see docs/operations.md",
        extra={"fields": {"journal": str(path), "aside": _aside(path, stamp).name, "error": why}},
    )
    salvaging = Path(f"{path}.salvaging")
    _remove(salvaging)
    source = _lent_schema(path) if _is_empty(path) else path
    db = store.create(salvaging)
    try:
        _take_over(db, source, f"{why}; set aside as {_aside(path, stamp).name}")
    finally:
        db.close()
        _remove(Path(f"{path}.lent"))
    _move(salvaging, Path(f"{path}.salvaged-{stamp}"))
    _finish(path)
    return store.connect(path, wal_pages)


def clear_loss(path: Path) -> bool:
    """An operator has seen the loss: show it no longer. Beside a running daemon or without one;
    answers whether there was any. Raises JournalError."""
    db = store.connect_writer_beside(path)
    try:
        with store.transaction(db):
            return db.execute("DELETE FROM meta WHERE key = 'loss'").rowcount > 0
    finally:
        db.close()


def suspect(path: Path) -> None:
    """Have the next start check the whole file: a read or write found it damaged."""
    Path(f"{path}.suspect").touch()


# --- files ----------------------------------------------------------------------------------------


def _finish(path: Path) -> None:
    """The last steps of a recovery, also of one that was interrupted."""
    prefix = f"{path.name}.salvaged-"
    for salvaged in [file for file in path.parent.iterdir() if file.name.startswith(prefix)]:
        aside = _aside(path, salvaged.name.rpartition("-")[2])
        for suffix in (*SIDE_FILES, ""):
            if _side(path, suffix).exists():
                _move(_side(path, suffix), _side(aside, suffix))
        Path(f"{path}.suspect").unlink(missing_ok=True)
        _move(salvaged, path)


def _unused_stamp(path: Path, now_us: int) -> str:
    stamp = f"{from_us(now_us):%Y%m%dT%H%M%S.%fZ}"
    taken = any(_side(_aside(path, stamp), suffix).exists() for suffix in ("", *SIDE_FILES))
    return _unused_stamp(path, now_us + 1) if taken else stamp


def _aside(path: Path, stamp: str) -> Path:
    return Path(f"{path}.corrupt-{stamp}")


def _side(path: Path, suffix: str) -> Path:
    return Path(f"{path}{suffix}")


def _make_new(path: Path) -> None:
    new = Path(f"{path}.new")
    _remove(new)
    store.create(new).close()
    _move(new, path)


def _lent_schema(path: Path) -> Path:
    """Of a journal whose main file is gone or empty, the log may still be there. SQLite would
    throw it away; so a copy of it is read on top of a new file, which has the same schema."""
    lent = Path(f"{path}.lent")
    _remove(lent)
    store.create(lent).close()
    if _side(path, "-wal").exists():
        shutil.copyfile(_side(path, "-wal"), _side(lent, "-wal"))
    return lent


def _is_empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _remove(path: Path) -> None:
    for suffix in ("", *SIDE_FILES):
        _side(path, suffix).unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    """On disk when it returns: the order of the moves is what a later start relies on."""
    os.replace(source, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# --- checks ---------------------------------------------------------------------------------------


def _open_checked(path: Path, wal_pages: int) -> sqlite3.Connection:
    if not path.exists():
        raise JournalDamaged("the journal is damaged: its main file is gone")
    if _is_empty(path):
        raise JournalDamaged("the journal is damaged: its file is empty")
    marker = Path(f"{path}.suspect")
    # Read-only, so that what is found damaged is set aside as it is, its log beside it.
    db = store.connect_read_only(path)
    try:
        _check(db, path.stat().st_size, marker.exists())
    finally:
        db.close()
    db = store.connect(path, wal_pages)
    marker.unlink(missing_ok=True)
    return db


def _check(db: sqlite3.Connection, size: int, suspected: bool) -> None:
    """Raises JournalDamaged. A suspected file is checked to the last byte that counts: indexes,
    and every reading against its identity."""
    with store.translated(), store.refusal_is_damage():
        _check_tables(db)
        check = "integrity_check" if suspected else "quick_check"
        if suspected or size <= QUICK_CHECK_BYTES:
            found = db.execute(f"PRAGMA {check}(1)").fetchone()[0]
            if found != "ok":
                raise JournalDamaged(f"the journal is damaged: {found}")
        if store.version(db) < store.ACTING_SINCE:
            db.execute("CREATE TEMP TABLE again (seq, sink, event_us, event_id)")
        if suspected and any(True for _ in _falsified(db)):
            raise JournalDamaged("the journal is damaged: a reading is not what its identity says")


def _check_tables(db: sqlite3.Connection) -> None:
    version = store.version(db)
    if version == 0:
        raise JournalDamaged("the journal is damaged: it has no version")
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
    if missing := store.tables_of(version) - tables:
        raise JournalDamaged(f"the journal is damaged: it has no {', '.join(sorted(missing))}")


def _falsified(db: sqlite3.Connection) -> Iterator[int]:
    """Entries whose content is not what was hashed when they came."""
    for entry in map(entry_of, db.execute(ENTRY)):
        if event_id(entry.reading) != entry.reading.event_id:
            yield entry.seq


# --- content --------------------------------------------------------------------------------------


def _take_over(db: sqlite3.Connection, damaged: Path, why: str) -> None:
    source = store.read_only(damaged)
    try:
        with store.transaction(db):
            taken = {table: _copy(source, db, table) for table in (*_BY_ROWID, *_KEYS)}
            readings = taken["entries"] - _drop_unsound(db)
            loss = f"{why}; taken over: {readings} readings, {taken['dead_letters']} dead letters"
            _put(db, "loss", loss)
            _put(db, "salvaged", why)  # stays: what an audit finds later may come from it
            # What was sent of these is not known for sure: a sink that can look, looks first.
            last = db.execute("SELECT coalesce(max(seq), 0) FROM ids").fetchone()[0]
            _put(db, "verify_up_to", last)
            # Nor is what comes now, until the broker has sent all that it may send again: the ids
            # to recognise it by may be among what was lost.
            _put(db, "verify_more", 1)
            _put(db, "unbalanced", 1)
            if taken["sinks"] == 0:
                _put(db, "join_at", 0)
    finally:
        source.close()


def _drop_unsound(db: sqlite3.Connection) -> int:
    """Take out again what is not whole, or not what it was. Answers how many entries that were.
    An append can only be sent again as it was: without all of its entries it is none."""
    whole = db.execute(
        "DELETE FROM entries WHERE NOT EXISTS (SELECT 1 FROM ids WHERE ids.seq = entries.seq) "
        "AND NOT EXISTS (SELECT 1 FROM again WHERE again.seq = entries.seq)"
    ).rowcount
    falsified = [(seq,) for seq in _falsified(db)]
    for table in ("entries", "ids", "again"):
        db.executemany(f"DELETE FROM {table} WHERE seq = ?", falsified)
    db.execute("DELETE FROM lanes WHERE length(beyond) % 8 <> 0")
    db.execute("DELETE FROM appends WHERE length(seqs) % 8 <> 0 OR length(seqs) = 0")
    for sink, seqs in db.execute("SELECT sink, seqs FROM appends").fetchall():
        if not all(_has_entry(db, seq) for seq in store.unpacked(seqs)):
            db.execute("DELETE FROM appends WHERE sink = ?", (sink,))
    return int(whole) + len(falsified)


def _has_entry(db: sqlite3.Connection, seq: int) -> bool:
    return db.execute("SELECT 1 FROM entries WHERE seq = ?", (seq,)).fetchone() is not None


def _put(db: sqlite3.Connection, key: str, value: object) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _copy(source: sqlite3.Connection, db: sqlite3.Connection, table: str) -> int:
    rows = _by_rowid(source, table) if table in _BY_ROWID else _by_key(source, table)
    names = [column[0] for column in db.execute(f"SELECT * FROM {table} LIMIT 0").description]
    copied = 0
    for row in rows:
        if len(row) <= len(names):  # an older version has fewer
            columns, marks = ", ".join(names[: len(row)]), ", ".join("?" * len(row))
            statement = f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})"
            copied += _inserted(db, statement, row)
    return copied


def _inserted(db: sqlite3.Connection, statement: str, row: _Row) -> int:
    try:
        return db.execute(statement, row).rowcount
    except sqlite3.IntegrityError:
        return 0  # a value of a wrong type: the loss counts what was taken over


def _by_rowid(source: sqlite3.Connection, table: str) -> Iterator[_Row]:
    """Every row that can be read: leaping over what cannot in ever longer steps, and going back
    over what a leap passed by."""
    after, leap = -1, 1
    while leap < 2**40:
        first = True
        for row in _ahead(source, table, after):
            number = int(str(row[0]))
            if first and leap > 1:
                yield from _back(source, table, after - leap // 2, number)
            first = False
            yield row
            if number > after:  # or else the numbers themselves are damaged: no going back
                after, leap = number, 1
        after, leap = after + leap, leap * 2


def _ahead(source: sqlite3.Connection, table: str, after: int) -> Iterator[_Row]:
    query = f"SELECT * FROM {table} WHERE rowid > ? ORDER BY rowid"
    for row in _readable(source, query, after):
        after = int(str(row[0]))
        yield row
    yield from _readable(source, f"{query} LIMIT 1", after)


def _back(source: sqlite3.Connection, table: str, after: int, before: int) -> Iterator[_Row]:
    query = f"SELECT * FROM {table} WHERE rowid > ? AND rowid < ? ORDER BY rowid DESC"
    for row in _readable(source, query, after, before):
        before = int(str(row[0]))
        yield row
    yield from _readable(source, f"{query} LIMIT 1", after, before)


def _by_key(source: sqlite3.Connection, table: str) -> Iterator[_Row]:
    """Rows from both ends, each up to the first that cannot be read."""
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{key} {direction}" for key in _KEYS[table])
        query = f"SELECT * FROM {table} ORDER BY {order}"
        count = 0
        for row in _readable(source, query):
            count += 1
            yield row
        yield from _readable(source, f"{query} LIMIT 1 OFFSET ?", count)


def _readable(source: sqlite3.Connection, query: str, *values: int) -> Iterator[_Row]:
    """Rows until the first that cannot be read. The one just before it is missing as well:
    Python's module steps on before it hands out a row. Asked for alone, it comes."""
    try:
        yield from source.execute(query, values)
    except sqlite3.DatabaseError as error:
        log.debug(
            "a part of the damaged journal cannot be read: it is left out",
            extra={"fields": {"query": query, "error": str(error)}},
        )
