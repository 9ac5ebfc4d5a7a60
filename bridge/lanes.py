"""One lane of a sink: entries in order, one batch at a time, and what the answers make of them.

A batch, once tried, stays what it is until there is a definite answer; a definite answer that
did not take all of it frees the rest to be regrouped. An entry that the service refuses for good
is first a suspect. Once a neighbour is accepted it is tried once more, for the destination may
have been mended in between; refused again, or refused beside an accepted one, it is the entry's
own fault (a dead letter). While nothing is accepted, the destination is at fault, and the lane is
held.

The neighbour is whatever comes next, which then overtakes a suspect that turns out to be innocent.
Where order counts and copies do no harm (`witnessed`), it is a copy of the last entry that was
accepted, as long as there is one.

Pure state, no time of its own, no threads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

from bridge.journal import LaneProgress, Settlement
from bridge.journal.letters import Refused
from bridge.policy import BatchPolicy, fitting
from bridge.reading import Entry
from bridge.sinks.base import Outcome

LARGEST_CHUNK = 4096
# Refusals in a row, without any acceptance, before the lane is held. It grows slowly, so that the
# good entries behind many bad ones are found in the end: each suspect that is passed by comes out
# of order if it was the destination's fault.
MAX_REFUSALS = 3
ATTEMPTS_A_REFUSAL_MORE = 10


class Lane:
    """Made by the delivery, used from its thread alone."""

    def __init__(
        self,
        key: str,
        progress: LaneProgress | None = None,
        witnessed: bool = False,
        witness: Entry | None = None,
    ) -> None:
        self.key = key
        self.witness = witness  # the last entry that was accepted, if it may be sent again
        self._witnessed = witnessed
        self._asking = False  # the batch is a copy of the witness
        self._witness_refused = False
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
        self._refusals = 0  # batches in a row that were refused altogether
        self._rest = 0  # how many of the queue are what is left of a batch with refused rows
        self._again: set[int] = set()  # suspects of which a neighbour was accepted since
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
    def next_seq(self) -> int:
        """The first entry of the next write. There must be one."""
        return (self.batch or self.queue)[0].seq

    @property
    def first_open(self) -> int | None:
        """The first entry that is not resolved; None when idle."""
        batch = [] if self._asking else self.batch
        open_ = [entries[0].seq for entries in (self.queue, batch) if entries]
        if self.suspects:
            open_.append(min(refused.entry.seq for refused in self.suspects))
        if self.spilled is not None:
            open_.append(self.spilled)
        return min(open_, default=None)

    def next_batch(self, policy: BatchPolicy) -> list[Entry]:
        """The batch to write now: the one that has to be tried again, or the next of the queue."""
        if not self.batch:
            count = min(fitting(self.queue, policy), self._bound())
            self._rest = 0
            self.batch = [self.queue.popleft() for _ in range(count)]
        return self.batch

    def _bound(self) -> int:
        if self._rest:
            # By themselves, for they have just been looked at: with others there would be no end
            # of refusals where every batch has a bad row.
            return self._rest
        if self.chunk is None:
            return len(self.queue)
        return 1 if self.queue[0].seq in self._again else self.chunk

    # --- what an answer makes of it ---------------------------------------------------------------

    def answered(self, outcome: Outcome, letters_allowed: bool) -> Settlement | None:
        """Take a definite answer in. Answers what there is to settle, if anything."""
        batch, self.batch = self.batch, []
        if self._asking:
            self._testified()
            return None
        settled = batch
        if len(outcome.accepted) < len(batch):
            accepted = frozenset(outcome.accepted)
            settled = [entry for entry in batch if entry.seq in accepted]
            self._sort_out(batch, accepted, outcome)
        if settled:
            self._refusals = 0
            self._again.update(outcome.refused)
            self._grow_chunk()
            self.witness = settled[-1] if self._witnessed else None
        elif outcome.refused:
            self._rest = len(batch) - len(outcome.refused)
            self._refusals += self._rest == 0
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
        self.chunk *= 2
        if self.chunk >= LARGEST_CHUNK:
            self._stop_looking()

    def _stop_looking(self) -> None:
        self.chunk = None
        self._neighbour_accepted = False

    def refused(self, detail: str, letters_allowed: bool) -> Settlement | None:
        """Something in the batch is refused, nothing of it was applied, and the service did not
        say what: halve it, down to the culprit. Answers what there is to settle, if anything."""
        batch, self.batch = self.batch, []
        if self._asking:
            self._asking, self._witness_refused = False, True
            return None
        self.chunk = (len(batch) + 1) // 2
        if len(batch) > 1:
            self._put_back(batch)
            return None
        self._refusals += 1
        self.suspects.append(Refused(batch[0], "refused", detail))
        if self.witness is not None and batch[0].seq not in self._again:
            self._asking, self.batch = True, [self.witness]
            return None
        if self._neighbour_accepted:
            # One acceptance speaks against one suspect only: the destination may change meanwhile.
            self._neighbour_accepted = False
            self._again.add(batch[0].seq)
        return self._settlement([], letters_allowed)

    def _testified(self) -> None:
        """The witness was accepted again: the destination works, and the suspects get their last
        try before anything later."""
        self._asking, self._refusals = False, 0
        self._again.update(suspect.entry.seq for suspect in self.suspects)
        self._try_again(self.suspects)
        self.suspects = []

    @property
    def nothing_accepted(self) -> bool:
        """Whether there are suspects, and too many refusals in a row or nobody left to compare
        them with."""
        if self._asking or self._witness_refused:
            return self._witness_refused
        bound = MAX_REFUSALS + self.attempts // ATTEMPTS_A_REFUSAL_MORE
        return bool(self.suspects) and (self._refusals >= bound or not (self.queue or self.batch))

    def give_back_suspects(self) -> None:
        """Try the suspects again, together with what has come behind them."""
        self._refusals = 0
        self._witness_refused = False
        self._stop_looking()
        self._try_again(self.suspects)
        self.suspects = []

    def has(self, seq: int) -> bool:
        """Whether an entry is a suspect, or was resolved ahead of one that is not."""
        index = bisect_left(self._resolved, seq)
        if index < len(self._resolved) and self._resolved[index] == seq:
            return True
        return any(refused.entry.seq == seq for refused in self.suspects)

    def _put_back(self, entries: Iterable[Entry]) -> None:
        returned = list(entries)
        if returned:
            self.queue = deque(sorted([*returned, *self.queue]))

    def _try_again(self, suspects: Iterable[Refused]) -> None:
        self._put_back(refused.entry for refused in suspects)

    def _settlement(self, settled: Sequence[Entry], letters_allowed: bool) -> Settlement | None:
        letters: list[Refused] = []
        if self.suspects:
            letters = self._convicted(settled, letters_allowed)
        if not settled and not letters:
            return None
        resolved = [entry.seq for entry in settled] + [letter.entry.seq for letter in letters]
        if self._again:
            self._again.difference_update(resolved)
        return Settlement(self.key, self._progress(resolved), settled, letters)

    def _convicted(self, settled: Sequence[Entry], letters_allowed: bool) -> list[Refused]:
        """The suspects that are dead letters now. What was accepted gives the others another try;
        those for which there is no room stay."""
        guilty = [suspect for suspect in self.suspects if suspect.entry.seq in self._again]
        if settled and len(guilty) < len(self.suspects):
            others = [s for s in self.suspects if s.entry.seq not in self._again]
            self._again.update(suspect.entry.seq for suspect in others)
            self._try_again(others)
            self.suspects = guilty
        if not letters_allowed:
            return []
        self.suspects = [s for s in self.suspects if s.entry.seq not in self._again]
        return guilty

    def _progress(self, resolved: list[int]) -> LaneProgress:
        everything = sorted(self._resolved + resolved)
        unresolved = self.first_open
        if unresolved is None:
            self._position, self._resolved = everything[-1], []
        else:
            self._position = max(self._position, unresolved - 1)
            self._resolved = [seq for seq in everything if seq > self._position]
        return LaneProgress(self._position, tuple(self._resolved))
