"""A sink in memory, with the same contract as the others: for tests of what stands before it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from bridge.errors import SinkError, Transient
from bridge.policy import BatchPolicy
from bridge.reading import Entry, Reading
from bridge.sinks.base import Outcome

Answer = Outcome | SinkError | None


class MemorySink:
    """Accepts everything, at once, unless `script` says otherwise.

    script: asked for each batch; an Outcome or a SinkError is the answer (of an Outcome only the
    accepted are written); None accepts all. `hold` makes the writes of a lane stay open until
    `release`. Safe from any thread.
    """

    def __init__(
        self,
        name: str = "memory",
        by_site: bool = False,
        script: Callable[[Sequence[Entry]], Answer] | None = None,
        policy: BatchPolicy | None = None,
        ordered_copies: bool = False,
    ) -> None:
        self.name = name
        self.ordered_copies = ordered_copies
        self.policy = policy or BatchPolicy(max_entries=100, max_bytes=10_000_000)
        self.script = script or (lambda _batch: None)
        self.batches: list[list[int]] = []
        self.written: dict[str, list[Reading]] = defaultdict(list)
        self.opened = self.closed = False
        self._by_site = by_site
        self._held: dict[str, list[tuple[Sequence[Entry], Future[Outcome]]]] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        self.opened = True

    def lane(self, reading: Reading) -> str:
        return reading.site if self._by_site else ""

    def write(self, batch: Sequence[Entry]) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        lane = self.lane(batch[0].reading)
        with self._lock:
            self.batches.append([entry.seq for entry in batch])
            if lane in self._held:
                self._held[lane].append((list(batch), future))
                return future
        self._answer(batch, future)
        return future

    def hold(self, lane: str) -> None:
        """Let the lane's writes hang from now on."""
        with self._lock:
            self._held.setdefault(lane, [])

    def release(self, lane: str) -> None:
        """Answer the lane's writes again, those that hang included."""
        with self._lock:
            held = self._held.pop(lane, [])
        for batch, future in held:
            self._answer(batch, future)

    def ready_in(self, lane: str) -> float:
        return 0.0

    def usage(self) -> Mapping[str, float]:
        return {}

    def close(self) -> None:
        with self._lock:
            self.closed = True
            lanes, self._held = self._held, {}
        for held in lanes.values():
            for _, future in held:
                future.set_exception(Transient("cancelled", "the sink was closed"))

    def _answer(self, batch: Sequence[Entry], future: Future[Outcome]) -> None:
        answer = self.script(batch)
        if isinstance(answer, SinkError):
            future.set_exception(answer)
            return
        outcome = answer or Outcome([entry.seq for entry in batch], {})
        accepted = set(outcome.accepted)
        with self._lock:
            for entry in batch:
                if entry.seq in accepted:
                    self.written[self.lane(entry.reading)].append(entry.reading)
        future.set_result(outcome)
