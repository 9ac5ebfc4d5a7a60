"""A daemon for the web side that says what a test wants it to say."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from bridge.snapshot import HistogramCounts, Ledger, SinkCounts, SinkState, SiteCounts, State

INFINITY = float("inf")
NO_COUNTS = HistogramCounts((1.0, INFINITY), (0, 0), 0.0)


def sink_state(name: str = "pubsub", **changes: Any) -> SinkState:
    """A sink without a care."""
    calm = SinkState(
        name=name,
        pending=0,
        oldest_pending_seconds=0.0,
        held=None,
        last_error=None,
        retries={},
        batch_size=NO_COUNTS,
        settle_latency_seconds=NO_COUNTS,
    )
    return replace(calm, **changes)


def calm_state(**changes: Any) -> State:
    """A daemon that is connected and well, with the sinks of an environment outside LOCAL."""
    calm = State(
        unready=None,
        loss=None,
        mqtt_connected=True,
        sessions_lost=0,
        retained_ignored=0,
        qos0_dropped=0,
        broker_dropped=None,
        rejected_by_reason={},
        journal_bytes=4096,
        journal_seconds_until_full=INFINITY,
        dedupe_window_seconds=2100.0,
        sinks=(sink_state("pubsub"), sink_state("bigquery")),
    )
    return replace(calm, **changes)


def line(received: int, duplicates: int = 0, rejected: int = 0, **sinks: SinkCounts) -> SiteCounts:
    """A ledger line whose accepted readings are what is left of `received`."""
    return SiteCounts(received, received - duplicates - rejected, duplicates, rejected, sinks)


@dataclass
class FakeDaemon:
    """Satisfies `bridge.snapshot.Daemon`; counts what it is asked."""

    now: State = field(default_factory=calm_state)
    sites: dict[str, SiteCounts] = field(default_factory=dict)
    taken: int = 0
    stalled_part: str | None = None
    beats: int = 0
    asked: list[str] = field(default_factory=list)

    def state(self) -> State:
        self.asked.append("state")
        return self.now

    def ledger(self) -> Ledger:
        self.asked.append("ledger")
        return Ledger(self.sites, self.taken)

    def stalled(self) -> str | None:
        return self.stalled_part

    def beat(self) -> None:
        self.beats += 1
