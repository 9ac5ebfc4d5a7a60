"""Giving orders to whoever runs on the journal, and waiting for what becomes of them.

Where no daemon runs, the command takes the journal's lock and carries its orders out itself, by
the same code. Orders are given some at a time, so that one who ends the command early leaves
little behind; what was given stays, and is carried out by the next daemon at the latest.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bridge import wiring
from bridge.clock import Clock
from bridge.errors import ConfigurationError, JournalLocked
from bridge.intake import Intake
from bridge.journal import Journal, orders, store
from bridge.journal.orders import Order, Outcome
from bridge.settings import Settings

CHUNK = 500
POLL_SECONDS = 0.05
# Between looks whether the daemon has gone for good: one that is started again must find its lock.
TAKE_OVER_SECONDS = 10.0


class Waiting(Exception):
    """Nothing was carried out for as long as one wanted to wait. `orders`: how many are given and
    wait on; `done`: the outcomes until then."""

    def __init__(self, orders: int, done: list[Outcome]) -> None:
        super().__init__(f"{orders} orders wait")
        self.orders = orders
        self.done = done


class Orders:
    """For one command. `db`: a connection of its own that may write."""

    def __init__(
        self, settings: Settings, db: sqlite3.Connection, clock: Clock, patience: float
    ) -> None:
        self._settings = settings
        self._db = db
        self._clock = clock
        self._patience = patience
        self._done: list[Outcome] = []

    def carry_out(
        self, some: Sequence[Order], told: Callable[[int], None] = lambda _: None
    ) -> list[Outcome]:
        """Have all of these carried out, in order. `told`: is told how many are. Blocks. Raises
        Waiting; ConfigurationError without a daemon, if this is not the journal's configuration;
        JournalError."""
        with self._alone() as intake:
            for start in range(0, len(some), CHUNK):
                numbers = self._give(some[start : start + CHUNK])
                self._done += self._outcomes(numbers, intake, told)
        return self._done

    def _give(self, some: Sequence[Order]) -> list[int]:
        with store.transaction(self._db):
            return orders.give(self._db, some, self._clock.now_us())

    def _outcomes(
        self, numbers: list[int], intake: Intake | None, told: Callable[[int], None]
    ) -> list[Outcome]:
        count, since = 0, self._clock.monotonic()
        look_at = since + TAKE_OVER_SECONDS
        while True:
            if intake is not None:
                intake.upkeep()
            found = orders.outcomes(self._db, numbers)
            told(len(self._done) + len(found))
            if len(found) == len(numbers):
                return found
            now = self._clock.monotonic()
            if len(found) > count:
                count, since = len(found), now
                continue
            if now - since >= self._patience:
                raise Waiting(len(numbers) - count, [*self._done, *found])
            if intake is None and now >= look_at:
                look_at = now + TAKE_OVER_SECONDS
                self._take_over()
            time.sleep(POLL_SECONDS)

    def _take_over(self) -> None:
        """The daemon may have gone: carry out what waits, if so."""
        with self._alone() as intake:
            while intake is not None and intake.carry_out_orders():
                pass

    @contextmanager
    def _alone(self) -> Iterator[Intake | None]:
        """The entrance of the journal, where nobody else runs on it; else None."""
        settings = self._settings
        limits = wiring.journal_limits(settings)
        journal = Journal(settings.journal_path, limits, self._clock)
        try:
            journal.open()
        except JournalLocked:
            yield None
            return
        try:
            _require_same(journal, settings)
            journal.activate(wiring.destinations(settings))
            yield Intake(journal, wiring.reading_limits(settings))
        finally:
            journal.close()


def _require_same(journal: Journal, settings: Settings) -> None:
    """A command must not be what changes the sinks of a journal."""
    known, wanted = journal.destinations(), wiring.destinations(settings)
    if known != wanted:
        raise ConfigurationError(
            f"the journal {journal.path} belongs to a bridge that writes to {_words(known)}, and "
            f"this environment says {_words(wanted)}: set the bridge's own variables (APP_ENV, "
            "GCP_PROJECT_ID, …), or start the bridge, which then carries the order out"
        )


def _words(destinations: dict[str, str]) -> str:
    return ", ".join(sorted(destinations.values())) or "nothing yet"
