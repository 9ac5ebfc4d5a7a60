"""Orders: how a command acts on a journal that a daemon runs on, without racing it.

A command writes orders down, in a short transaction of its own, and whoever holds the journal's
lock carries them out: each in one transaction with its outcome, so that a kill at any point
neither loses nor repeats one. The command waits, and reads the outcomes.

An order is about one dead letter. What becomes of it is for the judge to say (`bridge.intake`):

    Fresh    a newly received message, whoever refused the letter. Counts as received; it is a
             new reading, or a duplicate
    Retry    the reading as it was, for the sink that refused it: from dead-lettered to pending
    Unfit    nothing changes: the outcome says why
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from bridge.journal import letters
from bridge.journal.counts import Counts, SinkDelta, SiteDelta
from bridge.journal.letters import DeadLetter
from bridge.reading import Again, Entry, Reading

MOST = 200  # orders of one transaction: short enough to stand between two batches
MOST_BYTES = 2 * 1024**2  # and of their payloads, but for a last one
KEPT = 10_000  # orders that were carried out and can still be asked about
_ADD_RETRIED = (
    "INSERT INTO retried VALUES (?, ?) ON CONFLICT (sink) DO UPDATE SET "
    "count = count + excluded.count"
)

ACCEPTED, DUPLICATE, PENDING, REFUSED = OUTCOMES = ("accepted", "duplicate", "pending", "refused")


class Order(NamedTuple):
    """Replay a letter. topic, payload: instead of the letter's own, where given. force: also if
    it was replayed before."""

    letter: int
    topic: str | None = None
    payload: bytes | None = None
    force: bool = False


class Outcome(NamedTuple):
    """What became of an order. outcome: one of `OUTCOMES`; detail: in words."""

    id: int
    letter: int
    outcome: str
    detail: str


class Fresh(NamedTuple):
    reading: Reading


class Retry(NamedTuple):
    reading: Reading
    sink: str


class Unfit(NamedTuple):
    why: str


Verdict = Fresh | Retry | Unfit
# Judges an order about a letter at a moment (microseconds since 1970). Pure, and never raises.
Judge = Callable[[Order, DeadLetter, int], Verdict]


# --- the command's side ---------------------------------------------------------------------------


def give(db: sqlite3.Connection, some: Iterable[Order], now_us: int) -> list[int]:
    """In a transaction: write these down. Answers their numbers."""
    return [
        int(
            db.execute(
                "INSERT INTO orders (letter, topic, payload, force, ordered_us) "
                "VALUES (?, ?, ?, ?, ?)",
                (*order, now_us),
            ).lastrowid
            or 0
        )
        for order in some
    ]


def outcomes(db: sqlite3.Connection, numbers: Sequence[int]) -> list[Outcome]:
    """Of those of these that were carried out."""
    rows = db.execute(
        "SELECT id, letter, outcome, detail FROM orders "
        "WHERE id BETWEEN ? AND ? AND done_us IS NOT NULL ORDER BY id",
        (min(numbers, default=0), max(numbers, default=0)),
    )
    asked = frozenset(numbers)
    return [Outcome(*row) for row in rows if row[0] in asked]


# --- carrying out ---------------------------------------------------------------------------------


def due(db: sqlite3.Connection, limit: int = MOST) -> list[int]:
    """The numbers of the oldest that wait."""
    rows = db.execute("SELECT id FROM orders WHERE done_us IS NULL ORDER BY id LIMIT ?", (limit,))
    return [number for (number,) in rows]


def _found(db: sqlite3.Connection, number: int) -> Order:
    row = db.execute("SELECT letter, topic, payload, force FROM orders WHERE id = ?", (number,))
    letter, topic, payload, force = row.fetchone()
    return Order(letter, topic, payload, bool(force))


class Work:
    """What one transaction makes of some orders: rows in the file at once, and what the journal's
    memory has to follow with after the commit (entries, sites, sinks, retried, last_seq).

    done: how many were carried out."""

    def __init__(
        self, db: sqlite3.Connection, counts: Counts, sinks: Iterable[str], last_seq: int, now: int
    ) -> None:
        self._db = db
        self._counts = counts
        self._fold = counts.folder()
        self._now = now
        self.last_seq = last_seq
        self.done = 0
        self.entries: list[Entry] = []
        self.retried: Counter[str] = Counter()
        self.sites: dict[str, SiteDelta] = defaultdict(SiteDelta)
        self.sinks: dict[str, dict[str, SinkDelta]] = {
            sink: defaultdict(SinkDelta) for sink in sinks
        }

    def do(self, some: Iterable[int], judge: Judge) -> None:
        size = 0
        for number in some:
            order = _found(self._db, number)
            letter = letters.find(self._db, order.letter)
            outcome, detail = self._carry_out(order, letter, judge)
            if letter is not None and outcome != REFUSED:
                letters.mark_replayed(self._db, letter.id, self._now)
            self._finish(number, outcome, detail)
            size += 0 if letter is None else len(order.payload or letter.payload)
            if size > MOST_BYTES:
                break

    def write_counts(self) -> None:
        self._counts.write_sites(self._db, self.sites)
        for sink, deltas in self.sinks.items():
            self._counts.write_sink(self._db, sink, deltas)
        for row in self.retried.items():
            self._db.execute(_ADD_RETRIED, row)

    def _carry_out(self, order: Order, letter: DeadLetter | None, judge: Judge) -> tuple[str, str]:
        if letter is None:
            return REFUSED, f"there is no dead letter {order.letter} any more"
        if letter.replayed_us is not None and not order.force:
            return REFUSED, "it was replayed before, and is again only with --force"
        verdict = judge(order, letter, self._now)
        if isinstance(verdict, Unfit):
            return REFUSED, verdict.why
        if isinstance(verdict, Fresh):
            return self._receive(verdict.reading)
        return self._retry(verdict.reading, verdict.sink, letter.replayed_us is None)

    def _receive(self, reading: Reading) -> tuple[str, str]:
        known = (reading.event_us, reading.event_id)
        if self._db.execute(
            "SELECT 1 FROM ids WHERE event_us = ? AND event_id = ?", known
        ).fetchone():
            self.sites[self._fold(reading.site)].duplicates += 1
            return DUPLICATE, f"the reading {reading.event_id.hex()} was taken in before"
        self._insert(Entry(self._next_seq(), reading))
        self.sites[self._fold(reading.site)].accepted += 1
        return ACCEPTED, f"a new reading, {reading.event_id.hex()}"

    def _retry(self, reading: Reading, sink: str, first: bool) -> tuple[str, str]:
        if sink not in self.sinks:
            return REFUSED, f"there is no sink {sink} in this configuration"
        self._insert(Again(self._next_seq(), reading, sink))
        self._count_retry(self._fold(reading.site), sink, first)
        return PENDING, f"waits for {sink} again"

    def _count_retry(self, site: str, sink: str, first: bool) -> None:
        """From dead-lettered to pending. Where that was counted elsewhere (a letter handed over by
        another journal) or has been undone before (`--force`), it is one more reading accepted,
        of which the other sinks get nothing."""
        counted = self._counts.dead_lettered(sink, site) + self.sinks[sink][site].dead_lettered
        if first and counted > 0:
            self.sinks[sink][site].dead_lettered -= 1
            self.retried[sink] += 1
            return
        self.sites[site].accepted += 1
        for other in self.sinks.keys() - {sink}:
            self.sinks[other][site].skipped += 1

    def _next_seq(self) -> int:
        self.last_seq += 1
        return self.last_seq

    def _insert(self, entry: Entry) -> None:
        insert(self._db, entry)
        self.entries.append(entry)

    def _finish(self, number: int, outcome: str, detail: str) -> None:
        self.done += 1
        self._db.execute(
            "UPDATE orders SET done_us = ?, outcome = ?, detail = ?, payload = NULL WHERE id = ?",
            (self._now, outcome, detail, number),
        )
        # They are carried out in the order of their numbers.
        self._db.execute("DELETE FROM orders WHERE id <= ?", (number - KEPT,))


def insert(db: sqlite3.Connection, entry: Entry) -> None:
    """In a transaction: one entry, which is new or for one sink alone."""
    seq, r = entry
    # Of one that is there again the id may still be held, under its former number.
    db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (seq, r.event_us, r.event_id))
    if isinstance(entry, Again):
        identity = (seq, entry.sink, r.event_us, r.event_id)
        db.execute("INSERT INTO again VALUES (?, ?, ?, ?)", identity)
    db.execute(
        "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
        (seq, r.site, r.pi_tag, r.sensor_id, r.value, r.received_us, r.attributes),
    )
