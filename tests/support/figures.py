"""A daemon with a real journal and real statistics, but nothing that moves by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient

from bridge.journal import Journal
from bridge.snapshot import SinkState, State
from bridge.statistics import Statistics
from bridge.statistics.collector import ROUND_SECONDS
from bridge.web.api import Source
from bridge.web.app import create_app
from tests.support.clock import ManualClock
from tests.support.daemon import FakeDaemon, calm_state, sink_state
from tests.support.journals import SINKS, Limits, opened


class Figures:
    """`look` is what the daemon's two threads do by themselves. `trouble`: changes of the sinks'
    states, by name; `changes`: of the daemon's; `keys`: bytes per second by ordering key."""

    def __init__(self, journal: Journal, clock: ManualClock) -> None:
        self.journal = journal
        self.clock = clock
        self.trouble: dict[str, dict[str, Any]] = {}
        self.changes: dict[str, Any] = {}
        self.keys: dict[str, float] = {}
        self.daemon = FakeDaemon()
        self.statistics = Statistics(journal, self._state, clock)

    def look(self) -> None:
        """Everything is up to date when it returns."""
        while self.statistics.collector.round() < ROUND_SECONDS:
            pass
        self.statistics.samples.look()

    def client(self, local: bool = True) -> FlaskClient:
        source = Source(self.daemon, self.statistics, "DEV", self.clock)
        app = create_app(self.daemon, token=lambda: "secret", local=local, source=source)
        return app.test_client()

    def get(self, path: str, status: int = 200) -> Any:
        """The document at a path, by what the journal holds now."""
        self.daemon.now, self.daemon.sites = self._state(), self.journal.sites()
        answer = self.client().get(path)
        assert answer.status_code == status, answer.text
        return answer.json

    def _state(self) -> State:
        sinks = tuple(self._sink(name) for name in SINKS)
        return calm_state(
            sinks=sinks,
            rejected_by_reason=self.journal.rejected_by_reason(),
            journal_bytes=self.journal.used_bytes,
            **self.changes,
        )

    def _sink(self, name: str) -> SinkState:
        oldest = self.journal.oldest_pending_us(name)
        age = 0.0 if oldest is None else (self.clock.now_us() - oldest) / 1e6
        own = {"pending": self.journal.pending(name), "oldest_pending_seconds": age}
        keys = self.keys if name == "pubsub" else {}
        return sink_state(name, **own | self.trouble.get(name, {}), key_usage=keys)


@contextmanager
def figures(directory: Path, limits: Limits | None = None) -> Iterator[Figures]:
    clock = ManualClock()
    with opened(directory / "journal.db", limits, clock) as journal:
        made = Figures(journal, clock)
        try:
            yield made
        finally:
            made.statistics.collector.close()
