"""The journal's file: connection, schema, migrations, and the lock against a second `run`."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bridge.errors import (
    ConfigurationError,
    JournalDamaged,
    JournalError,
    JournalLocked,
    JournalNewer,
)

SCHEMA_VERSION = 1

SCHEMA = """
-- Ids of accepted readings. The index begins with the event time, not with the (random) id, so
-- that live readings land on neighbouring pages: a duplicate has the same event time anyway.
CREATE TABLE ids (
    seq INTEGER PRIMARY KEY, event_us INTEGER NOT NULL, event_id BLOB NOT NULL);
CREATE UNIQUE INDEX ids_unique ON ids (event_us, event_id);
-- What a sink needs beside the id. Apart from `ids`, so that payloads can go first.
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, site TEXT NOT NULL, pi_tag TEXT NOT NULL, sensor_id TEXT NOT NULL,
    value REAL NOT NULL, received_us INTEGER NOT NULL, attributes TEXT);
-- Running time (microseconds the daemon has run on this journal) at which a sequence was the last.
CREATE TABLE ticks (running_us INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE ledger (
    site TEXT PRIMARY KEY, received INTEGER NOT NULL, accepted INTEGER NOT NULL,
    duplicates INTEGER NOT NULL, rejected INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE reasons (reason TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
-- position: every entry up to it is resolved for this sink.
CREATE TABLE sinks (
    name TEXT PRIMARY KEY, destination TEXT NOT NULL, active INTEGER NOT NULL,
    position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE sink_ledger (
    sink TEXT NOT NULL, site TEXT NOT NULL, settled INTEGER NOT NULL,
    dead_lettered INTEGER NOT NULL, skipped INTEGER NOT NULL,
    PRIMARY KEY (sink, site)) WITHOUT ROWID;
-- Lanes that are ahead of their sink's position; beyond: packed int64 of seqs resolved past it.
CREATE TABLE lanes (
    sink TEXT NOT NULL, lane TEXT NOT NULL, position INTEGER NOT NULL, beyond BLOB NOT NULL,
    PRIMARY KEY (sink, lane)) WITHOUT ROWID;
-- The last append of a sink that counts offsets: where, and which entries in which order.
CREATE TABLE appends (
    sink TEXT PRIMARY KEY, stream TEXT NOT NULL, position INTEGER NOT NULL, seqs BLOB NOT NULL)
    WITHOUT ROWID;
-- sink: NULL for a message refused at the entrance. forwarded: published to the dead-letter topic.
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT, reason TEXT NOT NULL, detail TEXT NOT NULL,
    site TEXT NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL, payload_bytes INTEGER NOT NULL,
    sha256 BLOB NOT NULL, received_us INTEGER NOT NULL, event_id BLOB,
    forwarded INTEGER NOT NULL DEFAULT 0);
CREATE INDEX dead_letters_waiting ON dead_letters (id) WHERE forwarded = 0;
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""

# One entry a version: the statements that lead from the version before to it.
MIGRATIONS: dict[int, str] = {1: SCHEMA}


class Lock:
    """The right to run on a journal: an advisory lock on `<path>.lock`, gone with the process."""

    def __init__(self, path: Path) -> None:
        self._path = Path(f"{path}.lock")
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock. Raises JournalLocked naming the holder's process id; does not wait."""
        file = open(self._path, "a+", encoding="ascii")  # noqa: SIM115 - held until release
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise JournalLocked(
                f"the journal {self._path.with_suffix('')} is in use by another run, "
                f"process id {holder}: stop that one, or set another JOURNAL_PATH"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    @property
    def held(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


def prepare_folder(path: Path) -> None:
    """Make the journal's folder. Raises ConfigurationError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise _unusable(path, "not a file in a folder that can be written")


def _unusable(path: Path, why: object) -> ConfigurationError:
    return ConfigurationError(
        f"JOURNAL_PATH={str(path)!r}: {why}. "
        "Remedy: set a path in a folder that the bridge may write."
    )


def connect(path: Path, wal_pages: int) -> sqlite3.Connection:
    """The one writing connection. Raises JournalDamaged, JournalNewer or JournalError."""
    with translated():
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {wal_pages}")
        db.execute(f"PRAGMA journal_size_limit = {wal_pages * 4096}")
        db.execute("PRAGMA cache_size = -8192")
        _migrate(db, path)
    return db


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads, beside a running daemon."""
    with translated():
        if not path.exists():
            raise JournalError(f"there is no journal at {path}")
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        db.execute("PRAGMA query_only = ON")
        _refuse_newer(db, path)
    return db


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _refuse_newer(db: sqlite3.Connection, path: Path) -> None:
    if _version(db) > SCHEMA_VERSION:
        raise JournalNewer(
            f"the journal {path} was written by a newer version of the bridge (schema "
            f"{_version(db)}, this one knows {SCHEMA_VERSION}): run that version, or let it drain "
            "the journal and start this one on a new JOURNAL_PATH"
        )


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    _refuse_newer(db, path)
    for version in range(_version(db) + 1, SCHEMA_VERSION + 1):
        db.executescript(
            f"BEGIN IMMEDIATE; {MIGRATIONS[version]} PRAGMA user_version = {version}; COMMIT;"
        )


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors as the bridge's: damage apart from what may pass (a full disk)."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise JournalError(f"the journal could not be used: {error}") from error
    except sqlite3.DatabaseError as error:
        raise JournalDamaged(f"the journal is damaged: {error}") from error


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, on disk when it is left. Raises JournalError, JournalDamaged."""
    with translated():
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
