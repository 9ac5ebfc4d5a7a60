"""The thread that keeps the statistics file up to date, and says so when it cannot."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time

from bridge.clock import Clock
from bridge.journal import Journal
from bridge.statistics.file import StatisticsFile, path_beside, remove

log = logging.getLogger(__name__)

ROUND_SECONDS = 5.0
# In one statement, hence in one reading of the journal: some 50 ms.
STEP_READINGS = 10_000
# While it goes over what the journal held at the start: so many times as long as a step took.
REST = 3.0
RETRY_SECONDS = 60.0
FORGET_TAGS_SECONDS = 600.0
RECOUNT_SECONDS = 60.0
RECOUNT_ALWAYS_SECONDS = 600.0
# The room is the journal's: with less than this left on the disk there are no figures of tags.
MIN_FREE_BYTES = 64 * 1024**2


class NoRoom(Exception):
    """The disk has too little left for statistics."""


class Collector:
    """`run` belongs to a thread of its own; the properties are safe from any. Whatever goes wrong
    ends in `problem`, never in an exception."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._stop = threading.Event()
        self._file: StatisticsFile | None = None
        self._cursor = self._letters_upto = self._letter_bytes = 0
        self._complete_at = self._recounted_at = self._tags_looked_at = clock.monotonic()
        self.path = path_beside(journal.path)
        self.problem: str | None = "they are being made"
        self.tags_left_out = 0
        self.rounds = 0

    # --- from any thread --------------------------------------------------------------------------

    @property
    def behind_seconds(self) -> float:
        """How long ago the figures held every reading that the journal had."""
        return self._clock.monotonic() - self._complete_at

    def stop(self) -> None:
        self._stop.set()

    # --- its thread -------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop`. Blocks on the disk, so nobody waits for it."""
        wait = 0.0
        while not self._stop.wait(wait):
            wait = self.round()
        self.close()

    def round(self) -> float:
        """Take in what is new; answers how many seconds to wait for the next round."""
        try:
            return self._round()
        except NoRoom as error:
            self._give_up(str(error))
        except (sqlite3.Error, OSError) as error:
            self._give_up(f"{self.path} could not be kept ({error})")
        except Exception as error:
            # A fault in here is none of the readings' business.
            log.error(
                "the figures of tags have failed: the bridge works on without them, and begins "
                "them anew. Report this line with its trace",
                exc_info=True,
            )
            self._give_up(repr(error))
        return RETRY_SECONDS

    def _round(self) -> float:
        self._require_room()
        file = self._opened()
        started = time.perf_counter()
        now, last = self._clock.monotonic(), self._journal.last_seq
        upto = min(last, self._cursor + STEP_READINGS)
        if upto > self._cursor:
            self.tags_left_out = file.take(self._cursor, upto)
            self._cursor = upto
        self._tidy(file, now)
        self.problem = None
        self.rounds += 1
        if upto < last:
            return max(0.02, REST * (time.perf_counter() - started))
        self._complete_at = now
        return ROUND_SECONDS

    def _opened(self) -> StatisticsFile:
        if self._file is None:
            self._file = StatisticsFile(self._journal.path)
            first = self._file.first_entry()
            self._cursor = self._journal.last_seq if first is None else first - 1
            self._letters_upto, self._letter_bytes = 0, 0
            self._recounted_at = self._tags_looked_at = self._clock.monotonic()
        return self._file

    def _tidy(self, file: StatisticsFile, now: float) -> None:
        file.forget(self._clock.now_us())
        if now - self._tags_looked_at >= FORGET_TAGS_SECONDS:
            self._tags_looked_at = now
            file.forget_tags(self._clock.now_us())
        self._count_letters(file, now)

    def _count_letters(self, file: StatisticsFile, now: float) -> None:
        stored = self._journal.letter_bytes
        age = now - self._recounted_at
        # Some were purged, replayed or only passed through; or as many came as went.
        shrunk = stored < self._letter_bytes
        if age >= RECOUNT_ALWAYS_SECONDS or (shrunk and age >= RECOUNT_SECONDS):
            self._letters_upto, self._letter_bytes = file.recount_letters(), stored
            self._recounted_at = now
            return
        self._letters_upto = file.take_letters(self._letters_upto)
        self._letter_bytes = max(self._letter_bytes, stored)

    def _require_room(self) -> None:
        stat = os.statvfs(self.path.parent)
        if stat.f_bavail * stat.f_frsize < MIN_FREE_BYTES:
            least = MIN_FREE_BYTES // 1024**2
            raise NoRoom(f"less than {least} MiB are left on the journal's disk: make room there")

    def _give_up(self, why: str) -> None:
        """The file goes, for its room is the journal's; from the start, after a while."""
        if self.problem != why:
            log.warning(
                "there are no figures of tags for now: the bridge works on, and tries them again. "
                "Look at the disk that JOURNAL_PATH is on",
                extra={"fields": {"error": why}},
            )
        self.problem = why
        self.close()
        remove(self.path)

    def close(self) -> None:
        """Let go of the file, and remove it. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
