"""One worker a sink: pending → write → settle → back off.

The worker's thread owns the lanes; the sink's answers come in from its own threads through a
queue. In each round it takes the answers in, settles them in one transaction, loads what is new,
and begins the writes that are due. Nothing is written before what was confirmed is settled.

A round costs a commit, and a write a request, whatever is in them; and many requests at once cost
a third of as many one by one. So the journal's commits give the beat: what one of them brings is
written at once, and what was answered meanwhile is settled with it. Rounds that write keep a
distance from each other, the more so the more they write: what comes meanwhile goes along. Of many
lanes only some write in one round, those first that wait for longest.
"""

from __future__ import annotations

import heapq
import logging
import queue
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from random import Random

from bridge.clock import Clock
from bridge.errors import (
    ConfigurationError,
    ContentRefused,
    Held,
    JournalDamaged,
    JournalError,
    SinkError,
    Transient,
)
from bridge.histogram import BATCH_BOUNDS, LATENCY_BOUNDS, Histogram
from bridge.journal import Journal, Settlement
from bridge.lanes import Lane
from bridge.loading import Loader
from bridge.policy import RetryPolicy
from bridge.reading import Entry
from bridge.sinks.base import Outcome, Sink
from bridge.sinks.log import reading_fields

log = logging.getLogger(__name__)

SLOW_SECONDS = 1.0  # a write open for longer no longer holds the others up
IDLE_SECONDS = 1.0
ROUND_SECONDS = 0.008  # between two rounds that write, at least
WRITE_SECONDS = 0.0015  # and so much for each write of the first of them
BURST = 5  # writes of a round: more at once keep the intake from its turn, and from the processor
PART = 10  # or so much of the lanes that wait, if that is more: looking at them all costs as well
MANY, CROWDED = 100, 3.0  # with more lanes that wait a round waits for so much longer: they fill up
SETTLE_SECONDS = 0.02  # for which answers wait for the next commit, to be settled along with it
LOADS_A_ROUND = 5
AT_ONCE_SECONDS = 0.2  # within which all lanes come back when one of them works again
JOURNAL_RETRY_SECONDS = 1.0
LAST_ANSWERS_SECONDS = 3.0
REFUSED_REMEDY = (
    "nothing of the latest batches was accepted, so the destination is taken to be at fault and "
    "nothing is given up: compare topic and table with what the bridge writes (run `check`)"
)
NO_ROOM_REMEDY = (
    "the store of dead letters is full: export and purge it, or raise DEAD_LETTER_MAX_BYTES"
)

_Answer = tuple[Lane, "Future[Outcome]"]


