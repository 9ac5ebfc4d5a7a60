"""What the journal says of a sink's settled readings at one moment, for `audit`.

The ledger by day goes on while the table is asked. So it is brought back to a moment a while ago
(`cut`), from which on the table's rows are left out too: what was received since and is settled
already is taken off, for the journal still has it. What was received before and is not settled may
be in the table or not, and is named, so that it can be left out there.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bridge.errors import JournalError
from bridge.journal import days, salvage, store
from bridge.journal.days import DAY_US, Published, Tally
from bridge.journal.handover import Open
from bridge.journal.types import LaneProgress, Resume
from bridge.reading import Again, Entry
from bridge.snapshot import OTHER_SITE

CUT_US = 10_000_000
# Of running time: what came before was received before any cut, unless the clock was set back.
RECENT_US = 600_000_000
PENDING_MOST = 10_000

Key = tuple[str, int]  # site, day


class Account(NamedTuple):
    """At one moment. Times in microseconds since 1970, days in days since then.

    lines: what was settled of what was received from `since_us` to `cut_us`.
    pending: the ids of what was received then and is not settled.
    crowded: where `pending` is not known because there is too much of it, how much it is per line.
    sites: those that have a line of their own; others are counted as `OTHER_SITE`, if there is it.
    """

    since_us: int
    cut_us: int
    lines: dict[Key, Tally]
    pending: list[bytes]
    crowded: Counter[Key]
    sites: frozenset[str]

    def line_of(self, site: str) -> str:
        """The site under which the ledger counts it."""
        folded = site not in self.sites and OTHER_SITE in self.sites
        return OTHER_SITE if folded else site


class Basis(NamedTuple):
    """What there is to compare. floor: days before it are not kept whole. last: the last day that
    has a line. salvaged: why a former file was set aside, if ever."""

    destination: str
    since_us: int
    floor: int
    last: int | None
    salvaged: str | None


class Held(NamedTuple):
    """What the journal still has of one line: ids of what was received from `first_us` on.
    others: of what is pending, or was refused by the sink."""

    first_us: int
    settled: frozenset[str]
    others: frozenset[str]


class Record(NamedTuple):
    """What the bridge wrote down of a service's answers: what it confirmed per site and day, and
    the last message id per site."""

    lines: dict[Key, Tally]
    published: list[Published]


class Accounts:
    """The journal's file, read beside a running daemon. Each call is one reading transaction, which
    is over when it returns: as long as it takes to go over what came in the last minutes and what
    is pending. Raises JournalError."""

    def __init__(self, path: Path, sink: str) -> None:
        self._path = path
        self._sink = sink

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        db = store.connect_reader(self._path)
        try:
            with store.translated():
                db.execute("BEGIN")
                yield db
        finally:
            db.close()

    def basis(self) -> Basis:
        """Raises JournalError as well where nothing is counted for this sink."""
        with self._reading() as db:
            if store.version(db) < store.SCHEMA_VERSION:
                raise JournalError(
                    "the journal was last used by an older version of the bridge, which kept no "
                    "ledger by day: start this version on it first"
                )
            return _basis(db, self._sink)

    def take(self, first: int, last: int, now_us: int) -> Account:
        """Of the days from `first` to `last`."""
        with self._reading() as db:
            return _account(db, self._sink, first, last, now_us)

    def held(self, key: Key, account: Account, most: int) -> Held:
        """Of a line, up to `most` of the newest readings that the journal still has, received up
        to the cut."""
        with self._reading() as db:
            return _held(db, self._sink, key, account, most)

    def record(self, first: int, last: int) -> Record:
        """What is written down of this sink's answers."""
        with self._reading() as db:
            return Record(days.lines(db, self._sink, first, last), days.published(db))


def _basis(db: sqlite3.Connection, sink: str) -> Basis:
    row = db.execute("SELECT destination FROM sinks WHERE name = ?", (sink,)).fetchone()
    since_us = days.since(db, sink)
    if row is None or since_us is None:
        raise JournalError(f"the journal has nothing of the sink {sink}: no run has used it yet")
    span = days.span(db)
    salvaged = db.execute("SELECT value FROM meta WHERE key = 'salvaged'").fetchone()
    last = None if span is None else span[1]
    return Basis(row[0], since_us, days.floor(db), last, salvaged and salvaged[0])


def _account(db: sqlite3.Connection, sink: str, first: int, last: int, now_us: int) -> Account:
    cut_us = _cut(db, now_us)
    since_us = days.since(db, sink) or 0
    waiting = Open(sink, _resume(db, sink))
    lines = days.lines(db, sink, first, last)
    sites = {site for (site,) in db.execute("SELECT site FROM ledger")}
    sites.update(site for site, _ in lines)
    pending, crowded = _pending(db, sink, waiting, since_us, cut_us)
    account = Account(since_us, cut_us, lines, pending, crowded, frozenset(sites))
    for (site, day), late in _late(db, sink, waiting, since_us, cut_us).items():
        key = account.line_of(site), day
        if key in lines:  # or else it is a day that is not asked for
            lines[key] = lines[key].minus(late)
    return account


