"""Append, read, and the dead letters: the path of a reading through the journal."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from bridge.errors import JournalError
from bridge.journal import letters, salvage
from bridge.journal.counts import SiteDelta
from bridge.journal.letters import DeadLetter
from bridge.journal.sink_side import SinkSide
from bridge.journal.tail import weight
from bridge.journal.types import Appended, Limits
from bridge.reading import Entry, Reading, Rejection
from bridge.snapshot import SiteCounts

__all__ = ["Appended", "Journal", "Limits"]

READ_BYTES = 8 * 1024**2


class Journal(SinkSide):
    """One process' journal. Every method is safe from any thread; those that write block until
    their commit is on disk (milliseconds) and raise JournalError, having changed nothing, when
    it could not be."""

    # --- intake -----------------------------------------------------------------------------------

    def append(self, readings: Sequence[Reading], rejections: Sequence[Rejection]) -> Appended:
        """Take a batch in, in order: readings that are new, duplicates as counts, rejections as
        dead letters. On disk when it returns; only then may it be acknowledged."""
        with self._lock:
            first = self._last_seq + 1
            entries = [Entry(seq, reading) for seq, reading in enumerate(readings, first)]
            rows, deferred = self._letters_that_fit(rejections)
            with self._writing() as db:
                accepted = self._insert(db, entries)
                sites, reasons = self._tally(entries, accepted, rejections, deferred)
                letters.insert(db, rows)
                self._counts.write_sites(db, sites)
                self._counts.write_reasons(db, reasons)
            self._last_seq += len(entries)
            self._letter_bytes += sum(map(letters.row_bytes, rows))
            self._counts.apply_sites(sites, reasons)
            if accepted:
                self._tail.add(accepted)
            self._space.measure()
            result = Appended(len(accepted), len(entries) - len(accepted), deferred, self._last_seq)
        for listener in self._listeners:
            listener()
        return result

    def _insert(self, db: sqlite3.Connection, entries: list[Entry]) -> list[Entry]:
        before = db.total_changes
        db.executemany(
            "INSERT OR IGNORE INTO ids VALUES (?, ?, ?)",
            [(seq, reading.event_us, reading.event_id) for seq, reading in entries],
        )
        if db.total_changes - before < len(entries):
            entries = self._without_duplicates(db, entries)
        db.executemany(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(seq, r[1], r[2], r[3], r[5], r[6], r[7]) for seq, r in entries],
        )
        return entries

    @staticmethod
    def _without_duplicates(db: sqlite3.Connection, entries: list[Entry]) -> list[Entry]:
        rows = db.execute("SELECT seq FROM ids WHERE seq >= ?", (entries[0].seq,))
        new = {seq for (seq,) in rows}
        return [entry for entry in entries if entry.seq in new]

    def _tally(
        self,
        entries: list[Entry],
        accepted: list[Entry],
        rejections: Sequence[Rejection],
        deferred: frozenset[int],
    ) -> tuple[dict[str, SiteDelta], Counter[str]]:
        fold = self._counts.folder()
        sites: dict[str, SiteDelta] = defaultdict(SiteDelta)
        for site, count in Counter(entry.reading.site for entry in accepted).items():
            sites[fold(site)].accepted += count
        if len(accepted) < len(entries):
            every = Counter(entry.reading.site for entry in entries)
            every.subtract(Counter(entry.reading.site for entry in accepted))
            for site, count in every.items():
                sites[fold(site)].duplicates += count
        reasons: Counter[str] = Counter()
        for index, rejection in enumerate(rejections):
            if index not in deferred:
                sites[fold(rejection.site)].rejected += 1
                reasons[rejection.reason] += 1
        return sites, reasons

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after each append, in the appending thread: it must not block."""
        self._listeners.append(listener)

    # --- reading back -----------------------------------------------------------------------------

    def read(self, after: int, limit: int) -> list[Entry]:
        """Up to `limit` entries after `after` in order, from memory where they still are.
        Bounded by bytes as well, yet never empty while there are more."""
        with self._lock:
            found = self._tail.read(after, limit)
            if found is None:
                found = self._read_disk(after, limit)
            return found

    def _read_disk(self, after: int, limit: int) -> list[Entry]:
        found: list[Entry] = []
        size = 0
        with self._reading():
            for row in self._db.execute(
                f"{salvage.ENTRY} WHERE e.seq > ? ORDER BY e.seq LIMIT ?", (after, limit)
            ):
                entry = Entry(row[0], Reading._make(row[1:]))
                found.append(entry)
                size += weight(entry)
                if size > READ_BYTES:
                    break
        return found

    def entries(self, seqs: Iterable[int]) -> list[Entry]:
        """These entries, in the order asked for. Raises JournalError if one is not there."""
        with self._lock, self._reading():
            found = []
            for seq in seqs:
                row = self._db.execute(f"{salvage.ENTRY} WHERE e.seq = ?", (seq,)).fetchone()
                if row is None:
                    raise JournalError(f"entry {seq} is not in the journal any more")
                found.append(Entry(row[0], Reading._make(row[1:])))
            return found

    # --- dead letters -----------------------------------------------------------------------------

    def has_room_for_letters(self) -> bool:
        """Whether a sink may still give up an entry as a dead letter. Takes no lock."""
        return self._letter_bytes < self._letter_limit()

    def fits_as_letter(self, size: int) -> bool:
        """Whether a message refused at the entrance, of this size as a letter, would be stored
        now. Takes no lock."""
        return self._letter_fits(size, self._letter_bytes)

    def letters_waiting(self, limit: int) -> list[DeadLetter]:
        """The oldest dead letters that are still to be published."""
        with self._lock, self._reading():
            return letters.waiting(self._db, limit)

    def letters_forwarded(self, published: Sequence[DeadLetter]) -> None:
        """Note that these were published; beyond the limit of size they are let go with it."""
        with self._lock:
            keep = self._letter_bytes <= self._limits.dead_letter_max_bytes
            with self._writing() as db:
                gone = letters.mark_forwarded(db, published, keep)
            self._letter_bytes -= gone

    def _letters_that_fit(
        self, rejections: Sequence[Rejection]
    ) -> tuple[list[letters._Row], frozenset[int]]:
        rows, deferred, size = [], set(), self._letter_bytes
        for index, rejection in enumerate(rejections):
            row = letters.row_of_rejection(rejection)
            needed = letters.row_bytes(row)
            if self._letter_fits(needed, size):
                size += needed
                rows.append(row)
            else:
                deferred.add(index)
        return rows, frozenset(deferred)

    def _letter_fits(self, needed: int, stored: int) -> bool:
        return stored + needed <= self._letter_limit() or self._passes_through(stored)

    def _letter_limit(self) -> int:
        # With a dead-letter topic, letters beyond the limit only pass through: they are deleted
        # as soon as they are published, and this is how many may be on their way.
        limit = self._limits.dead_letter_max_bytes
        return limit + max(limit // 8, 1024**2) if self._limits.forwarding else limit

    def _passes_through(self, size: int) -> bool:
        # However large it is: with nothing else on its way, a letter must not wait for ever.
        return self._limits.forwarding and size <= self._limits.dead_letter_max_bytes

    # --- the ledger -------------------------------------------------------------------------------

    def sites(self) -> dict[str, SiteCounts]:
        with self._lock:
            return self._counts.sites()

    def rejected_by_reason(self) -> dict[str, int]:
        with self._lock:
            return self._counts.reasons()
