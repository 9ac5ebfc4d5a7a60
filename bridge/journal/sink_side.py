"""The journal's side towards the sinks: who they are, how far they are, what they have settled."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from bridge.errors import DestinationChanged
from bridge.journal import bulk, days, letters, store
from bridge.journal.counts import Counts, SinkDelta, rebalance, skipped_before
from bridge.journal.file import JournalFile
from bridge.journal.types import AppendIntent, LaneProgress, Resume, Settlement

# Not an entry for another sink alone. ?1: this one.
_FOR = "NOT EXISTS (SELECT 1 FROM again a WHERE a.seq = e.seq AND a.sink <> ?1)"


class SinkSide(JournalFile):
    """The part of `Journal` that the delivery settles with."""

    def activate(self, destinations: Mapping[str, str], accept_change: bool = False) -> None:
        """Say which sinks this run has and where they lead. A sink that is new to the journal
        starts at its end. Raises DestinationChanged while entries or an append are unresolved
        for a sink whose destination is another now, or that is gone, unless `accept_change`."""
        with self._lock, self._writing() as db:
            known = {
                name: (destination, bool(active), position)
                for name, destination, active, position in db.execute("SELECT * FROM sinks")
            }
            for name, (destination, active, position) in known.items():
                if active and destinations.get(name) != destination:
                    self._leave(name, destination, destinations.get(name), position, accept_change)
            for name, destination in destinations.items():
                if name not in known or not known[name][1]:
                    self._join(name, destination)
            former = {name: known[name][0] for name in known if known[name][1]}
            begun = days.begin(db, former, destinations, self._clock.now_us())
            if "unbalanced" in self._meta:
                rebalance(db, {name: self._pending_by_site(name) for name in destinations})
            db.execute("DELETE FROM meta WHERE key IN ('join_at', 'unbalanced')")
        with self._lock, self._reading():
            self._meta.update(begun)
            if self._meta.pop("unbalanced", None):
                self._counts = Counts()
                self._counts.load(self._db)
            self._meta.pop("join_at", None)
            for name in destinations:
                self._load_sink(name)

    def destinations(self) -> dict[str, str]:
        """The sinks that the last run on this journal had, and where they led."""
        with self._lock, self._reading():
            rows = self._db.execute("SELECT name, destination FROM sinks WHERE active = 1")
            return dict(rows.fetchall())

    @property
    def verify_up_to(self) -> int:
        """Entries up to this one were taken over from a damaged file, or may have been in it and
        sent again by the broker since: a sink that can tell whether it has one already looks
        before it writes it. Grows, after a salvage, until the broker has sent all it may."""
        with self._lock:
            if "verify_more" in self._meta:
                return self._last_seq
            return self._number("verify_up_to")

    def resume(self, sink: str) -> Resume:
        """Where a sink that was activated goes on."""
        with self._lock, self._reading():
            return Resume(self._positions[sink], self._lanes(sink))

    @property
    def resolved_up_to(self) -> int:
        """Everything up to here is resolved for all sinks."""
        with self._lock:
            return min(self._positions.values(), default=self._last_seq)

    def settle(self, sink: str, settlements: Sequence[Settlement], position: int) -> None:
        """Write down what a sink has resolved. `position`: everything up to it is resolved.

        Not flushed to the disk by itself: after a power cut the sink is as far as at the last
        flushed commit, what it resolved since then is open, and is resolved again."""
        with self._lock:
            deltas = self._sink_deltas(settlements)
            by_day = days.deltas(settlements, self._number(days.since_key(sink)))
            rows = [
                letters.row_of_refused(sink, refused)
                for settlement in settlements
                for refused in settlement.refused
            ]
            with store.unflushed(self._db), self._writing() as db:
                self._write_lanes(db, sink, settlements, position)
                letters.insert(db, rows)
                self._counts.write_sink(db, sink, deltas)
                days.write(db, sink, by_day, self._counts.fold, self._days_floor)
                days.write_published(db, settlements, self._clock.now_us(), self._counts.fold)
            self._positions[sink] = position
            self._letter_bytes += sum(map(letters.row_bytes, rows))
            self._counts.apply_sink(sink, deltas)

    def append_intent(self, sink: str) -> AppendIntent | None:
        """The last append of a sink, whether decided or not."""
        with self._lock, self._reading():
            row = self._db.execute(
                "SELECT stream, position, seqs FROM appends WHERE sink = ?", (sink,)
            ).fetchone()
            return None if row is None else AppendIntent(row[0], row[1], store.unpacked(row[2]))

    def record_append(self, sink: str, intent: AppendIntent) -> None:
        """Write down an append before it is sent. The caller keeps I7."""
        with self._lock, self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO appends VALUES (?, ?, ?, ?)",
                (sink, intent.stream, intent.offset, store.packed(intent.seqs)),
            )

    def pending(self, sink: str) -> int:
        with self._lock:
            return self._counts.pending(sink)

    def oldest_pending_us(self, sink: str) -> int | None:
        """When the oldest entry that this sink has not resolved was received."""
        with self._lock, self._reading():
            row = self._db.execute(
                f"SELECT received_us FROM entries e WHERE seq > ?2 AND {_FOR} ORDER BY seq LIMIT 1",
                (sink, self._positions[sink]),
            ).fetchone()
            return None if row is None else row[0]

    def fullest(self) -> tuple[str, str] | None:
        """The sink and site with the most pending entries."""
        with self._lock:
            return self._counts.fullest()

    # --- joining and leaving ----------------------------------------------------------------------

    def _leave(self, name: str, old: str, new: str | None, position: int, accept: bool) -> None:
        unresolved = sum(self._count_pending(name, position).values())
        if unresolved and not accept:
            raise DestinationChanged(
                f"{unresolved} readings in the journal {self.path} are not settled for sink "
                f"{name} with destination {old}, and the configuration now says "
                f"{new or 'that there is no such sink'}. Start with the former configuration "
                "until the journal is drained, or add --accept-destination-change to give up "
                "the former destination"
            )
        self._db.execute("DELETE FROM appends WHERE sink = ?", (name,))
        if new is None:
            self._db.execute("UPDATE sinks SET active = 0 WHERE name = ?", (name,))
            self._db.execute("DELETE FROM lanes WHERE sink = ?", (name,))
        else:
            self._db.execute("UPDATE sinks SET destination = ? WHERE name = ?", (new, name))

    def _join(self, name: str, destination: str) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO sinks VALUES (?, ?, 1, ?)",
            # After a salvage that lost the positions, all that was taken over is pending.
            (name, destination, int(self._meta.get("join_at", self._last_seq))),
        )
        if "join_at" in self._meta:
            return
        self._db.executemany(
            "INSERT INTO sink_ledger VALUES (?, ?, 0, 0, ?) "
            "ON CONFLICT (sink, site) DO UPDATE SET skipped = excluded.skipped",
            list(skipped_before(self._db, name)),
        )

    def _load_sink(self, name: str) -> None:
        self._positions[name] = self._position(name)
        self._counts.load_sink(self._db, name, self._pending_by_site(name))

    def _position(self, name: str) -> int:
        row = self._db.execute("SELECT position FROM sinks WHERE name = ?", (name,)).fetchone()
        return int(row[0])

    def _pending_by_site(self, name: str) -> Counter[str]:
        """As the ledger folds the sites."""
        pending: Counter[str] = Counter()
        for site, count in self._count_pending(name, self._position(name)).items():
            pending[self._counts.fold(site)] += count
        return pending

    def _count_pending(self, name: str, position: int) -> Counter[str]:
        # A lane is a site, or the whole sink (""): the two kinds of order there are.
        lanes = self._lanes(name)
        whole = max(position, lanes[""].position if "" in lanes else 0)
        rows = self._db.execute(
            "SELECT e.site, count(*) FROM entries e "
            "LEFT JOIN lanes l ON l.sink = ?1 AND l.lane = e.site "
            f"WHERE e.seq > ?2 AND e.seq > coalesce(l.position, 0) AND {_FOR} GROUP BY e.site",
            (name, whole),
        )
        pending = Counter(dict(rows))
        for progress in lanes.values():
            for seq in progress.beyond:
                found = self._db.execute("SELECT site FROM entries WHERE seq = ?", (seq,))
                pending.subtract([site for (site,) in found])
        return pending

    def _lanes(self, name: str) -> dict[str, LaneProgress]:
        rows = self._db.execute("SELECT lane, position, beyond FROM lanes WHERE sink = ?", (name,))
        return {
            lane: LaneProgress(position, store.unpacked(beyond)) for lane, position, beyond in rows
        }

    # --- settling ---------------------------------------------------------------------------------

    @staticmethod
    def _write_lanes(
        db: sqlite3.Connection, sink: str, settlements: Sequence[Settlement], position: int
    ) -> None:
        db.execute("UPDATE sinks SET position = ? WHERE name = ?", (position, sink))
        # Lanes that the position has caught up with say nothing any more: invented sites must
        # not fill the table.
        db.execute(
            "DELETE FROM lanes WHERE sink = ? AND position <= ? AND length(beyond) = 0",
            (sink, position),
        )
        latest = {settlement.lane: settlement.progress for settlement in settlements}
        ahead, behind = [], []
        for lane, progress in latest.items():
            if progress.position > position or progress.beyond:
                ahead.append((sink, lane, progress.position, store.packed(progress.beyond)))
            else:
                behind.append((sink, lane))
        bulk.insert(db, "INSERT OR REPLACE INTO lanes VALUES (?, ?, ?, ?)", ahead)
        db.executemany("DELETE FROM lanes WHERE sink = ? AND lane = ?", behind)

    def _sink_deltas(self, settlements: Sequence[Settlement]) -> dict[str, SinkDelta]:
        deltas: dict[str, SinkDelta] = defaultdict(SinkDelta)
        fold = self._counts.fold
        for settlement in settlements:
            settled = Counter(entry.reading.site for entry in settlement.settled)
            for site, count in settled.items():
                deltas[fold(site)].settled += count
            for refused in settlement.refused:
                deltas[fold(refused.entry.reading.site)].dead_lettered += 1
        return deltas
