"""Dead letters page by page, for those who look on beside a running daemon. Each page is one short
reading of its own: a long one would keep the daemon from cutting its log."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bridge.journal import letters, store
from bridge.journal.letters import DeadLetter, Selection

EXCERPT_BYTES = 200
CHUNK = 64


class Summary(NamedTuple):
    """A letter in a list. excerpt: the beginning of the payload."""

    id: int
    sink: str | None
    reason: str
    detail: str
    site: str
    topic: str
    payload_bytes: int
    received_us: int
    event_id: bytes | None
    excerpt: bytes


def page(
    journal: Path, selection: Selection, limit: int, before: int = store.MOST
) -> list[Summary]:
    """Newest first, only letters with a lower number than `before`. Raises JournalError."""
    with _reading(journal) as db:
        rows = db.execute(
            "SELECT id, sink, reason, detail, site, topic, payload_bytes, received_us, event_id, "
            # SQLite's substr makes NULL of an empty payload.
            f"coalesce(substr(payload, 1, {EXCERPT_BYTES}), x'') FROM dead_letters "
            f"WHERE {letters.SELECTED} AND id < ?6 ORDER BY id DESC LIMIT ?7",
            (*selection, before, limit),
        ).fetchall()
    return [Summary(*row) for row in rows]


def one(journal: Path, number: int) -> DeadLetter | None:
    """Raises JournalError."""
    with _reading(journal) as db:
        return letters.find(db, number)


def all_of(journal: Path, selection: Selection) -> Iterator[DeadLetter]:
    """Newest first, a few in memory at a time. Raises JournalError, also half-way."""
    before = store.MOST
    while found := _chunk(journal, selection, before):
        yield from found
        before = found[-1].id


def _chunk(journal: Path, selection: Selection, before: int) -> list[DeadLetter]:
    with _reading(journal) as db:
        rows = db.execute(
            f"{letters.SELECT} WHERE {letters.SELECTED} AND id < ?6 ORDER BY id DESC LIMIT {CHUNK}",
            (*selection, before),
        ).fetchall()
    return [DeadLetter(*row) for row in rows]


@contextmanager
def _reading(journal: Path) -> Iterator[sqlite3.Connection]:
    db = store.connect_read_only(journal)
    try:
        with store.translated():
            yield db
    finally:
        db.close()