class Delivery:
    """Runs in its own thread (`run`); the other methods are safe from any thread."""

    def __init__(
        self, sink: Sink, journal: Journal, retry: RetryPolicy, clock: Clock, random: Random
    ) -> None:
        self.sink = sink
        self._journal = journal
        self._retry = retry
        self._clock = clock
        self._random = random
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._committed = threading.Event()
        self._stop = threading.Event()
        self._unsaved: list[Settlement] = []
        self._wrote_at = 0.0  # when the latest round that wrote began to, in monotonic seconds
        self._pause = 0.0  # that it asks for
        self._behind = False  # whether entries wait for nothing but an answer
        self.retries: Counter[str] = Counter()
        self.batch_sizes = Histogram(BATCH_BOUNDS)
        self.latencies = Histogram(LATENCY_BOUNDS)
        self.held: str | None = None
        self.last_error: str | None = None
        journal.listen(self._more)

    # --- from any thread --------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin no more writes and end `run` as soon as the open ones are answered."""
        self._stop.set()
        self._more()

    def _more(self) -> None:
        self._committed.set()
        self._wake.set()

    @property
    def drained(self) -> bool:
        """Whether everything in the journal is resolved for this sink."""
        return self._journal.pending(self.sink.name) == 0

    # --- the worker's thread ----------------------------------------------------------------------

    def run(self) -> None:
        """Deliver until `stop`. Raises JournalDamaged, and whatever a sink should not raise."""
        self._open()
        name = self.sink.name
        self._loader = Loader(
            self._journal,
            self.sink.lane,
            self._troubled,
            self._journal.resume(name),
            witnessed=self.sink.ordered_copies,
            sink=name,
        )
        self._loader.take_over(self._undecided())
        while not self._stop.is_set():
            self._rest(self._round())
        self._finish()

    def _rest(self, seconds: float) -> None:
        """Sleep between two rounds: for so long, unless woken; then until enough has come."""
        woken = self._wake.wait(seconds)
        if woken and seconds > 0 and not self._behind:
            self._committed.wait(SETTLE_SECONDS)  # answers alone are worth no round yet
        left = self._wrote_at + self._pause - self._clock.monotonic()
        if left > 0:
            self._stop.wait(left)
        self._wake.clear()
        self._committed.clear()

    def _open(self) -> None:
        attempts = 0
        while not self._stop.is_set():
            try:
                self.sink.open()
            except ConfigurationError as error:
                if attempts == 0:
                    raise  # found at the start: for the operator, before anything is taken
                attempts += 1
                self._not_open(Held("configuration", str(error), str(error)), attempts)
            except SinkError as error:
                attempts += 1
                self._not_open(error, attempts)
            else:
                self.held = self.last_error = None
                return

    def _not_open(self, error: SinkError, attempts: int) -> None:
        self.held = error.remedy if isinstance(error, Held) else None
        self._note(error, "")
        self._stop.wait(self._retry.delay(attempts, self._random))

    def _undecided(self) -> list[Entry]:
        """The entries of an append that was written down and not resolved."""
        intent = self._journal.append_intent(self.sink.name)
        if intent is None:
            return []
        position = self._journal.resume(self.sink.name).position
        return self._journal.entries(seq for seq in intent.seqs if seq > position)

    def _round(self) -> float:
        """One round; answers how many seconds to sleep unless woken."""
        self._take_answers()
        try:
            self._save()
            more = self._load()
        except JournalDamaged:
            raise
        except JournalError as error:
            log.error(
                "the journal cannot be used: nothing is sent to this sink until it can. Look at "
                "the disk that JOURNAL_PATH is on",
                extra={
                    "fields": {"sink": self.sink.name, "error": str(error)},
                    "apart": self.sink.name,
                },
            )
            self._stop.wait(JOURNAL_RETRY_SECONDS)
            return 0.0
        wait = self._dispatch_all()
        self._sum_up()
        return 0.0 if more else wait

    def _load(self) -> bool:
        """Fill the lanes; answers whether there is more to be had at once."""
        return all(self._loader.load() for _ in range(LOADS_A_ROUND))

    def _dispatch_all(self) -> float:
        now = self._clock.monotonic()
        wait = IDLE_SECONDS
        ready = []
        self._behind = False
        for lane in list(self._loader.lanes.values()):
            if lane.in_flight:
                self._behind = self._behind or bool(lane.queue)
                continue
            if lane.idle:
                self._loader.forget_idle(lane)
            elif lane.nothing_accepted:
                self._hold(lane)
                wait = min(wait, lane.retry_at - now)
            elif lane.batch or lane.queue:
                due_in = max(lane.retry_at - now, self.sink.ready_in(lane.key))
                if due_in <= 0:
                    ready.append(lane)
                else:
                    wait = min(wait, due_in)
        writes = max(BURST, len(ready) // PART)
        for lane in heapq.nsmallest(writes, ready, key=lambda lane: lane.next_seq):
            self._begin(lane, now)
        if ready:
            each = WRITE_SECONDS * (CROWDED if len(ready) > MANY else 1.0)
            self._wrote_at, self._pause = now, max(ROUND_SECONDS, each * min(writes, len(ready)))
        return 0.0 if len(ready) > writes else wait

    def _begin(self, lane: Lane, now: float) -> None:
        batch = lane.next_batch(self.sink.policy)
        lane.in_flight, lane.sent_at = True, now
        self.batch_sizes.observe(len(batch))
        future = self.sink.write(batch)
        future.add_done_callback(lambda done: self._hand_over(lane, done))

    def _hand_over(self, lane: Lane, future: Future[Outcome]) -> None:
        # In a thread of the sink: the worker does the rest.
        self._answers.put((lane, future))
        self._wake.set()

    def _take_answers(self) -> None:
        while True:
            try:
                lane, future = self._answers.get_nowait()
            except queue.Empty:
                return
            lane.in_flight = False
            self._take(lane, future)

    def _take(self, lane: Lane, future: Future[Outcome]) -> None:
        letters_allowed = self._journal.has_room_for_letters()
        try:
            settlement = lane.answered(future.result(), letters_allowed)
        except ContentRefused as error:
            self._count(error)
            settlement = lane.refused(error.detail, letters_allowed)
        except SinkError as error:
            self._failed(lane, error)
            return
        except JournalDamaged:
            raise
        except JournalError as error:
            self._failed(lane, Transient("journal", str(error)))
            return
        if settlement is not None:
            self._worked(lane, settlement)

    def _worked(self, lane: Lane, settlement: Settlement) -> None:
        self._unsaved.append(settlement)
        if lane.attempts and settlement.settled:
            log.info(
                "the sink works again: what waited for it is being sent",
                extra={
                    "fields": {"sink": self.sink.name, "lane": lane.key},
                    "apart": self.sink.name,
                },
            )
            self._try_others()
        # A dead letter says so as well: it takes an accepted neighbour to make one.
        lane.attempts, lane.held, lane.error = 0, None, None
        if settlement.settled:
            self._observe(settlement.settled)
            self._trace(settlement.settled)
        for refused in settlement.refused:
            log.warning(
                "the sink refuses a reading for good: it is kept as a dead letter, and its "
                "neighbours went through. Look at it with `dead-letters list`",
                extra={
                    "fields": {
                        "sink": self.sink.name,
                        "site": refused.entry.reading.site,
                        "event_id": refused.entry.reading.event_id.hex(),
                        "detail": refused.detail,
                    },
                    "apart": self.sink.name,
                },
            )

    def _try_others(self) -> None:
        """What kept one lane from working was most often what keeps the others: they need not
        wait until it is their turn."""
        now = self._clock.monotonic()
        for lane in self._loader.lanes.values():
            lane.retry_at = min(lane.retry_at, now + self._random.uniform(0.0, AT_ONCE_SECONDS))

    def _trace(self, settled: Sequence[Entry]) -> None:
        """A line a reading, for those who look for one: at DEBUG alone."""
        if log.isEnabledFor(logging.DEBUG):
            for entry in settled:
                fields = {"sink": self.sink.name, **reading_fields(entry.reading)}
                log.debug("reading settled", extra={"fields": fields})

    def _observe(self, settled: Sequence[Entry]) -> None:
        now = self._clock.now_us()
        # In order of arrival, nearly: readings that are sent again came long before the others.
        self.latencies.observe_ascending(
            sorted(max(0, now - entry.reading.received_us) / 1e6 for entry in reversed(settled))
        )

    def _failed(self, lane: Lane, error: SinkError) -> None:
        lane.attempts += 1
        lane.retry_at = self._clock.monotonic() + self._retry.delay(lane.attempts, self._random)
        lane.held = error.remedy if isinstance(error, Held) else None
        lane.error = str(error)
        self._note(error, lane.key)

    def _hold(self, lane: Lane) -> None:
        """Nothing was accepted beside the refused: the destination is at fault, not the entries."""
        detail = lane.suspects[0].detail
        room = self._journal.has_room_for_letters()
        lane.give_back_suspects()
        remedy = REFUSED_REMEDY if room else NO_ROOM_REMEDY
        self._failed(lane, Held("refused", detail, remedy))

    def _note(self, error: SinkError, lane: str) -> None:
        self._count(error)
        self.last_error = str(error)
        extra = {
            "fields": self._fields(error, lane),
            "apart": f"{self.sink.name} {error.reason}",
        }
        if isinstance(error, Held):
            log.error(
                "the sink is held: its readings wait in the journal, and it is tried again. Do "
                "what `remedy` says; nothing else will mend it",
                extra=extra,
            )
        else:
            log.warning(
                "the sink failed: its readings wait in the journal, and are sent again soon. "
                "Nothing is to be done, unless it lasts",
                extra=extra,
            )

    def _fields(self, error: SinkError, lane: str) -> dict[str, str]:
        fields = {"sink": self.sink.name, "reason": error.reason, "detail": error.detail}
        if lane:
            fields["lane"] = lane
        if isinstance(error, Held):
            fields["remedy"] = error.remedy
        return fields

    def _count(self, error: SinkError) -> None:
        self.retries[error.reason] += 1

    def _save(self) -> None:
        """Settle what was answered. Raises JournalError, and keeps it for the next round."""
        if self._unsaved:
            self._journal.settle(self.sink.name, self._unsaved, self._loader.position())
            self._unsaved = []

    def _sum_up(self) -> None:
        lanes = self._loader.lanes.values()
        self.held = next((lane.held for lane in lanes if lane.held), None)
        self.last_error = next((lane.error for lane in lanes if lane.error), None)

    def _troubled(self, lane: Lane) -> bool:
        if lane.attempts and lane.size:  # with nothing in hand there is nothing to wait for
            return True
        return lane.in_flight and self._clock.monotonic() - lane.sent_at > SLOW_SECONDS

    def _finish(self) -> None:
        """Take in what is answered soon; what is not stays in the journal."""
        deadline = self._clock.monotonic() + LAST_ANSWERS_SECONDS
        while any(lane.in_flight for lane in self._loader.lanes.values()):
            left = deadline - self._clock.monotonic()
            if left <= 0:
                break
            self._wake.wait(min(left, 0.2))
            self._wake.clear()
            self._take_answers()
        self._take_answers()
        self._save()
