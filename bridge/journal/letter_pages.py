"""Dead letters page by page, for those who look on beside a running daemon. Each page is one short
reading of its own: a long one would keep the daemon from cutting its log."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bridge.journal import letters, store
from bridge.journal.letters import DeadLetter

EXCERPT_BYTES = 200
CHUNK = 64
MOST = 2**63 - 1
ENTRANCE = "entrance"
_WHERE = (
    "(:reason IS NULL OR reason = :reason) AND (:site IS NULL OR site = :site) "
    f"AND (:sink IS NULL OR coalesce(sink, '{ENTRANCE}') = :sink) "
    "AND id < :before"
)


class Chosen(NamedTuple):
    """Which letters. sink: a sink's name, or `entrance` for messages that none refused; before:
    only letters with a lower number."""

    reason: str | None = None
    site: str | None = None
    sink: str | None = None
    before: int = MOST


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


def page(journal: Path, chosen: Chosen, limit: int) -> list[Summary]:
    """Newest first. Raises JournalError."""
    with _reading(journal) as db:
        rows = db.execute(
            "SELECT id, sink, reason, detail, site, topic, payload_bytes, received_us, event_id, "
            # SQLite's substr makes NULL of an empty payload.
            f"coalesce(substr(payload, 1, {EXCERPT_BYTES}), x'') FROM dead_letters WHERE {_WHERE} "
            "ORDER BY id DESC LIMIT :limit",
            {**chosen._asdict(), "limit": limit},
        ).fetchall()
    return [Summary(*row) for row in rows]


def one(journal: Path, number: int) -> DeadLetter | None:
    """Raises JournalError."""
    with _reading(journal) as db:
        return letters.find(db, number)


def all_of(journal: Path, chosen: Chosen) -> Iterator[DeadLetter]:
    """Newest first, a few in memory at a time. Raises JournalError, also half-way."""
    while found := _chunk(journal, chosen):
        yield from found
        chosen = chosen._replace(before=found[-1].id)


def _chunk(journal: Path, chosen: Chosen) -> list[DeadLetter]:
    with _reading(journal) as db:
        rows = db.execute(
            f"{letters.SELECT} WHERE {_WHERE} ORDER BY id DESC LIMIT {CHUNK}", chosen._asdict()
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
