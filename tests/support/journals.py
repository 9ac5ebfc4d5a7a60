"""A journal under test, and an auditor that reads the file behind its back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bridge.journal import Journal, LaneProgress, Settlement, store
from bridge.journal.journal import Limits
from bridge.journal.letters import Refused
from bridge.reading import Again, Entry, Reading, event_id
from tests.support.clock import ManualClock

SINKS = {"pubsub": "project/topic", "bigquery": "project.dataset.table"}
MINUTE_US = 60_000_000


def new_journal(
    path: Path,
    limits: Limits | None = None,
    clock: ManualClock | None = None,
    sinks: dict[str, str] | None = None,
) -> Journal:
    journal = Journal(path, limits or Limits(), clock or ManualClock())
    journal.open()
    journal.activate(SINKS if sinks is None else sinks)
    return journal


@contextmanager
def opened(
    path: Path,
    limits: Limits | None = None,
    clock: ManualClock | None = None,
    sinks: dict[str, str] | None = None,
) -> Iterator[Journal]:
    journal = new_journal(path, limits, clock, sinks)
    try:
        yield journal
    finally:
        journal.close()


def settle(
    journal: Journal,
    sink: str,
    entries: Sequence[Entry],
    position: int | None = None,
    refused: Sequence[Refused] = (),
    lane: str = "",
) -> None:
    """Settle entries in one lane, in order, up to the last of them."""
    last = max(entry.seq for entry in [*entries, *(letter.entry for letter in refused)])
    position = last if position is None else position
    progress = LaneProgress(last, ())
    journal.settle(sink, [Settlement(lane, progress, list(entries), list(refused))], position)


def settle_everything(journal: Journal, sinks: Iterable[str] = tuple(SINKS)) -> None:
    for sink in sinks:
        while entries := journal.read(journal.resume(sink).position, 1_000):
            own = [entry for entry in entries if not is_for_another(entry, sink)]
            last = entries[-1].seq
            journal.settle(sink, [Settlement("", LaneProgress(last, ()), own)], last)


def is_for_another(entry: Entry, sink: str) -> bool:
    return isinstance(entry, Again) and entry.sink != sink


def pass_time(journal: Journal, clock: ManualClock, seconds: float) -> None:
    """Let a running daemon's time pass: upkeep every ten seconds."""
    while seconds > 0:
        clock.pass_(min(10.0, seconds))
        seconds -= 10.0
        journal.maintain()


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    db = store.connect_reader(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def counted(path: Path, table: str) -> int:
    found = rows(path, f"SELECT count(*) FROM {table}")[0][0]
    assert isinstance(found, int)
    return found


def audit(path: Path, salvaged: bool = False) -> None:
    """Everything that has to hold of a journal's file after any commit (I1 to I6), read with
    plain SQL and none of the journal's own code. In a salvaged one the count of reasons may have
    been lost without the ledger's, and the times of receipt have no part in the identity."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        _audit_ids(db)
        _audit_ledger(db)
        if not salvaged:
            _audit_reasons(db)
        for name, position in db.execute("SELECT name, position FROM sinks WHERE active = 1"):
            _audit_sink(db, name, position)
    finally:
        db.close()


def audit_by_day(path: Path) -> None:
    """I9, for a journal whose sinks have always been there and that was never damaged: the days of
    a site add up to what was settled."""
    by_day = "SELECT sink, site, sum(settled) FROM days GROUP BY sink, site"
    settled = "SELECT sink, site, settled FROM sink_ledger WHERE settled > 0"
    assert rows(path, f"{by_day} ORDER BY 1, 2") == rows(path, f"{settled} ORDER BY 1, 2")


def _audit_ids(db: sqlite3.Connection) -> None:
    assert db.execute("SELECT count(*) - count(DISTINCT event_id) FROM ids").fetchone() == (0,)
    known = "SELECT seq FROM ids UNION SELECT seq FROM again"
    orphans = f"SELECT count(*) FROM entries WHERE seq NOT IN ({known})"
    assert db.execute(orphans).fetchone() == (0,)
    for table in ("ids", "again"):
        for row in db.execute(
            "SELECT i.event_id, e.site, e.pi_tag, e.sensor_id, i.event_us, e.value, e.received_us, "
            f"e.attributes FROM entries e JOIN {table} i USING (seq)"
        ):
            assert event_id(Reading._make(row)) == row[0]


def _audit_ledger(db: sqlite3.Connection) -> None:
    wrong = "SELECT * FROM ledger WHERE received <> accepted + duplicates + rejected"
    assert db.execute(wrong).fetchall() == []


def _audit_reasons(db: sqlite3.Connection) -> None:
    rejected = db.execute("SELECT coalesce(sum(rejected), 0) FROM ledger").fetchone()
    assert db.execute("SELECT coalesce(sum(count), 0) FROM reasons").fetchone() == rejected


def _audit_sink(db: sqlite3.Connection, name: str, position: int) -> None:
    lanes = dict(db.execute("SELECT lane, position FROM lanes WHERE sink = ?", (name,)).fetchall())
    beyond = {
        seq
        for (blob,) in db.execute("SELECT beyond FROM lanes WHERE sink = ?", (name,))
        for seq in store.unpacked(blob)
    }
    pending: dict[str, int] = {}
    others = {seq for (seq,) in db.execute("SELECT seq FROM again WHERE sink <> ?", (name,))}
    for seq, site in db.execute("SELECT seq, site FROM entries WHERE seq > ?", (position,)):
        if seq in others:
            continue
        if seq > lanes.get(site, 0) and seq > lanes.get("", 0) and seq not in beyond:
            pending[site] = pending.get(site, 0) + 1
    accounted = dict(
        db.execute(
            "SELECT site, settled + dead_lettered + skipped FROM sink_ledger WHERE sink = ?",
            (name,),
        ).fetchall()
    )
    for site, accepted in db.execute("SELECT site, accepted FROM ledger").fetchall():
        assert accepted == accounted.get(site, 0) + pending.get(site, 0), (name, site)


__all__ = [
    "MINUTE_US",
    "SINKS",
    "Limits",
    "audit",
    "audit_by_day",
    "counted",
    "is_for_another",
    "new_journal",
    "opened",
    "pass_time",
    "rows",
    "settle",
    "settle_everything",
]
