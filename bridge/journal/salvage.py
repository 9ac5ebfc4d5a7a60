"""A journal that is damaged is set aside, never replaced in silence; what can be read of it is
taken over, and the loss is written into the new one for everybody to see."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bridge.clock import Clock
from bridge.errors import JournalDamaged
from bridge.journal import store

log = logging.getLogger(__name__)

# Larger files are checked page by page only when there is a reason: it would take too long.
QUICK_CHECK_BYTES = 512 * 1024**2
SIDE_FILES = ("-wal", "-shm")
_BY_ROWID = ("ids", "entries", "ticks", "dead_letters")
_BY_KEY = ("ledger", "reasons", "sinks", "sink_ledger", "lanes", "appends", "meta")


def open_sound(path: Path, wal_pages: int, clock: Clock) -> sqlite3.Connection:
    """Open the journal, after setting a damaged file aside as `<path>.corrupt-<UTC time>`."""
    try:
        return _open_checked(path, wal_pages)
    except JournalDamaged as error:
        aside = _set_aside(path, clock)
        log.error(
            "the journal was damaged: set aside, taking over what can be read",
            extra={"fields": {"journal": str(path), "aside": str(aside), "error": str(error)}},
        )
        db = store.connect(path, wal_pages)
        _take_over(db, aside, str(error))
        return db


def suspect(path: Path) -> None:
    """Have the next start check the whole file: a read or write found it damaged."""
    Path(f"{path}.suspect").touch()


def _open_checked(path: Path, wal_pages: int) -> sqlite3.Connection:
    marker = Path(f"{path}.suspect")
    if Path(f"{path}-wal").exists() and not path.exists():
        raise JournalDamaged("the journal is damaged: its main file is gone")
    known = path.exists()
    if known and path.stat().st_size == 0 and not Path(f"{path}-wal").exists():
        raise JournalDamaged("the journal is damaged: its file is empty")
    db = store.connect(path, wal_pages)
    if known and (marker.exists() or path.stat().st_size <= QUICK_CHECK_BYTES):
        _check(db)
    marker.unlink(missing_ok=True)
    return db


def _check(db: sqlite3.Connection) -> None:
    try:
        with store.translated():
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise JournalDamaged(f"the journal is damaged: {found}")
    except JournalDamaged:
        db.close()
        raise


def _set_aside(path: Path, clock: Clock) -> Path:
    moment = datetime.fromtimestamp(clock.now_us() / 1e6, UTC)
    aside = Path(f"{path}.corrupt-{moment:%Y%m%dT%H%M%S.%fZ}")
    for suffix in ("", *SIDE_FILES):
        source = Path(f"{path}{suffix}")
        if source.exists():
            os.replace(source, f"{aside}{suffix}")
    Path(f"{path}.suspect").unlink(missing_ok=True)
    return aside


def _take_over(db: sqlite3.Connection, aside: Path, why: str) -> None:
    source = sqlite3.connect(aside, isolation_level=None)
    try:
        with store.transaction(db):
            taken = {table: _copy(source, db, table) for table in (*_BY_ROWID, *_BY_KEY)}
            whole = db.execute(
                "DELETE FROM entries WHERE NOT EXISTS "
                "(SELECT 1 FROM ids WHERE ids.seq = entries.seq)"
            ).rowcount
            loss = (
                f"{why}; set aside as {aside.name}; taken over: "
                f"{taken['entries'] - whole} readings, {taken['dead_letters']} dead letters"
            )
            last = db.execute("SELECT coalesce(max(seq), 0) FROM ids").fetchone()[0]
            _put(db, "loss", loss)
            # What was sent of these is not known for sure: a sink that can look, looks first.
            _put(db, "verify_up_to", last)
            if taken["sinks"] == 0:
                _put(db, "join_at", 0)
    finally:
        source.close()


def _put(db: sqlite3.Connection, key: str, value: object) -> None:
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _copy(source: sqlite3.Connection, db: sqlite3.Connection, table: str) -> int:
    rows = _by_rowid(source, table) if table in _BY_ROWID else _readable(source, table, "", ())
    copied = 0
    for row in rows:
        marks = ", ".join("?" * len(row))
        copied += db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row).rowcount
    return copied


def _by_rowid(source: sqlite3.Connection, table: str) -> Iterator[tuple[object, ...]]:
    """Rows in order, leaping over what cannot be read in ever longer steps."""
    after, leap = -1, 1
    while leap < 2**40:
        for row in _readable(source, table, "WHERE rowid > ? ORDER BY rowid", (after,)):
            after, leap = int(str(row[0])), 1
            yield row
        after, leap = after + leap, leap * 2


def _readable(
    source: sqlite3.Connection, table: str, condition: str, values: tuple[int, ...]
) -> Iterator[tuple[object, ...]]:
    """Rows until the first that cannot be read."""
    try:
        yield from source.execute(f"SELECT * FROM {table} {condition}", values)
    except sqlite3.DatabaseError as error:
        log.warning(
            "part of the damaged journal cannot be read",
            extra={"fields": {"table": table, "error": str(error)}},
        )
