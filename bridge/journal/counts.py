"""The ledger: read from memory, written in the transaction that it counts.

Sites are folded into `__other__` past the first 10,000, so that neither memory nor the file
grows with invented names.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from bridge.journal import bulk
from bridge.snapshot import OTHER_SITE, SinkCounts, SiteCounts

MAX_SITES = 10_000

_ADD_SITE = """
INSERT INTO ledger VALUES (?, ?, ?, ?, ?) ON CONFLICT (site) DO UPDATE SET
    received = received + excluded.received, accepted = accepted + excluded.accepted,
    duplicates = duplicates + excluded.duplicates, rejected = rejected + excluded.rejected"""
_ADD_SINK = """
INSERT INTO sink_ledger VALUES (?, ?, ?, ?, ?) ON CONFLICT (sink, site) DO UPDATE SET
    settled = settled + excluded.settled,
    dead_lettered = dead_lettered + excluded.dead_lettered,
    skipped = skipped + excluded.skipped"""
_ADD_REASON = """
INSERT INTO reasons VALUES (?, ?) ON CONFLICT (reason) DO UPDATE SET count = count + excluded.count
"""


@dataclass
class SiteDelta:
    """What one transaction adds to one site's line."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


@dataclass
class SinkDelta:
    """What one transaction adds to one site's line of one sink, all of it out of what is pending.
    Less than nothing dead-lettered: a letter's reading is pending again."""

    settled: int = 0
    dead_lettered: int = 0
    skipped: int = 0

    @property
    def resolved(self) -> int:
        return self.settled + self.dead_lettered + self.skipped


@dataclass
class _Line:
    received: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


@dataclass
class _SinkLines:
    settled: Counter[str] = field(default_factory=Counter)
    dead_lettered: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    # Not the difference of the others: counted from the entries themselves at the start, and
    # kept by what comes and goes, so that the balance is a check and no tautology.
    pending: Counter[str] = field(default_factory=Counter)


