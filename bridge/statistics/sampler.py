"""Looking at the daemon once a second, and taking a sample every ten."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Mapping

from bridge.clock import Clock
from bridge.errors import JournalError
from bridge.journal import Journal
from bridge.snapshot import SinkState, State
from bridge.statistics.series import (
    KeyTrends,
    Recorder,
    Sample,
    SinkSample,
    SiteCounters,
)

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
# Below, what one entry takes cannot be told from what an empty journal takes.
ENOUGH_ENTRIES = 1_000


class Since:
    """Since when something is as it is. Seen once a second, so a second too late at most."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Hashable, int | None]] = {}

    def see(self, now_us: int, facts: Mapping[str, Hashable]) -> None:
        """`facts`: by name what is the case; None, False and 0 are nothing to be said. What has
        a number already when it is first seen came before anybody looked."""
        for name, fact in facts.items():
            before = self._known.get(name)
            if before is None:
                counted = isinstance(fact, int) and not isinstance(fact, bool)
                self._known[name] = (fact, None if counted else now_us)
            elif before[0] != fact:
                self._known[name] = (fact, now_us)

    def of(self, name: str) -> int | None:
        """Microseconds since 1970; None where it is not known."""
        fact, since = self._known.get(name, (None, None))
        return since if fact else None


class Sampler:
    """`run` belongs to a thread of its own: it waits for the journal. The rest is safe from any."""

    def __init__(self, journal: Journal, state: Callable[[], State], clock: Clock) -> None:
        self._journal = journal
        self._state = state
        self._clock = clock
        self._stop = threading.Event()
        self._since = Since()
        self._recorder = Recorder()
        self._sites = SiteCounters()
        self._keys = KeyTrends()
        self.series = self._recorder.series
        self.site_rates = self._sites.rates
        self.key_growth = self._keys.growth
        self.since = self._since.of

    def run(self) -> None:
        """Until `stop`."""
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.look()
            except JournalError as error:
                # Who needs the journal says it louder.
                log.debug("no sample was taken", extra={"fields": {"error": str(error)}})
            except Exception:
                # A fault in here is none of the readings' business.
                log.error(
                    "no sample of the counters was taken: the bridge works on, the page's curves "
                    "have a gap. Report this line with its trace",
                    exc_info=True,
                )

    def stop(self) -> None:
        self._stop.set()

    def look(self) -> None:
        """What is done once a second."""
        state, now = self._state(), self._clock.monotonic()
        self._since.see(self._clock.now_us(), _facts(state))
        self._keys.look(now, key_usage(state))
        if self._recorder.due(now):
            received = self._journal.received_by_site()
            self._sites.add(now, received)
            self._recorder.add(self._sample(now, sum(received), state))

    def _sample(self, now: float, received: int, state: State) -> Sample:
        return Sample(
            at=now,
            unix=self._clock.now_us() // 1_000_000,
            received=received,
            last_seq=self._journal.last_seq,
            sinks={sink.name: self._sink(sink) for sink in state.sinks},
        )

    def _sink(self, sink: SinkState) -> SinkSample:
        return SinkSample(
            self._journal.settled(sink.name),
            sink.pending,
            sink.oldest_pending_seconds,
            sink.settle_latency_seconds.cumulative,
        )

    def bytes_per_entry(self) -> float | None:
        """What the journal takes per number that it gave out, ids and indexes included; None while
        it holds too little to tell."""
        held = self._journal.held_entries
        if held < ENOUGH_ENTRIES:
            return None
        return (self._journal.live_bytes - self._journal.letter_bytes) / held


def key_usage(state: State) -> Mapping[str, float]:
    """Bytes per second by ordering key, of the sink that has such."""
    return next((sink.key_usage for sink in state.sinks if sink.key_usage), {})


def _facts(state: State) -> dict[str, Hashable]:
    facts: dict[str, Hashable] = {
        "unready": state.unready is not None,
        "loss": state.loss is not None,
        "sessions_lost": state.sessions_lost,
        "broker_dropped": state.broker_dropped or 0,
        "qos0_dropped": state.qos0_dropped,
        "dead_letters": sum(state.rejected_by_reason.values()),
    }
    for sink in state.sinks:
        facts[f"held {sink.name}"] = sink.held is not None
        facts[f"error {sink.name}"] = sink.held is not None or sink.last_error is not None
    return facts
