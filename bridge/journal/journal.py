"""Append, read, settle: the path of a reading through the journal."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from bridge.clock import Clock
from bridge.errors import DestinationChanged, JournalDamaged, JournalError
from bridge.journal import letters, retention, salvage, store
from bridge.journal.counts import Counts, SinkDelta, SiteDelta, rebalance, skipped_before
from bridge.journal.letters import DeadLetter, Refused
from bridge.journal.tail import Tail, weight
from bridge.reading import Entry, Reading, Rejection
from bridge.snapshot import SiteCounts

log = logging.getLogger(__name__)

READ_BYTES = 8 * 1024**2
_PUT_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


class Limits(NamedTuple):
    """Sizes in bytes, times in microseconds. `forwarding`: a dead-letter topic is configured."""

    max_bytes: int = 4 * 1024**3
    dead_letter_max_bytes: int = 256 * 1024**2
    retention_us: int = 35 * 60_000_000
    forwarding: bool = False


class Appended(NamedTuple):
    """What became of a batch. `deferred`: indexes of the rejections for which there was no room;
    they are not stored, not counted and must not be acknowledged."""

    accepted: int
    duplicates: int
    deferred: frozenset[int]
    last_seq: int


class LaneProgress(NamedTuple):
    """How far a lane is: resolved up to `position`, and the entries of `beyond`."""

    position: int
    beyond: tuple[int, ...]


class Settlement(NamedTuple):
    """What one answer of a sink settles in one lane."""

    lane: str
    progress: LaneProgress
    settled: Sequence[Entry]
    refused: Sequence[Refused] = ()


class AppendIntent(NamedTuple):
    """Which entries, in which order, were or will be appended at which offset of which stream."""

    stream: str
    offset: int
    seqs: tuple[int, ...]


class Resume(NamedTuple):
    """Where a sink goes on: resolved up to `position`, and per lane what is beyond it."""

    position: int
    lanes: dict[str, LaneProgress]


class Journal:
    """One process' journal. Every method is safe from any thread; those that write block until
    their commit is on disk (milliseconds) and raise JournalError, having changed nothing, when
    it could not be."""

    def __init__(self, path: Path, limits: Limits, clock: Clock) -> None:
        self.path = path
        self._limits = limits
        self._clock = clock
        self._lock = threading.RLock()
        self._log_pages = max(64, min(4000, limits.max_bytes // 64 // 4096))
        self._file_lock = store.Lock(path)
        self._reserve = retention.Reserve(
            path, max(262_144, min(16 * 1024**2, limits.max_bytes // 64))
        )
        self._listeners: list[Callable[[], None]] = []
        self.loss: str | None = None

    # --- opening and closing ----------------------------------------------------------------------

    def open(self) -> None:
        """Lock, open, migrate; set a damaged file aside and take over what can be read.
        Raises JournalLocked, JournalNewer, ConfigurationError, and JournalError where the disk
        does not let it."""
        store.prepare_folder(self.path)
        self._file_lock.acquire()
        try:
            try:
                self._open_file()
            except JournalError:
                # Other files may have filled the disk: SQLite needs some room even to begin.
                self._reserve.give_up()
                self._open_file()
        except BaseException:
            self._file_lock.release()
            raise

    def _open_file(self) -> None:
        db = salvage.open_sound(self.path, self._log_pages, self._clock)
        try:
            self._load(db)
        except JournalDamaged as error:
            db.close()
            db = salvage.recover(self.path, self._log_pages, self._clock, str(error))
            self._load(db)
        except BaseException:
            db.close()
            raise

    def _load(self, db: sqlite3.Connection) -> None:
        with store.translated():
            self._load_content(db)

    def _load_content(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._counts = Counts()
        self._counts.load(db)
        self._meta = dict(db.execute("SELECT key, value FROM meta"))
        self.loss = self._meta.get("loss")
        self._outside = store.changes_of_others(db)
        self._running = retention.RunningTime(self._clock, self._number("running_us"))
        self._ticks = retention.Ticks(db)
        self._space = retention.Space(db, self.path, self._limits.max_bytes, self._log_pages * 4096)
        self._reserve.take()
        self._letter_bytes = letters.stored_bytes(db)
        self._acked_seq = self._number("acked_seq")
        self._last_seq = max(self._acked_seq, self._highest_seq())
        self._positions: dict[str, int] = {}
        self._first_entry = retention.first_seq(db, "entries") or self._last_seq + 1
        self._first_id = retention.first_seq(db, "ids") or self._last_seq + 1
        self._prune_step = retention.STEP
        self._tail = Tail(self._last_seq)
        self._space.measure()

    def _highest_seq(self) -> int:
        row = self._db.execute(
            "SELECT max(coalesce((SELECT max(seq) FROM ids), 0),"
            " coalesce((SELECT max(seq) FROM ticks), 0),"
            " coalesce((SELECT max(position) FROM sinks), 0),"
            " coalesce((SELECT max(position) FROM lanes), 0))"
        ).fetchone()
        # After a salvage these may name more than the tables still have.
        named = [
            max(store.unpacked(seqs), default=0)
            for (seqs,) in self._db.execute(
                "SELECT seqs FROM appends UNION SELECT beyond FROM lanes"
            )
        ]
        return max(int(row[0]), *named, 0)

    def _number(self, key: str) -> int:
        value = self._meta.get(key, 0)
        if not isinstance(value, int):
            raise JournalDamaged(f"the journal is damaged: {key} is {value!r}")
        return value

    def close(self) -> None:
        """Write what is only in memory and let go of the files. Idempotent."""
        with self._lock:
            if self._file_lock.held:
                try:
                    self._write_tick()
                except JournalError as error:
                    # Ids are then kept a little longer than they need be: no harm.
                    log.warning("the journal's last note could not be written: %s", error)
                finally:
                    self._db.close()
                    self._reserve.give_up()
                    self._file_lock.release()

    # --- sinks ------------------------------------------------------------------------------------

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
            if "unbalanced" in self._meta:
                rebalance(db, {name: self._pending_by_site(name) for name in destinations})
            db.execute("DELETE FROM meta WHERE key IN ('join_at', 'unbalanced')")
        with self._lock, self._reading():
            if self._meta.pop("unbalanced", None):
                self._counts = Counts()
                self._counts.load(self._db)
            self._meta.pop("join_at", None)
            for name in destinations:
                self._load_sink(name)

    @property
    def verify_up_to(self) -> int:
        """Entries up to this one were taken over from a damaged file: a sink that can tell
        whether it has one already looks before it writes it."""
        return self._number("verify_up_to")

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
            "WHERE e.seq > ?2 AND e.seq > coalesce(l.position, 0) GROUP BY e.site",
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

    def resume(self, sink: str) -> Resume:
        """Where a sink that was activated goes on."""
        with self._lock, self._reading():
            return Resume(self._positions[sink], self._lanes(sink))

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

    # --- delivery ---------------------------------------------------------------------------------

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

    def settle(self, sink: str, settlements: Sequence[Settlement], position: int) -> None:
        """Write down what a sink has resolved. `position`: everything up to it is resolved."""
        with self._lock:
            deltas = self._sink_deltas(settlements)
            rows = [
                letters.row_of_refused(sink, refused)
                for settlement in settlements
                for refused in settlement.refused
            ]
            with self._writing() as db:
                self._write_lanes(db, sink, settlements, position)
                letters.insert(db, rows)
                self._counts.write_sink(db, sink, deltas)
            self._positions[sink] = position
            self._letter_bytes += sum(map(letters.row_bytes, rows))
            self._counts.apply_sink(sink, deltas)

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
        db.executemany("INSERT OR REPLACE INTO lanes VALUES (?, ?, ?, ?)", ahead)
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

    def has_room_for_letters(self) -> bool:
        """Whether a sink may still give up an entry as a dead letter. Takes no lock."""
        return self._letter_bytes < self._letter_limit()

    def fits_as_letter(self, size: int) -> bool:
        """Whether a message refused at the entrance, of this size as a letter, would be stored
        now. Takes no lock."""
        return self._letter_fits(size, self._letter_bytes)

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

    # --- dead letters -----------------------------------------------------------------------------

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

    # --- upkeep -----------------------------------------------------------------------------------

    def acknowledged(self, seq: int) -> None:
        """The broker is known not to redeliver anything up to `seq` any more."""
        with self._lock:
            self._acked_seq = max(self._acked_seq, seq)

    @property
    def session(self) -> str | None:
        """The broker session that this journal belongs to, as last remembered."""
        with self._lock:
            value = self._meta.get("session")
            return None if value is None else str(value)

    def remember_session(self, name: str) -> None:
        with self._lock:
            with self._writing() as db:
                db.execute(_PUT_META, ("session", name))
            self._meta["session"] = name

    def maintain(self) -> None:
        """One step of upkeep: running time, pruning, room on the disk. Milliseconds; to be called
        at least every few seconds, and after each batch."""
        with self._lock, self._reading():
            running = self._running.advance()
            self._look_outside()
            self._space.measure()
            if self._ticks.due(running):
                self._mend_reserve()
                self._write_tick()
            self._prune(running)

    def _look_outside(self) -> None:
        """Take in what a command changed: letters purged or replayed, a loss that was cleared."""
        outside = store.changes_of_others(self._db)
        if outside != self._outside:
            self._outside = outside
            self._letter_bytes = letters.stored_bytes(self._db)
            row = self._db.execute("SELECT value FROM meta WHERE key = 'loss'").fetchone()
            self.loss = None if row is None else row[0]

    def _write_tick(self) -> None:
        running = self._running.us
        with self._writing() as db:
            self._ticks.write(
                running, self._last_seq, self._first_id, running - self._limits.retention_us
            )
            db.execute(_PUT_META, ("running_us", running))
            db.execute(_PUT_META, ("acked_seq", self._acked_seq))

    def _mend_reserve(self) -> None:
        if not self._reserve.held and self._reserve.room():
            self._reserve.take()
            if self._reserve.held:
                self._space.disk_has_room()

    def _prune(self, running: int) -> None:
        resolved = min(self._positions.values(), default=0)
        expired = min(resolved, self._ticks.last_seq_at(running - self._limits.retention_us))
        if not self._space.pressed:
            self._delete(expired, expired)
            return
        self._delete(resolved, expired)
        if self._space.pressed and self._first_entry > resolved:  # no payload is left to go first
            self._delete(resolved, resolved)

    def _delete(self, cut_entries: int, cut_ids: int) -> None:
        """One step of each. An id stays until its entry is gone, which is read together with it,
        and until its PUBACK is known to have reached the broker."""
        first_entry, first_id, step = self._first_entry, self._first_id, self._prune_step
        cut_ids = min(cut_ids, self._acked_seq, max(cut_entries, first_entry - 1))
        if first_entry > cut_entries and first_id > cut_ids:
            return
        # On a full disk there is only room for a short transaction: try shorter ones.
        self._prune_step = max(1, step // 4)
        with self._writing() as db:
            last = min(cut_entries, first_entry + step - 1)
            if first_entry <= last:
                retention.delete_up_to(db, "entries", last)
                first_entry = last + 1
            last = min(cut_ids, first_entry - 1, first_id + step - 1)
            if first_id <= last:
                retention.delete_up_to(db, "ids", last)
                first_id = last + 1
        self._prune_step = min(retention.STEP, step * 2)
        self._first_entry, self._first_id = first_entry, first_id
        self._space.measure()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with store.transaction(self._db):
                yield self._db
        except JournalDamaged:
            self._suspect()
            raise
        except JournalError as error:
            if "disk is full" in str(error):
                self._reserve.give_up()
                self._empty_log()
                self._space.disk_is_full()
            raise

    def _empty_log(self) -> None:
        # The log can only be used from its start again once all of it is in the main file, which
        # may have to grow for that: with the room of the reserve, before anything else takes it.
        with suppress(JournalError):  # the full disk itself is what is raised
            store.checkpoint(self._db)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            with store.translated():
                yield
        except JournalDamaged:
            self._suspect()
            raise

    def _suspect(self) -> None:
        with suppress(OSError):  # the damage itself is what is raised
            salvage.suspect(self.path)

    # --- looking on -------------------------------------------------------------------------------

    @property
    def last_seq(self) -> int:
        return self._last_seq

    @property
    def full(self) -> bool:
        """Whether the intake has to wait."""
        return self._space.full

    @property
    def used_bytes(self) -> int:
        return self._space.used

    @property
    def ceiling_bytes(self) -> int:
        return self._space.ceiling

    def pending(self, sink: str) -> int:
        with self._lock:
            return self._counts.pending(sink)

    def oldest_pending_us(self, sink: str) -> int | None:
        """When the oldest entry that this sink has not resolved was received."""
        with self._lock, self._reading():
            row = self._db.execute(
                "SELECT received_us FROM entries WHERE seq > ? ORDER BY seq LIMIT 1",
                (self._positions[sink],),
            ).fetchone()
            return None if row is None else row[0]

    def sites(self) -> dict[str, SiteCounts]:
        with self._lock:
            return self._counts.sites()

    def rejected_by_reason(self) -> dict[str, int]:
        with self._lock:
            return self._counts.reasons()

    def fullest(self) -> tuple[str, str] | None:
        """The sink and site with the most pending entries."""
        with self._lock:
            return self._counts.fullest()

    def dedupe_window_seconds(self) -> float:
        """How far back, in running time, a duplicate is recognised."""
        with self._lock:
            with self._reading():
                start = self._ticks.running_at(self._first_id - 1)
            return max(0.0, (self._running.us - start) / 1e6)

    def clear_loss(self) -> None:
        """An operator has seen the loss of a damaged journal."""
        with self._lock:
            with self._writing() as db:
                db.execute("DELETE FROM meta WHERE key = 'loss'")
            self.loss = None
