"""One lane of a sink: entries in order, one batch at a time, and what the answers make of them.

A batch, once tried, stays what it is until there is a definite answer; a definite answer that
did not take all of it frees the rest to be regrouped. An entry that the service refuses for good
is first a suspect: only when a neighbour of it was accepted is it the entry's own fault (a dead
letter). While nothing is accepted, the destination is at fault, and the lane is held.

Pure state, no time of its own, no threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from bridge.journal import LaneProgress, Settlement
from bridge.journal.letters import Refused
from bridge.policy import BatchPolicy, fitting
from bridge.reading import Entry
from bridge.sinks.base import Outcome

LARGEST_CHUNK = 4096
MAX_SUSPECTS = 3  # without any acceptance, before the lane is held; doubles with each attempt


class Lane:
    """Made by the delivery, used from its thread alone."""

    def __init__(self, key: str, progress: LaneProgress | None = None) -> None:
        self.key = key
        self.queue: deque[Entry] = deque()  # not tried yet
        self.batch: list[Entry] = []  # being tried, or to be tried again as it is
        self.in_flight = False
        self.suspects: list[Refused] = []
        self.chunk: int | None = None  # bound of the next batch while looking for a culprit
        self.attempts = 0  # failures in a row
        self.retry_at = 0.0  # monotonic seconds
        self.sent_at = 0.0
        self.held: str | None = None
        self.error: str | None = None
        self.spilled: int | None = None  # first entry that is only in the journal
        self._position = progress.position if progress else 0
        self._resolved = list(progress.beyond) if progress else []  # past the lane's position
        self._neighbour_accepted = False  # while looking for a culprit

    # --- what there is to do ----------------------------------------------------------------------

    @property
    def size(self) -> int:
        return len(self.queue) + len(self.batch) + len(self.suspects)

    @property
    def idle(self) -> bool:
        """Whether nothing of this lane is outstanding."""
        return not (self.queue or self.batch or self.suspects) and self.spilled is None

    @property
    def first_open(self) -> int | None:
        """The first entry that is not resolved; None when idle."""
        open_ = [entries[0].seq for entries in (self.queue, self.batch) if entries]
        if self.suspects:
            open_.append(min(refused.entry.seq for refused in self.suspects))
        if self.spilled is not None:
            open_.append(self.spilled)
        return min(open_, default=None)

    def next_batch(self, policy: BatchPolicy) -> list[Entry]:
        """The batch to write now: the one that has to be tried again, or the next of the queue."""
        if not self.batch:
            count = fitting(self.queue, policy)
            if self.chunk is not None:
                count = min(count, self.chunk)
            self.batch = [self.queue.popleft() for _ in range(count)]
        return self.batch

    # --- what an answer makes of it ---------------------------------------------------------------

    def answered(self, outcome: Outcome, letters_allowed: bool) -> Settlement | None:
        """Take a definite answer in. Answers what there is to settle, if anything."""
        batch, self.batch = self.batch, []
        accepted = frozenset(outcome.accepted)
        if len(accepted) == len(batch):
            settled = batch
        else:
            settled = [entry for entry in batch if entry.seq in accepted]
            self._sort_out(batch, accepted, outcome)
        if not settled:
            return None
        self._grow_chunk()
        return self._settlement(settled, letters_allowed)

    def _sort_out(self, batch: list[Entry], accepted: frozenset[int], outcome: Outcome) -> None:
        kept = []
        for entry in batch:
            if entry.seq in outcome.refused:
                self.suspects.append(Refused(entry, "refused", outcome.refused[entry.seq]))
            elif entry.seq not in accepted:
                kept.append(entry)
        self._put_back(kept)

    def _grow_chunk(self) -> None:
        if self.chunk is None:
            return
        self._neighbour_accepted = True
        self.chunk = self.chunk * 2
        if self.chunk >= LARGEST_CHUNK:
            self._stop_looking()

    def refused(self, detail: str, letters_allowed: bool) -> Settlement | None:
        """Something in the batch is refused, nothing of it was applied, and the service did not
        say what: halve it, down to the culprit. Answers what there is to settle, if anything."""
        batch, self.batch = self.batch, []
        if len(batch) > 1:
            self.chunk = (len(batch) + 1) // 2
            self._put_back(batch)
            return None
        self.suspects.append(Refused(batch[0], "refused", detail))
        if not self._neighbour_accepted:
            return None
        # One acceptance speaks against one suspect only: the destination may change meanwhile.
        self._neighbour_accepted = False
        return self._settlement([], letters_allowed) if letters_allowed else None

    def _stop_looking(self) -> None:
        self.chunk = None
        self._neighbour_accepted = False

    @property
    def nothing_accepted(self) -> bool:
        """Whether there are suspects, and too many of them or nobody left to compare them with."""
        bound = MAX_SUSPECTS * 2 ** min(self.attempts, 12)
        return bool(self.suspects) and (
            len(self.suspects) >= bound or not (self.queue or self.batch)
        )

    def give_back_suspects(self) -> None:
        """Try the suspects again, together with what has come behind them."""
        suspects, self.suspects = self.suspects, []
        self._put_back([refused.entry for refused in suspects])
        self._stop_looking()

    def _put_back(self, entries: Iterable[Entry]) -> None:
        returned = list(entries)
        if returned:
            self.queue = deque(sorted([*returned, *self.queue]))

    def _settlement(self, settled: Sequence[Entry], letters_allowed: bool) -> Settlement:
        letters: list[Refused] = []
        if letters_allowed:
            letters, self.suspects = self.suspects, []
        resolved = [entry.seq for entry in settled] + [letter.entry.seq for letter in letters]
        return Settlement(self.key, self._progress(resolved), settled, letters)

    def _progress(self, resolved: list[int]) -> LaneProgress:
        everything = sorted(self._resolved + resolved)
        unresolved = self.first_open
        if unresolved is None:
            self._position, self._resolved = everything[-1], []
        else:
            self._position = max(self._position, unresolved - 1)
            self._resolved = [seq for seq in everything if seq > self._position]
        return LaneProgress(self._position, tuple(self._resolved))
