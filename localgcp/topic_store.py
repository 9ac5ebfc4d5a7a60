"""The file of the local Pub/Sub: what was answered is in it, and survives `kill -9`.

SQLite in WAL mode with `synchronous = NORMAL`: every answer waits for its commit, which reaches
the operating system and not the disk. So nothing is lost when the process dies; when the machine
does, the last seconds may be. One process at a time: the file is locked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, resource BLOB);
CREATE TABLE IF NOT EXISTS subscriptions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, resource BLOB,
    topic INTEGER, since INTEGER);
CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY, topic INTEGER, message BLOB);
CREATE TABLE IF NOT EXISTS acks (
    subscription INTEGER, number INTEGER, PRIMARY KEY (subscription, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS numbers (reserved INTEGER);
"""
# Of deleted topics, what no subscription can ask for any more.
_SWEEP = """
DELETE FROM messages WHERE topic NOT IN (SELECT id FROM topics)
    AND topic NOT IN (SELECT topic FROM subscriptions)
"""
# Numbers are taken in blocks, so that those of messages that were thrown away do not come again
# after a restart either.
BLOCK = 1_000_000


class StoreInUse(OSError):
    """Another process has the file."""


class TopicStore:
    """Not safe by itself: its user holds a lock. Every method that writes has committed when it
    returns; raises sqlite3.Error, with nothing changed, when it cannot."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=0)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            self._db.close()
            raise StoreInUse(f"{path}: {error} (is another process serving it?)") from error

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # --- topics and subscriptions: name, serialized resource --------------------------------------

    def add_topic(self, name: str, resource: bytes) -> int:
        with self._writing() as db:
            sql = "INSERT INTO topics (name, resource) VALUES (?, ?) RETURNING id"
            return int(db.execute(sql, (name, resource)).fetchone()[0])

    def set_topic(self, id_: int, resource: bytes) -> None:
        with self._writing() as db:
            db.execute("UPDATE topics SET resource = ? WHERE id = ?", (resource, id_))

    def delete_topic(self, id_: int, orphans: Iterable[tuple[bytes, int]]) -> None:
        """orphans: the new resource and the id of each subscription that it leaves behind."""
        with self._writing() as db:
            db.executemany("UPDATE subscriptions SET resource = ? WHERE id = ?", orphans)
            db.execute("DELETE FROM topics WHERE id = ?", (id_,))
            db.execute(_SWEEP)

    def add_subscription(self, name: str, resource: bytes, topic: int) -> int:
        with self._writing() as db:
            sql = (
                "INSERT INTO subscriptions (name, resource, topic, since)"
                " VALUES (?, ?, ?, (SELECT coalesce(max(number), 0) FROM messages)) RETURNING id"
            )
            return int(db.execute(sql, (name, resource, topic)).fetchone()[0])

    def delete_subscription(self, id_: int) -> None:
        with self._writing() as db:
            db.execute("DELETE FROM subscriptions WHERE id = ?", (id_,))
            db.execute("DELETE FROM acks WHERE subscription = ?", (id_,))
            db.execute(_SWEEP)

    def topics(self) -> list[tuple[int, bytes]]:
        """Id and resource of each."""
        return self._db.execute("SELECT id, resource FROM topics ORDER BY id").fetchall()

    def subscriptions(self) -> list[tuple[int, bytes, int, int]]:
        """Id, resource, the topic's id and the number after which its messages begin, of each."""
        sql = "SELECT id, resource, topic, since FROM subscriptions ORDER BY id"
        return self._db.execute(sql).fetchall()

    # --- messages ---------------------------------------------------------------------------------

    def reserve(self) -> tuple[int, int]:
        """The next block of numbers, which begins where the one before ended: its first, and the
        one after its last."""
        with self._writing() as db:
            found = db.execute("SELECT coalesce(max(reserved), 1) FROM numbers").fetchone()[0]
            db.execute("DELETE FROM numbers")
            db.execute("INSERT INTO numbers VALUES (?)", (found + BLOCK,))
            return int(found), int(found) + BLOCK

    def add_messages(self, topic: int, numbers: Sequence[int], messages: Sequence[bytes]) -> None:
        rows = zip(numbers, [topic] * len(messages), messages, strict=True)
        with self._writing() as db:
            db.executemany("INSERT INTO messages VALUES (?, ?, ?)", rows)

    def messages(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, topic and message of each, in the order of publishing."""
        yield from self._db.execute("SELECT number, topic, message FROM messages ORDER BY number")

    def acknowledge(self, subscription: int, numbers: Sequence[int]) -> None:
        rows: list[tuple[Any, ...]] = [(subscription, number) for number in numbers]
        with self._writing() as db:
            db.executemany("INSERT OR IGNORE INTO acks VALUES (?, ?)", rows)

    def acknowledged(self) -> set[tuple[int, int]]:
        """Subscription and number of all that is acknowledged."""
        return set(self._db.execute("SELECT subscription, number FROM acks"))
