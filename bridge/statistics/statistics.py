"""All figures of one daemon: what the service starts and stops, and the web side asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bridge.clock import Clock
from bridge.journal import Journal
from bridge.snapshot import State
from bridge.statistics.collector import Collector
from bridge.statistics.sampler import Sampler
from bridge.statistics.series import INTAKE_SECONDS
from bridge.statistics.tags import Tags


class Statistics:
    """`run_tags` and `run_samples` belong to a thread each; everything else is safe from any, but
    for `collector`, which is the first thread's.
    state: the daemon's, asked once a second."""

    def __init__(self, journal: Journal, state: Callable[[], State], clock: Clock) -> None:
        self._journal = journal
        self.collector = Collector(journal, clock)
        self.samples = Sampler(journal, state, clock)
        self.tags = Tags(
            self.collector.path, lambda: self.collector.problem, lambda: self.collector.rounds
        )
        self.run_tags = self.collector.run
        self.run_samples = self.samples.run
        self.started_us = clock.now_us()

    def stop(self) -> None:
        """Begin to end both threads."""
        self.collector.stop()
        self.samples.stop()

    @property
    def journal_path(self) -> Path:
        return self._journal.path

    @property
    def max_bytes(self) -> int:
        """What the journal may take now: JOURNAL_MAX_BYTES, or less on a full disk."""
        return self._journal.ceiling_bytes

    # --- figures of tags --------------------------------------------------------------------------

    @property
    def problem(self) -> str | None:
        """Why there are no figures of tags, in words; None when there are."""
        return self.collector.problem

    @property
    def behind_seconds(self) -> float:
        """How old the newest of what the figures of tags are made from may be."""
        return self.collector.behind_seconds

    @property
    def tags_left_out(self) -> int:
        """Tags among the latest readings for which there was no place."""
        return self.collector.tags_left_out

    # --- the journal ------------------------------------------------------------------------------

    def seconds_until_full_without_sinks(self) -> float | None:
        """How long the journal lasts at the last ten minutes' rate of intake if nothing is settled
        from now on. Settled readings make room when it is needed, so they do not count. None
        while nothing comes, or while the journal holds too little to tell what a reading takes."""
        size = self.samples.bytes_per_entry()
        series = self.samples.series()
        rate = series.rate(lambda sample: sample.last_seq, INTAKE_SECONDS)
        if size is None or not rate:
            return None
        unsettled = max((sink.pending for sink in series.samples[-1].sinks.values()), default=0)
        taken = self._journal.letter_bytes + unsettled * size
        return max(0.0, self._journal.ceiling_bytes - taken) / (size * rate)
