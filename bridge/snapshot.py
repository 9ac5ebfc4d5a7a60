"""What the bridge shows of itself: plain, frozen values, taken at one moment.

The web side and the commands see the running daemon only through these. They are made by
`service.py` without holding up a reading, and nothing in here refers back to what made them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

OTHER_SITE = "__other__"


@dataclass(frozen=True)
class SinkCounts:
    """One sink's part of a site's ledger line. `skipped`: accepted before the sink joined."""

    settled: int = 0
    pending: int = 0
    dead_lettered: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class SiteCounts:
    """One site's ledger line; counts since the journal began."""

    received: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    sinks: dict[str, SinkCounts] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        return self.received == self.accepted + self.duplicates + self.rejected and all(
            self.accepted == sink.settled + sink.pending + sink.dead_lettered + sink.skipped
            for sink in self.sinks.values()
        )


@dataclass(frozen=True)
class Ledger:
    """The ledger by site, and `taken`: messages counted by the subscriber since the start."""

    sites: dict[str, SiteCounts]
    taken: int

    @property
    def balanced(self) -> bool:
        return all(site.balanced for site in self.sites.values())


@dataclass(frozen=True)
class HistogramCounts:
    """Cumulative counts per upper bound (the last bound is infinity), and the sum of the values."""

    bounds: tuple[float, ...]
    cumulative: tuple[int, ...]
    total: float


@dataclass(frozen=True)
class SinkState:
    """One sink, now.

    held: why an operator is needed, in words with the remedy; None when nobody is.
    last_error: the latest failure in words, None when the latest write worked.
    retries: failed attempts since the start, by reason.
    key_usage: bytes a second by ordering key over the last minute or so, where there are such.
    """

    name: str
    pending: int
    oldest_pending_seconds: float
    held: str | None
    last_error: str | None
    retries: dict[str, int]
    batch_size: HistogramCounts
    settle_latency_seconds: HistogramCounts
    key_usage: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class HandoffState:
    """What an instance's sudden end would lose.

    unshipped: readings, at most, that are neither settled nor in the bucket; seconds: the age of
    the oldest. failures: how often the bucket could not be used since the start.
    """

    unshipped: int
    seconds: float
    failures: int


@dataclass(frozen=True)
class State:
    """The daemon as a whole, now.

    unready: why the daemon is not ready (not subscribed, journal full, …); None when it is.
    loss: what was lost of a damaged journal, until an operator clears it; None when nothing was.
    seconds_until_full: at the present rate of growth; infinity when it does not grow.
    broker_dropped: from the broker's own counters; None while the broker does not publish them.
    handoff: None where nothing is handed over.
    """

    unready: str | None
    loss: str | None
    mqtt_connected: bool
    sessions_lost: int
    retained_ignored: int
    qos0_dropped: int
    broker_dropped: int | None
    rejected_by_reason: dict[str, int]
    journal_bytes: int
    journal_seconds_until_full: float
    dedupe_window_seconds: float
    sinks: tuple[SinkState, ...]
    handoff: HandoffState | None = None


class Daemon(Protocol):
    """What the web side may ask of the running daemon. Every call is safe from any thread and
    answers within milliseconds, whatever the state of the broker, the disk or Google."""

    def state(self) -> State: ...

    def ledger(self) -> Ledger: ...

    def stalled(self) -> str | None:
        """Which part has made no progress for a minute, in words; None when all do."""

    def beat(self) -> None:
        """Tell the watchdog that the HTTP server answers."""
