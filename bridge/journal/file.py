"""The open file: transactions, upkeep, fullness. What is in it is its subclasses' business."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bridge.clock import Clock
from bridge.errors import JournalDamaged, JournalError
from bridge.journal import days, letters, retention, salvage, store
from bridge.journal.counts import Counts
from bridge.journal.tail import Tail
from bridge.journal.types import Limits

log = logging.getLogger(__name__)

PUT_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"


class JournalFile:
    """The base of `Journal`, which says how to use it."""

    # --- opening and closing ----------------------------------------------------------------------

    def __init__(self, path: Path, limits: Limits, clock: Clock) -> None:
        self.path = path
        self._limits = limits
        self._clock = clock
        self._lock = threading.RLock()
        self._file_lock = store.Lock(path)
        self._listeners: list[Callable[[], None]] = []
        self.loss: str | None = None

    def open(self) -> None:
        """Lock, open, migrate; set a damaged file aside and take over what can be read.
        Raises JournalLocked, JournalNewer, ConfigurationError, and JournalError where the disk
        does not let it."""
        store.prepare_folder(self.path)
        self._allot_room()
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

    def _allot_room(self) -> None:
        """To the log and the reserve, by what the journal may take or the disk has. The reserve
        has room for all that the log may hold, a transaction beyond its limit included: a log on
        a full disk that cannot be emptied would be the end of settling, too."""
        room = min(self._limits.max_bytes, retention.disk_bytes(self.path.parent))
        self._log_pages = max(64, min(4000, room // 64 // 4096))
        transaction = min(retention.LARGEST_TRANSACTION, room // 8)
        self._reserve = retention.Reserve(self.path, self._log_pages * 4096 + transaction)

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
        days.register(db)
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
        self._replayed = _replayed(db)
        self._retried = Counter(dict(db.execute("SELECT sink, count FROM retried")))
        self._acked_seq = self._number("acked_seq")
        self._last_seq = max(self._acked_seq, self._highest_seq())
        self._positions: dict[str, int] = {}
        self._orders_due = True  # or there may be: nobody has looked yet
        self._orders_done = 0
        self._first_entry = retention.first_seq(db, "entries") or self._last_seq + 1
        self._first_id = retention.first_seq(db, "ids") or self._last_seq + 1
        self._prune_step = retention.STEP
        self._tail = Tail(self._last_seq)
        self._space.measure()
        if not self._reserve.held:
            self._space.disk_is_full()

    def _highest_seq(self) -> int:
        row = self._db.execute(
            "SELECT max(coalesce((SELECT max(seq) FROM ids), 0),"
            " coalesce((SELECT max(seq) FROM again), 0),"
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
                    log.warning(
                        "the journal's last note could not be written: some ids are kept a little "
                        "longer after the next start. Look at the disk that JOURNAL_PATH is on",
                        extra={"fields": {"error": str(error)}},
                    )
                finally:
                    self._db.close()
                    self._reserve.give_up()
                    self._file_lock.release()

    # --- what the broker may still send again -----------------------------------------------------

    def acknowledged(self, seq: int) -> None:
        """The broker is known not to redeliver anything up to `seq` any more."""
        with self._lock:
            self._acked_seq = max(self._acked_seq, seq)
            if self._meta.pop("verify_more", None):
                self._meta["verify_up_to"] = seq  # on disk with the next tick

    @property
    def session(self) -> str | None:
        """The broker session that this journal belongs to, as last remembered."""
        return self.noted("session")

    def remember_session(self, name: str) -> None:
        self.note("session", name)

    # --- notes of others --------------------------------------------------------------------------

    def noted(self, key: str) -> str | None:
        """What was last noted under this key."""
        with self._lock:
            value = self._meta.get(key)
            return None if value is None else str(value)

    def note(self, key: str, value: str) -> None:
        """On disk when it returns."""
        with self._lock:
            with self._writing() as db:
                db.execute(PUT_META, (key, value))
            self._meta[key] = value

    # --- upkeep -----------------------------------------------------------------------------------

    def maintain(self) -> None:
        """One step of upkeep: running time, pruning, room on the disk. Milliseconds; to be called
        at least every few seconds, and often enough that its steps keep up with what comes."""
        with self._lock, self._reading():
            running = self._running.advance()
            self._look_outside()
            self._space.measure()
            if self._space.on_a_full_disk:
                self._empty_log()  # there may be less room than it is allowed to take
                self._mend_reserve()
            if self._ticks.due(running):
                self._write_tick()
                self._prune_days()
            self._prune(running)
            if self._space.full_of_log:
                self._empty_log()
                self._space.measure()

    def _look_outside(self) -> None:
        """Take in what a command changed: orders, letters purged, readings sent again, a loss that
        was cleared."""
        outside = store.changes_of_others(self._db)
        if outside != self._outside:
            self._outside = outside
            self._orders_due = True
            self._letter_bytes = letters.stored_bytes(self._db)
            self._replayed = _replayed(self._db)
            row = self._db.execute("SELECT value FROM meta WHERE key = 'loss'").fetchone()
            self.loss = None if row is None else row[0]

    def _write_tick(self) -> None:
        running = self._running.us
        with self._writing() as db:
            self._ticks.write(
                running, self._last_seq, self._first_id, running - self._limits.retention_us
            )
            db.execute(PUT_META, ("running_us", running))
            db.execute(PUT_META, ("acked_seq", self._acked_seq))
            if "verify_more" not in self._meta and "verify_up_to" in self._meta:
                db.execute(PUT_META, ("verify_up_to", self._meta["verify_up_to"]))
                db.execute("DELETE FROM meta WHERE key = 'verify_more'")

    def _mend_reserve(self) -> None:
        if not self._reserve.held and self._reserve.room():
            self._reserve.take()
        if self._reserve.held:
            self._space.disk_has_room()

    def _prune(self, running: int) -> None:
        resolved = self._resolved
        expired = min(resolved, self._ticks.last_seq_at(running - self._limits.retention_us))
        if not self._space.pressed:
            self._delete(expired, expired)
            return
        self._delete(resolved, expired)
        if self._space.pressed and self._first_entry > resolved:  # no payload is left to go first
            self._delete(resolved, resolved)

    @property
    def _resolved(self) -> int:
        """Everything up to here is resolved for all sinks; 0 before there are any."""
        return min(self._positions.values(), default=0)

    @property
    def _days_floor(self) -> int:
        return self._number(days.FLOOR)

    def _prune_days(self) -> None:
        """One step. A clock that runs ahead alone lets nothing go: there are readings of that time
        only if the sensors' clocks do, too."""
        span = days.span(self._db)
        if span is None:
            return
        today = self._clock.now_us() // days.DAY_US
        first = max(self._days_floor, min(today, span[1]) - self._limits.ledger_days)
        if span[0] < first:
            with self._writing() as db:
                pruned = days.prune(db, first, retention.STEP)
            self._meta.update(pruned)

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
                retention.delete_up_to(db, "again", last)
                first_entry = last + 1
            last = min(cut_ids, first_entry - 1, first_id + step - 1)
            if first_id <= last:
                retention.delete_up_to(db, "ids", last)
                first_id = last + 1
        self._prune_step = min(retention.STEP, step * 2)
        self._first_entry, self._first_id = first_entry, first_id
        self._space.measure()

    # --- transactions -----------------------------------------------------------------------------

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
        """Whether the intake has to wait until something is settled and pruned. With nothing left
        of either that would have no end: then it is ids that fill it, which only go when the
        broker has answered behind what is acknowledged next, or dead letters, which have a limit
        of their own."""
        if not self._space.full:
            return False
        with self._lock:
            return self._counts.fullest() is not None or self._first_entry <= self._resolved

    @property
    def used_bytes(self) -> int:
        return self._space.used

    @property
    def live_bytes(self) -> int:
        """As `used_bytes`, without the log."""
        return self._space.live

    @property
    def letter_bytes(self) -> int:
        """Of the dead letters, by the measure of their limit."""
        return self._letter_bytes

    @property
    def held_entries(self) -> int:
        """Numbers between the oldest entry and the newest, both included."""
        return self._last_seq - self._first_entry + 1

    @property
    def ceiling_bytes(self) -> int:
        return self._space.ceiling

    def replayed(self, sink: str) -> int:
        """How many readings `replay` has sent to it, outside the balance."""
        return self._replayed.get(sink, 0)

    def retried(self, sink: str) -> int:
        """How many of its dead letters went back to pending, and count as dead-lettered no more."""
        return self._retried[sink]

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


def _replayed(db: sqlite3.Connection) -> dict[str, int]:
    return dict(db.execute("SELECT sink, sum(count) FROM replayed GROUP BY sink").fetchall())
