"""The statistics file as its one writer has it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from bridge.statistics import schema
from bridge.statistics.rules import (
    FORGET_US,
    KEPT_MINUTES,
    MAX_TAGS,
    MINUTE_US,
)

CACHE_KIB = 8 * 1024
BUSY_SECONDS = 1.0
FUTURE_MINUTES = 5

LETTERS_AT_ONCE = 10_000

_ADD_LETTERS = """
INSERT INTO {table}
SELECT site, reason, coalesce(sink, ''), count(*) FROM journal.dead_letters
WHERE id > :after AND id <= :upto GROUP BY 1, 2, 3
ON CONFLICT DO UPDATE SET count = count + excluded.count"""


def path_beside(journal: Path) -> Path:
    return Path(f"{journal}.statistics")


class StatisticsFile:
    """Belongs to one thread. Every method may raise sqlite3.Error; what it then did is undone.

    The journal is attached read-only, and read by single statements: each ends its reading, so
    that the daemon can always cut its log.
    """

    def __init__(self, journal: Path) -> None:
        """Made anew, empty; whatever was there goes."""
        self.path = path_beside(journal)
        remove(self.path)
        self._db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rwc",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_SECONDS,
        )
        try:
            self._prepare(journal)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, journal: Path) -> None:
        # It is made anew after every crash: nothing has to be on disk at any moment.
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._db.execute("PRAGMA temp_store = MEMORY")
        self._db.executescript(f"BEGIN; {schema.SCHEMA} COMMIT;")
        for table in ("main.letters", "temp.recounted"):
            self._db.execute(schema.LETTERS.format(table=table))
        self._db.execute("ATTACH ? AS journal", (f"{journal.absolute().as_uri()}?mode=ro",))

    def first_entry(self) -> int | None:
        """The oldest entry that the journal holds."""
        return self._one("SELECT min(seq) FROM journal.entries")

    def take(self, after: int, upto: int) -> int:
        """Take in the entries after `after` up to `upto`. Answers how many tags of them have no
        place any more."""
        span = {"after": after, "upto": upto}
        tags = self._one("SELECT count(*) FROM main.tags") or 0
        if tags + (upto - after) <= MAX_TAGS:
            self._db.execute(schema.TAKE, span)
            return 0
        self._db.execute(schema.TAKE_KNOWN, span)
        return self._one(schema.COUNT_UNKNOWN, span) or 0

    def take_letters(self, after: int) -> int:
        """Count the dead letters after number `after`. Answers up to which."""
        return self._count_letters("main.letters", after)

    def recount_letters(self) -> int:
        """Count all dead letters anew; until that is done, the old counts stand."""
        self._db.execute("DELETE FROM temp.recounted")
        upto = self._count_letters("temp.recounted", 0)
        self._db.executescript(
            "BEGIN; DELETE FROM main.letters;"
            "INSERT INTO main.letters SELECT * FROM temp.recounted; COMMIT;"
        )
        return upto

    def _count_letters(self, table: str, after: int) -> int:
        last = self._one("SELECT max(id) FROM journal.dead_letters") or 0
        while after < last:
            span = {"after": after, "upto": min(last, after + LETTERS_AT_ONCE)}
            self._db.execute(_ADD_LETTERS.format(table=table), span)
            after = span["upto"]
        return after

    def forget(self, now_us: int) -> None:
        """Let go of what is too old; also of what the clock, as it was, put into the future."""
        minute = now_us // MINUTE_US
        self._db.execute("DELETE FROM main.minutes WHERE minute < ?", (minute - KEPT_MINUTES,))
        self._db.execute("DELETE FROM main.minutes WHERE minute > ?", (minute + FUTURE_MINUTES,))

    def forget_tags(self, now_us: int) -> None:
        """Let go of tags that nothing was heard of for long."""
        self._db.execute("DELETE FROM main.tags WHERE received_us < ?", (now_us - FORGET_US,))

    def close(self) -> None:
        """Also removes the file: the next start makes it anew. Idempotent."""
        self._db.close()
        remove(self.path)

    def _one(self, query: str, values: dict[str, int] | None = None) -> int | None:
        found: int | None = self._db.execute(query, values or {}).fetchone()[0]
        return found


def remove(path: Path) -> None:
    """With what SQLite put beside it. What cannot be removed stays: making it anew will tell."""
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm"), Path(f"{path}-journal")):
        with suppress(OSError):
            os.unlink(name)