class Counts:
    """Not safe by itself: the journal calls it under its lock."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._reasons: Counter[str] = Counter()
        self._sinks: dict[str, _SinkLines] = {}

    def load(self, db: sqlite3.Connection) -> None:
        for site, *numbers in db.execute("SELECT * FROM ledger"):
            self._lines[site] = _Line(*numbers)
        self._reasons.update(dict(db.execute("SELECT reason, count FROM reasons")))

    def load_sink(self, db: sqlite3.Connection, sink: str, pending: Mapping[str, int]) -> None:
        lines = self._sinks[sink] = _SinkLines()
        rows = db.execute(
            "SELECT site, settled, dead_lettered, skipped FROM sink_ledger WHERE sink = ?", (sink,)
        )
        for site, settled, dead, skipped in rows:
            lines.settled[site], lines.dead_lettered[site] = settled, dead
            lines.skipped[site] = skipped
        for site, count in pending.items():
            lines.pending[self.fold(site)] += count

    def fold(self, site: str) -> str:
        """The site under which it is counted."""
        known = site in self._lines or len(self._lines) < MAX_SITES
        return site if known else OTHER_SITE

    def folder(self) -> Callable[[str], str]:
        """`fold` for one transaction: it also counts the new sites that the transaction brings."""
        new: set[str] = set()

        def fold(site: str) -> str:
            if site in self._lines or site in new:
                return site
            if len(self._lines) + len(new) >= MAX_SITES:
                return OTHER_SITE
            new.add(site)
            return site

        return fold

    # --- in the transaction ---

    def write_sites(self, db: sqlite3.Connection, deltas: Mapping[str, SiteDelta]) -> None:
        bulk.insert(
            db,
            _ADD_SITE,
            [
                (
                    site,
                    delta.accepted + delta.duplicates + delta.rejected,
                    delta.accepted,
                    delta.duplicates,
                    delta.rejected,
                )
                for site, delta in deltas.items()
            ],
        )

    def write_reasons(self, db: sqlite3.Connection, reasons: Mapping[str, int]) -> None:
        db.executemany(_ADD_REASON, list(reasons.items()))

    def write_sink(
        self, db: sqlite3.Connection, sink: str, deltas: Mapping[str, SinkDelta]
    ) -> None:
        bulk.insert(
            db,
            _ADD_SINK,
            [
                (sink, site, delta.settled, delta.dead_lettered, delta.skipped)
                for site, delta in deltas.items()
            ],
        )

    # --- after its commit ---

    def apply_sites(self, deltas: Mapping[str, SiteDelta], reasons: Mapping[str, int]) -> None:
        for site, delta in deltas.items():
            line = self._lines.setdefault(site, _Line())
            line.received += delta.accepted + delta.duplicates + delta.rejected
            line.accepted += delta.accepted
            line.duplicates += delta.duplicates
            line.rejected += delta.rejected
            for sink in self._sinks.values():
                sink.pending[site] += delta.accepted
        self._reasons.update(reasons)

    def apply_sink(self, sink: str, deltas: Mapping[str, SinkDelta]) -> None:
        lines = self._sinks[sink]
        for site, delta in deltas.items():
            lines.settled[site] += delta.settled
            lines.dead_lettered[site] += delta.dead_lettered
            lines.skipped[site] += delta.skipped
            lines.pending[site] -= delta.resolved

    # --- reading ---

    def sites(self) -> dict[str, SiteCounts]:
        return {
            site: SiteCounts(
                line.received,
                line.accepted,
                line.duplicates,
                line.rejected,
                {name: self._sink_counts(name, site) for name in self._sinks},
            )
            for site, line in self._lines.items()
        }

    def _sink_counts(self, sink: str, site: str) -> SinkCounts:
        lines = self._sinks[sink]
        return SinkCounts(
            settled=lines.settled[site],
            pending=lines.pending[site],
            dead_lettered=lines.dead_lettered[site],
            skipped=lines.skipped[site],
        )

    def dead_lettered(self, sink: str, site: str) -> int:
        return self._sinks[sink].dead_lettered[site]

    def received(self) -> array[int]:
        """By site, in the order of `sites`: cheap where that is all that is asked."""
        return array("q", (line.received for line in self._lines.values()))

    def settled(self, sink: str) -> int:
        return sum(self._sinks[sink].settled.values())

    def pending(self, sink: str) -> int:
        return sum(self._sinks[sink].pending.values())

    def fullest(self) -> tuple[str, str] | None:
        """The sink and site with the most pending entries; None when nothing is pending."""
        most = max(
            (
                (count, sink, site)
                for sink, lines in self._sinks.items()
                for site, count in lines.pending.items()
                if count
            ),
            default=None,
        )
        return None if most is None else (most[1], most[2])

    def reasons(self) -> dict[str, int]:
        return dict(self._reasons)


def skipped_before(db: sqlite3.Connection, sink: str) -> Iterable[tuple[str, str, int]]:
    """Per site, what was accepted and is neither settled nor dead-lettered for a joining sink."""
    return [
        (sink, site, skipped)
        for site, skipped in db.execute(
            "SELECT l.site, l.accepted - coalesce(s.settled + s.dead_lettered, 0) FROM ledger l "
            "LEFT JOIN sink_ledger s ON s.site = l.site AND s.sink = ?",
            (sink,),
        )
    ]


def rebalance(db: sqlite3.Connection, pending: Mapping[str, Mapping[str, int]]) -> None:
    """After a salvage, in a transaction: `pending` per active sink and site is what is there.
    What was accepted and cannot be found any more is counted as skipped, and what is there and
    was not counted as accepted is."""
    db.execute("UPDATE ledger SET received = accepted + duplicates + rejected")
    for sink, sites in pending.items():
        rows = db.execute(
            "SELECT site, settled + dead_lettered FROM sink_ledger WHERE sink = ?", (sink,)
        )
        known = Counter(dict(rows))
        known.update(sites)
        db.executemany(
            "INSERT INTO ledger VALUES (?1, ?2, ?2, 0, 0) ON CONFLICT (site) DO UPDATE SET "
            "received = received + max(0, ?2 - accepted), accepted = max(accepted, ?2)",
            list(known.items()),
        )
    for sink, sites in pending.items():
        db.execute(
            "INSERT INTO sink_ledger SELECT ?, site, 0, 0, 0 FROM ledger WHERE true "
            "ON CONFLICT DO NOTHING",
            (sink,),
        )
        db.execute(
            "UPDATE sink_ledger SET skipped = -settled - dead_lettered + "
            "(SELECT accepted FROM ledger WHERE ledger.site = sink_ledger.site) WHERE sink = ?",
            (sink,),
        )
        db.executemany(
            "UPDATE sink_ledger SET skipped = skipped - ? WHERE sink = ? AND site = ?",
            [(count, sink, site) for site, count in sites.items()],
        )