def _held(db: sqlite3.Connection, sink: str, key: Key, account: Account, most: int) -> Held:
    waiting, dead = Open(sink, _resume(db, sink)), _dead(db, sink, 0)
    rows = db.execute(
        f"{salvage.ENTRY} WHERE e.site = ? AND e.received_us BETWEEN ? AND ? ORDER BY e.seq DESC",
        (key[0], account.since_us, account.cut_us),
    )
    of_the_day = (
        entry for entry in _entries(rows, sink) if entry.reading.event_us // DAY_US == key[1]
    )
    found = list(islice(of_the_day, most))
    first_us = max(account.since_us, _whole_from(db))
    if len(found) == most:  # of the same moment there may be more
        first_us = min(entry.reading.received_us for entry in found) + 1
    found = [entry for entry in found if entry.reading.received_us >= first_us]
    others = {
        entry.reading.event_id
        for entry in found
        if entry in waiting or entry.reading.event_id in dead
    }
    ids = {entry.reading.event_id.hex() for entry in found}
    hidden = frozenset(event_id.hex() for event_id in others)
    return Held(first_us, frozenset(ids - hidden), hidden)


def _cut(db: sqlite3.Connection, now_us: int) -> int:
    """Seconds ago, but no earlier than what the journal still has."""
    row = db.execute("SELECT received_us FROM entries ORDER BY seq LIMIT 1").fetchone()
    oldest = now_us if row is None else row[0]
    return max(now_us - CUT_US, min(now_us, oldest))


def _whole_from(db: sqlite3.Connection) -> int:
    """What was received from this moment on is still there."""
    row = db.execute("SELECT seq, received_us FROM entries ORDER BY seq LIMIT 1").fetchone()
    if row is None:
        return 2**62
    # Of what came at the same moment as the oldest one, some may be gone.
    seq, received_us = int(row[0]), int(row[1])
    return received_us + (seq > 1)


def _resume(db: sqlite3.Connection, sink: str) -> Resume:
    row = db.execute("SELECT position FROM sinks WHERE name = ?", (sink,)).fetchone()
    lanes = {
        lane: LaneProgress(position, store.unpacked(beyond))
        for lane, position, beyond in db.execute(
            "SELECT lane, position, beyond FROM lanes WHERE sink = ?", (sink,)
        )
    }
    return Resume(row[0], lanes)


def _entries(rows: sqlite3.Cursor, sink: str) -> Iterator[Entry]:
    """Those that this sink gets or has got."""
    for entry in map(salvage.entry_of, rows):
        if not isinstance(entry, Again) or entry.sink == sink:
            yield entry


def _late(
    db: sqlite3.Connection, sink: str, waiting: Open, since_us: int, cut_us: int
) -> dict[Key, Tally]:
    """What was received after the cut and is settled."""
    start = db.execute(
        "SELECT max(seq) FROM ticks WHERE running_us <= (SELECT max(running_us) FROM ticks) - ?",
        (RECENT_US,),
    ).fetchone()[0]
    rows = db.execute(
        f"{salvage.ENTRY} WHERE e.seq > ? AND e.received_us > ?",
        (start or 0, max(cut_us, since_us - 1)),
    )
    dead = _dead(db, sink, cut_us)
    ids: dict[Key, list[bytes]] = defaultdict(list)
    for entry in _entries(rows, sink):
        reading = entry.reading
        if entry not in waiting and reading.event_id not in dead:
            ids[reading.site, reading.event_us // DAY_US].append(reading.event_id)
    return {key: days.tally(found) for key, found in ids.items()}


def _dead(db: sqlite3.Connection, sink: str, after_us: int) -> Collection[bytes]:
    """What the sink refused for good is resolved, but not settled."""
    rows = db.execute(
        "SELECT event_id FROM dead_letters WHERE sink = ? AND received_us > ?", (sink, after_us)
    )
    return {event_id for (event_id,) in rows}


def _pending(
    db: sqlite3.Connection, sink: str, waiting: Open, since_us: int, cut_us: int
) -> tuple[list[bytes], Counter[Key]]:
    position = db.execute("SELECT position FROM sinks WHERE name = ?", (sink,)).fetchone()[0]
    rows = db.execute(
        f"{salvage.ENTRY} WHERE e.seq > ? AND e.received_us BETWEEN ? AND ? ORDER BY e.seq",
        (position, since_us, cut_us),
    )
    found = []
    for entry in _entries(rows, sink):
        if entry in waiting:
            found.append(entry.reading.event_id)
            if len(found) > PENDING_MOST:
                return [], _crowd(db, position, since_us, cut_us)
    return found, Counter()


def _crowd(db: sqlite3.Connection, position: int, since_us: int, cut_us: int) -> Counter[Key]:
    """Per line, how many at most are pending."""
    rows = db.execute(
        "SELECT e.site, i.event_us / ?1 - (i.event_us % ?1 < 0), count(*) FROM entries e "
        "JOIN ids i USING (seq) WHERE e.seq > ?2 AND e.received_us BETWEEN ?3 AND ?4 GROUP BY 1, 2",
        (DAY_US, position, since_us, cut_us),
    )
    return Counter({(site, day): count for site, day, count in rows})
