"""Append, read, and the dead letters: the path of a reading through the journal."""

from __future__ import annotations

import sqlite3
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from bridge.errors import JournalError
from bridge.journal import bulk, days, handover, letters, orders, salvage
from bridge.journal.counts import Counts, SiteDelta
from bridge.journal.handover import Handed
from bridge.journal.letters import DeadLetter
from bridge.journal.sink_side import SinkSide
from bridge.journal.tail import Tail, weight
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
        return self._append(readings, rejections, None)

    def take_over(self, readings: Sequence[Reading], handed: Handed) -> Appended:
        """Take in a predecessor's readings, which it may have delivered, and what comes with
        them; those that are here already count as duplicates. On disk when it returns."""
        with self._lock:
            with self._reading():
                new = handover.new_letters(self._db, handed.letters)
            if handed.again:  # which only the disk will have
                self._tail = Tail(self._last_seq + handed.before)
            result = self._append(readings, [], handed._replace(letters=new))
            if handed.again:
                self._count_anew()
            return result

    def _append(
        self,
        readings: Sequence[Reading],
        rejections: Sequence[Rejection],
        handed: Handed | None,
    ) -> Appended:
        with self._lock:
            first = self._last_seq + 1 + (handed.before if handed else 0)
            entries = [Entry(seq, reading) for seq, reading in enumerate(readings, first)]
            rows, deferred = self._letters_that_fit(rejections)
            with self._writing() as db:
                if handed:
                    meta = handover.insert(db, handed, first, first + len(entries) - 1)
                accepted = self._insert(db, entries)
                sites, reasons = self._tally(entries, accepted, rejections, deferred)
                letters.insert(db, rows)
                self._counts.write_sites(db, sites)
                self._counts.write_reasons(db, reasons)
            self._last_seq = first + len(entries) - 1
            if handed:
                self._meta.update(meta)
                self._letter_bytes += sum(map(letters.row_bytes, handed.letters))
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
        bulk.insert(
            db,
            "INSERT OR IGNORE INTO ids VALUES (?, ?, ?)",
            [(seq, reading.event_us, reading.event_id) for seq, reading in entries],
        )
        if db.total_changes - before < len(entries):
            entries = self._without_duplicates(db, entries)
        bulk.insert(
            db,
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
                entry = salvage.entry_of(row)
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
                found.append(salvage.entry_of(row))
            return found

    # --- handing over -----------------------------------------------------------------------------

    def unresolved(self, after: int, limit: int) -> tuple[list[Entry], int]:
        """Of up to `limit` entries after `after`, those that some sink has still to resolve; and
        the last that was looked at."""
        with self._lock:
            entries = self.read(after, limit)
            waiting = [handover.Open(sink, self.resume(sink)) for sink in self._positions]
        found = [entry for entry in entries if any(entry in sink for sink in waiting)]
        return found, entries[-1].seq if entries else after

    def give_away(self, first: int, last: int) -> int:
        """Entries from `first` to `last` that are unresolved are another journal's from now on:
        counted as skipped and forgotten, but for their ids. To be called while nothing is
        delivered. Answers how many those were."""
        with self._lock:
            given: dict[str, list[Entry]] = {}
            waiting = {sink: handover.Open(sink, self.resume(sink)) for sink in self._positions}
            with self._writing() as db:
                entries = [
                    salvage.entry_of(row)
                    for row in db.execute(
                        f"{salvage.ENTRY} WHERE e.seq BETWEEN ? AND ?", (first, last)
                    )
                ]
                for sink, is_open in waiting.items():
                    given[sink] = [entry for entry in entries if entry in is_open]
                handover.skip(db, given)
                handover.forget(db, first, last)
            self._count_anew()
            return len({entry.seq for entries in given.values() for entry in entries})

    def _count_anew(self) -> None:
        self._counts = Counts()
        with self._reading():
            self._counts.load(self._db)
            for sink in self._positions:
                self._load_sink(sink)

    def foreign_streams(self) -> list[str]:
        """Write streams on which others may have appended entries of this journal."""
        with self._lock, self._reading():
            return handover.foreign_streams(self._db)

    def foreign_streams_ended(self) -> None:
        """Nothing can be appended on them any more."""
        self.note(handover.FOREIGN, "[]")

    def known_ids(self, after: int, last: int, count: int) -> list[tuple[int, int, bytes]]:
        """Number, event time and event id of readings after number `after` and up to `last`,
        oldest first; of more than `count` the newest."""
        with self._lock, self._reading():
            return handover.known_ids(self._db, after, last, count)

    def letters_after(self, number: int, limit: int) -> list[DeadLetter]:
        """Dead letters with a higher number that were not published."""
        with self._lock, self._reading():
            return handover.letters_after(self._db, number, limit)

    def letters_left(self, rows: Sequence[letters.Row]) -> list[letters.Row]:
        """Of dead letters that were handed in, those that are here, were not published and were
        not replayed."""
        with self._lock, self._reading():
            return handover.letters_left(self._db, rows)

    def days(self) -> Iterator[days.Handed]:
        """The ledger by day, to be gone on with by another journal: in pieces, each read when it is
        asked for. To be called while nothing is delivered."""
        after = None
        for number in range(1, days.PIECES + 1):
            with self._lock, self._reading():
                piece = days.handed(self._db, self._positions, after, number == days.PIECES)
            yield piece
            if len(piece.lines) < days.PIECE:
                return
            after = piece.lines[-1]

    def give_days_away(self) -> None:
        """It is another journal's from now on: this one counts anew."""
        with self._lock:
            with self._writing() as db:
                anew = days.forget(db, self._positions, self._clock.now_us())
            self._meta.update(anew)

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
    ) -> tuple[list[letters.Row], frozenset[int]]:
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

    # --- orders -----------------------------------------------------------------------------------

    def carry_out(self, judge: orders.Judge) -> int:
        """Carry out the oldest orders that wait, in one transaction with their outcomes. Answers
        how many; none while the journal is full."""
        with self._lock:
            if not self._orders_due or self.full:
                return 0
            with self._reading():
                due = orders.due(self._db)
            if not due:
                self._orders_due = False
                return 0
            with self._writing() as db:
                work = orders.Work(
                    db, self._counts, self._positions, self._last_seq, self._clock.now_us()
                )
                work.do(due, judge)
                work.write_counts()
            self._last_seq = work.last_seq
            self._retried.update(work.retried)
            self._orders_done += work.done
            self._counts.apply_sites(work.sites, {})
            for sink, deltas in work.sinks.items():
                self._counts.apply_sink(sink, deltas)
            if work.entries:
                self._tail.add(work.entries)
            self._space.measure()
        for listener in self._listeners:
            listener()
        return work.done

    @property
    def orders_done(self) -> int:
        """How many were carried out since the journal was opened."""
        return self._orders_done

    # --- the ledger -------------------------------------------------------------------------------

    def sites(self) -> dict[str, SiteCounts]:
        with self._lock:
            return self._counts.sites()

    def received_by_site(self) -> array[int]:
        """In the order of `sites`."""
        with self._lock:
            return self._counts.received()

    def settled(self, sink: str) -> int:
        """Readings settled for this sink since the journal began."""
        with self._lock:
            return self._counts.settled(sink)

    def rejected_by_reason(self) -> dict[str, int]:
        with self._lock:
            return self._counts.reasons()
