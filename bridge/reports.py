"""What the daemon says of itself while it runs: a line a minute, and how full the journal is."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

from bridge.clock import Clock
from bridge.journal import Journal

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
SUMMARY_SECONDS = 60.0
WARN_SHARE = 0.8
GROWTH_SAMPLES = 60
BEHIND_SECONDS = 2.0


class Reports:
    """`run` belongs to a thread of its own: on a disk that hangs it waits for the journal, and the
    watchdog must not wait with it. The rest is safe from any thread."""

    def __init__(self, journal: Journal, sinks: Sequence[str], clock: Clock) -> None:
        self._journal = journal
        self._sinks = sinks
        self._clock = clock
        self._stop = threading.Event()
        self._growth: deque[tuple[float, int]] = deque(maxlen=GROWTH_SAMPLES)
        self._summary_at = clock.monotonic()
        self._summed = self._totals()

    def run(self) -> None:
        """Report until `stop`."""
        while not self._stop.wait(LOOK_SECONDS):
            self.look()

    def stop(self) -> None:
        self._stop.set()

    def look(self) -> None:
        """What is done once a second."""
        now = self._clock.monotonic()
        self._growth.append((now, self._journal.used_bytes))
        self._warn_of_fullness()
        if now - self._summary_at >= SUMMARY_SECONDS:
            self._summary_at = now
            self._sum_up()

    def seconds_until_full(self) -> float:
        """At the rate of the last minute; infinity when the journal does not grow."""
        samples = list(self._growth)
        if len(samples) < 2:
            return float("inf")
        (first_at, first), (last_at, last) = samples[0], samples[-1]
        if last <= first or last_at <= first_at:
            return float("inf")
        rate = (last - first) / (last_at - first_at)
        return max(0.0, (self._journal.ceiling_bytes - last) / rate)

    def _warn_of_fullness(self) -> None:
        share = self._journal.used_bytes / self._journal.ceiling_bytes
        most = self._journal.fullest()
        if share < WARN_SHARE or most is None:
            return
        fields = {"percent": round(share * 100), "sink": most[0], "site": most[1]}
        if self._journal.full:
            log.error(
                "the journal is full: no more messages are acknowledged, and the broker keeps "
                "them. Mend the sink that fills it, or raise JOURNAL_MAX_BYTES",
                extra={"fields": fields},
            )
        elif self._is_behind(most[0]):
            log.warning(
                "the journal fills up: when it is full, the broker has to keep the messages. "
                "Mend the sink that fills it, or raise JOURNAL_MAX_BYTES",
                extra={"fields": fields},
            )

    def _is_behind(self, sink: str) -> bool:
        """Else it is settled readings that fill the journal, which are kept for as long as there
        is room, and what is pending is only on its way."""
        oldest = self._journal.oldest_pending_us(sink)
        return oldest is not None and self._clock.now_us() - oldest >= BEHIND_SECONDS * 1e6

    def _sum_up(self) -> None:
        before, self._summed = self._summed, self._totals()
        fields = {name: self._summed[name] - before[name] for name in before}
        pending = {f"pending_{sink}": self._journal.pending(sink) for sink in self._sinks}
        log.info("counts of the last minute", extra={"fields": {**fields, **pending}})

    def _totals(self) -> dict[str, int]:
        sites = self._journal.sites().values()
        totals = {
            "received": sum(site.received for site in sites),
            "accepted": sum(site.accepted for site in sites),
            "duplicates": sum(site.duplicates for site in sites),
            "rejected": sum(site.rejected for site in sites),
        }
        for sink in self._sinks:
            totals[f"settled_{sink}"] = sum(site.sinks[sink].settled for site in sites)
        return totals
