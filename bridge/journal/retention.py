"""Running time, fullness, and what may be pruned."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from bridge.clock import Clock

TICK_US = 10_000_000
WARN_AT = 0.8
RESUME_BELOW = 0.9
STEP = 2_000  # rows pruned in one transaction: short enough to stand between two batches
LONGEST_GAP_US = 15_000_000
LARGEST_TRANSACTION = 6 * 1024**2  # bytes in the log: a batch of 4 MiB, with its ids and indexes


class RunningTime:
    """Microseconds the daemon has run on this journal. Neither downtime, nor a stopped process,
    nor a jump of the wall clock counts: it adds up short steps of the monotonic clock."""

    def __init__(self, clock: Clock, start_us: int) -> None:
        self._clock = clock
        self._last = clock.monotonic()
        self.us = start_us

    def advance(self) -> int:
        now = self._clock.monotonic()
        self.us += min(int((now - self._last) * 1e6), LONGEST_GAP_US)
        self._last = now
        return self.us


class Ticks:
    """Which entry was the last one at which running time."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        row = db.execute("SELECT max(running_us) FROM ticks").fetchone()
        self._latest: int | None = row[0]

    def due(self, running_us: int) -> bool:
        return self._latest is None or running_us - self._latest >= TICK_US

    def write(self, running_us: int, seq: int, oldest_id: int, retained_us: int) -> None:
        """In a transaction: one more tick, and those forgotten that no id needs any more and
        that lie before what is retained anyway."""
        self._db.execute("INSERT OR REPLACE INTO ticks VALUES (?, ?)", (running_us, seq))
        self._db.execute(
            "DELETE FROM ticks WHERE running_us < "
            "(SELECT max(running_us) FROM ticks WHERE seq < ?) AND running_us < "
            "(SELECT max(running_us) FROM ticks WHERE running_us <= ?)",
            (oldest_id, max(-1, retained_us)),
        )
        self._latest = running_us

    def last_seq_at(self, running_us: int) -> int:
        """The last entry that had come by then; 0 when none is known to have."""
        row = self._db.execute(
            "SELECT max(seq) FROM ticks WHERE running_us <= ?", (max(-1, running_us),)
        ).fetchone()
        return row[0] or 0

    def running_at(self, seq: int) -> int:
        """The running time by which this entry had come: everything later came after it."""
        row = self._db.execute(
            "SELECT min(running_us) FROM ticks WHERE seq >= ?", (seq,)
        ).fetchone()
        return row[0] or 0


class Space:
    """How full the journal is. Live data counts, not the file, which SQLite never shrinks."""

    def __init__(self, db: sqlite3.Connection, path: Path, max_bytes: int, log_bytes: int) -> None:
        self._db = db
        self._log_bytes = log_bytes
        self._wal = f"{path}-wal"
        self._page = int(db.execute("PRAGMA page_size").fetchone()[0])
        self._max_bytes = max_bytes
        self._disk_bytes: int | None = None  # what the file had when the disk was full
        self.ceiling = max_bytes
        self.used = 0
        self.live = 0
        self.full = False
        self.full_of_log = False  # nothing but the log keeps it full
        self.pressed = False

    def measure(self) -> None:
        """Read the size anew; full has a gap of its own so that it does not flap."""
        try:
            pages = int(self._db.execute("PRAGMA page_count").fetchone()[0])
            live = pages - int(self._db.execute("PRAGMA freelist_count").fetchone()[0])
        except sqlite3.Error:
            return  # what was committed stays committed: the next measurement will tell
        self.used = self.live = live * self._page
        if self._disk_bytes is not None:
            # The log has the room of the reserve, and is used from its start again and again, as
            # long as the file need not grow: not for the one batch that makes it full, either.
            batch = min(LARGEST_TRANSACTION, self._disk_bytes // 2)
            self.ceiling = max(1, min(self._max_bytes, self._disk_bytes - batch))
            self.pressed = self.used >= WARN_AT * self.ceiling
        else:
            # Pruning does not make the log smaller: leave room for as long as it usually is.
            self.ceiling = self._max_bytes
            self.pressed = self.used >= WARN_AT * (self.ceiling - self._log_bytes)
            self.used += self._wal_bytes()
        share = self.used / self.ceiling
        self.full = share >= 1.0 or (self.full and share >= RESUME_BELOW)
        self.full_of_log = self.full and live * self._page < RESUME_BELOW * self.ceiling

    def disk_is_full(self) -> None:
        """The disk took no more: what the file has by now is all there is, until the disk has room
        for the reserve again. Without one, a file that filled the disk a second time could
        not even be settled."""
        self.full = True
        if self._disk_bytes is None:
            pages = int(self._db.execute("PRAGMA page_count").fetchone()[0])
            self._disk_bytes = pages * self._page
        self.measure()

    @property
    def on_a_full_disk(self) -> bool:
        return self._disk_bytes is not None

    def disk_has_room(self) -> None:
        self._disk_bytes = None
        self.measure()

    def _wal_bytes(self) -> int:
        try:
            return os.stat(self._wal).st_size
        except FileNotFoundError:
            return 0


class Reserve:
    """A file that only takes up room. When the disk is full it is given up, so that settling
    and pruning, which free room for the intake, still can write."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = Path(f"{path}.reserve")
        self._size = size
        self.held = False

    def take(self) -> None:
        """Take the room if it is there; a disk without it just leaves `held` false. Idempotent."""
        try:
            with open(self._path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
            self.held = True
        except OSError:
            self.give_up()

    def give_up(self) -> None:
        """Idempotent."""
        self._path.unlink(missing_ok=True)
        self.held = False

    def room(self) -> bool:
        """Whether the disk could take the reserve with clear room beside it: else it would be
        full again at the next write."""
        stat = os.statvfs(self._path.parent)
        return stat.f_bavail * stat.f_frsize >= 2 * self._size


def disk_bytes(directory: Path) -> int:
    """The size of the disk that a directory is on."""
    stat = os.statvfs(directory)
    return stat.f_blocks * stat.f_frsize


def first_seq(db: sqlite3.Connection, table: str) -> int | None:
    value: int | None = db.execute(f"SELECT min(seq) FROM {table}").fetchone()[0]
    return value


def delete_up_to(db: sqlite3.Connection, table: str, last: int) -> None:
    """In a transaction."""
    db.execute(f"DELETE FROM {table} WHERE seq <= ?", (last,))
