"""The journal's file: connection, schema, migrations, and the lock against a second `run`."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bridge.errors import (
    ConfigurationError,
    JournalDamaged,
    JournalError,
    JournalLocked,
    JournalNewer,
)

SCHEMA_VERSION = 3
MOST = 2**63 - 1  # what SQLite's integers can be
ACTING_SINCE = 2  # the version that knows orders, and entries for one sink alone

SCHEMA = """
-- STRICT, so that the check of a doubtful file also finds values of a wrong type.
-- Ids of accepted readings. The index begins with the event time, not with the (random) id, so
-- that live readings land on neighbouring pages: a duplicate has the same event time anyway.
CREATE TABLE ids (
    seq INTEGER PRIMARY KEY, event_us INTEGER NOT NULL, event_id BLOB NOT NULL)
    STRICT;
CREATE UNIQUE INDEX ids_unique ON ids (event_us, event_id);
-- What a sink needs beside the id. Apart from `ids`, so that payloads can go first.
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, site TEXT NOT NULL, pi_tag TEXT NOT NULL, sensor_id TEXT NOT NULL,
    value REAL NOT NULL, received_us INTEGER NOT NULL, attributes TEXT) STRICT;
-- Running time (microseconds the daemon has run on this journal) at which a sequence was the last.
CREATE TABLE ticks (running_us INTEGER PRIMARY KEY, seq INTEGER NOT NULL) STRICT;
CREATE TABLE ledger (
    site TEXT PRIMARY KEY, received INTEGER NOT NULL, accepted INTEGER NOT NULL,
    duplicates INTEGER NOT NULL, rejected INTEGER NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE reasons (reason TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID, STRICT;
-- position: every entry up to it is resolved for this sink.
CREATE TABLE sinks (
    name TEXT PRIMARY KEY, destination TEXT NOT NULL, active INTEGER NOT NULL,
    position INTEGER NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE sink_ledger (
    sink TEXT NOT NULL, site TEXT NOT NULL, settled INTEGER NOT NULL,
    dead_lettered INTEGER NOT NULL, skipped INTEGER NOT NULL,
    PRIMARY KEY (sink, site)) WITHOUT ROWID, STRICT;
-- Lanes that are ahead of their sink's position; beyond: packed int64 of seqs resolved past it.
CREATE TABLE lanes (
    sink TEXT NOT NULL, lane TEXT NOT NULL, position INTEGER NOT NULL, beyond BLOB NOT NULL,
    PRIMARY KEY (sink, lane)) WITHOUT ROWID, STRICT;
-- The last append of a sink that counts offsets: where, and which entries in which order.
CREATE TABLE appends (
    sink TEXT PRIMARY KEY, stream TEXT NOT NULL, position INTEGER NOT NULL, seqs BLOB NOT NULL)
    WITHOUT ROWID, STRICT;
-- sink: NULL for a message refused at the entrance. forwarded: published to the dead-letter topic.
CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, sink TEXT, reason TEXT NOT NULL, detail TEXT NOT NULL,
    site TEXT NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL, payload_bytes INTEGER NOT NULL,
    sha256 BLOB NOT NULL, received_us INTEGER NOT NULL, event_id BLOB,
    forwarded INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX dead_letters_waiting ON dead_letters (id) WHERE forwarded = 0;
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) WITHOUT ROWID, STRICT;
"""

ACTING = """
-- What an operator's command asks of whoever runs on the journal. done_us: NULL while it waits.
CREATE TABLE orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT, letter INTEGER NOT NULL, topic TEXT, payload BLOB,
    force INTEGER NOT NULL, ordered_us INTEGER NOT NULL, done_us INTEGER, outcome TEXT, detail TEXT)
    STRICT;
CREATE INDEX orders_due ON orders (id) WHERE done_us IS NULL;
-- Entries that one sink alone is to get, which refused them once. Their identity is here as well:
-- `ids` may hold it under the number that they came with.
CREATE TABLE again (
    seq INTEGER PRIMARY KEY, sink TEXT NOT NULL, event_us INTEGER NOT NULL, event_id BLOB NOT NULL)
    STRICT;
-- Sent once more by `replay`, outside the balance.
CREATE TABLE replayed (
    sink TEXT NOT NULL, site TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (sink, site))
    WITHOUT ROWID, STRICT;
-- How many went back from dead-lettered to pending: a counter of the former must never go down.
CREATE TABLE retried (sink TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID, STRICT;
-- Columns are only ever added at the end: a damaged file of an older version is taken over by it.
ALTER TABLE dead_letters ADD COLUMN replayed_us INTEGER;
ALTER TABLE dead_letters ADD COLUMN exported_us INTEGER;
"""

DAYS = """
-- Of readings that were settled: how many, and the sum of their ids modulo 2^128 (16 bytes,
-- big-endian). day: of the event time, in days since 1970.
CREATE TABLE days (
    sink TEXT NOT NULL, site TEXT NOT NULL, day INTEGER NOT NULL, settled INTEGER NOT NULL,
    checksum BLOB NOT NULL, PRIMARY KEY (sink, site, day)) WITHOUT ROWID, STRICT;
CREATE INDEX days_by_day ON days (day);
-- The last message id that Pub/Sub has answered with.
CREATE TABLE published (
    site TEXT PRIMARY KEY, message_id TEXT NOT NULL, published_us INTEGER NOT NULL)
    WITHOUT ROWID, STRICT;
"""

# One entry a version: the statements that lead from the version before to it.
MIGRATIONS: dict[int, str] = {1: SCHEMA, 2: ACTING, 3: DAYS}


IN_USE = (
    "the journal {journal} is in use by another run, process id {holder}: "
    "stop that one, or set another JOURNAL_PATH"
)


class Lock:
    """The right to run on a journal: an advisory lock on `<path>.lock`, gone with the process.
    Or another right, with a file `name` and words of its own for when somebody has it."""

    def __init__(self, path: Path, name: str = "lock", busy: str = IN_USE) -> None:
        self._journal = path
        self._path = Path(f"{path}.{name}")
        self._busy = busy
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock; does not wait. Raises JournalLocked naming the holder's process id,
        ConfigurationError where a lock cannot be had at all."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _unusable(self._journal, error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(file, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(file)
            if not isinstance(error, BlockingIOError):
                raise _unusable(self._journal, error) from error
            raise JournalLocked(self._busy.format(journal=self._journal, holder=holder)) from None
        self._file = file
        # The number only serves a message: a full disk must not keep the bridge from starting.
        with suppress(OSError):
            os.pwrite(file, f"{os.getpid():<20}".encode("ascii"), 0)

    @property
    def held(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def prepare_folder(path: Path) -> None:
    """Make the journal's folder. Raises ConfigurationError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise _unusable(path, "not a file in a folder that can be written")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise _unusable(path, "a file that cannot be read and written")


def _unusable(path: Path, why: object) -> ConfigurationError:
    return ConfigurationError(
        f"JOURNAL_PATH={str(path)!r}: {why}. "
        "Remedy: set a path in a folder that the bridge may write."
    )


def connect(path: Path, wal_pages: int) -> sqlite3.Connection:
    """The one writing connection. Raises JournalDamaged, JournalNewer or JournalError."""
    with _opened(path) as db, refusal_is_damage():
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {wal_pages}")
        db.execute(f"PRAGMA journal_size_limit = {wal_pages * 4096}")
        db.execute("PRAGMA cache_size = -8192")
        _migrate(db, path)
        # Whether it can be written is told here and not by the first append.
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("ROLLBACK")
    return db


def create(path: Path) -> sqlite3.Connection:
    """A new journal that nobody uses yet, all of it in the one file. To be moved into its place
    when it is whole, so that a file in that place is never half made."""
    with _opened(path) as db:
        db.execute("PRAGMA synchronous = FULL")
        _migrate(db, path)
    return db


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads, beside a running daemon. Raises JournalDamaged, JournalNewer
    or JournalError."""
    if not path.exists():
        raise JournalError(f"there is no journal at {path}")
    with _opened(path) as db:
        db.execute("PRAGMA query_only = ON")
        _refuse_newer(db, path)
        _refuse_older(db, path)
    return db


def connect_writer_beside(path: Path) -> sqlite3.Connection:
    """A connection for a command's own short transactions, beside a running daemon. Raises as
    `connect_reader`."""
    db = connect_reader(path)
    db.execute("PRAGMA query_only = OFF")
    return db


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, not even the log. Raises JournalDamaged, JournalNewer
    or JournalError."""
    with translated():
        db = read_only(path)
        try:
            _refuse_newer(db, path)
        except BaseException:
            db.close()
            raise
    return db


def read_only(path: Path) -> sqlite3.Connection:
    """The file as it is, whatever it is."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", isolation_level=None, uri=True)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that is closed again when setting it up fails: were it left to the garbage
    collector, it would delete the log of the file that has taken the damaged one's place."""
    with translated():
        db = sqlite3.connect(
            path.absolute(), isolation_level=None, check_same_thread=False, timeout=30
        )
        try:
            yield db
        except BaseException:
            db.close()
            raise


@contextmanager
def refusal_is_damage() -> Iterator[None]:
    """A file that SQLite will not work with although the disk would let it was not written by
    us like that: a schema that does not fit, a format it does not know."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if _primary(error) in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY):
            raise JournalDamaged(f"the journal is damaged: {error}") from error
        raise


def changes_of_others(db: sqlite3.Connection) -> int:
    """A number that is another one after another connection's commit."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])


def checkpoint(db: sqlite3.Connection) -> None:
    """Bring the log into the main file and cut it to nothing, as far as that can be done now."""
    with translated():
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def version(db: sqlite3.Connection) -> int:
    """Of the schema; 0 for a file that was never made a journal."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def tables_of(version: int) -> set[str]:
    """The tables that a journal of this version has."""
    steps = "".join(MIGRATIONS[step] for step in range(1, version + 1) if step in MIGRATIONS)
    return set(re.findall(r"CREATE TABLE (\w+)", steps))


def _refuse_newer(db: sqlite3.Connection, path: Path) -> None:
    if version(db) > SCHEMA_VERSION:
        raise JournalNewer(
            f"the journal {path} was written by a newer version of the bridge (schema "
            f"{version(db)}, this one knows {SCHEMA_VERSION}): run that version, or let it drain "
            "the journal and start this one on a new JOURNAL_PATH"
        )


def _refuse_older(db: sqlite3.Connection, path: Path) -> None:
    if 0 < version(db) < SCHEMA_VERSION:
        raise JournalError(
            f"the journal {path} was written by an older version of the bridge (schema "
            f"{version(db)}, this one knows {SCHEMA_VERSION}): start this version on it first, "
            "or use the command of that version"
        )


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    _refuse_newer(db, path)
    for step in range(version(db) + 1, SCHEMA_VERSION + 1):
        db.executescript(
            f"BEGIN IMMEDIATE; {MIGRATIONS[step]} PRAGMA user_version = {step}; COMMIT;"
        )


def packed(seqs: Iterable[int]) -> bytes:
    """Sequence numbers as a column holds them."""
    return array("q", seqs).tobytes()


def unpacked(blob: bytes) -> tuple[int, ...]:
    seqs = array("q")
    seqs.frombytes(blob)
    return tuple(seqs)


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors as the bridge's: damage apart from what may pass (a full disk)."""
    try:
        yield
    except sqlite3.Error as error:
        if _is_damage(error):
            raise JournalDamaged(f"the journal is damaged: {error}") from error
        raise JournalError(f"the journal could not be used: {error}") from error


def _is_damage(error: sqlite3.Error) -> bool:
    if "Could not decode" in str(error):  # text that is not UTF-8; comes without a code
        return True
    damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT)
    return _primary(error) in damage


def _primary(error: sqlite3.Error) -> int:
    # Errors of Python's module itself (a closed connection) have no code.
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


@contextmanager
def unflushed(db: sqlite3.Connection) -> Iterator[None]:
    """Transactions within outlive the end of every process, but that of the machine only once
    another one was flushed: with it they are on disk as well, for the log is one."""
    with translated():
        db.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            db.execute("PRAGMA synchronous = FULL")


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
