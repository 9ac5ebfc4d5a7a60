"""What a sink is. Batching, order, retry and persistence are not its business (`delivery.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from bridge.policy import BatchPolicy
from bridge.reading import Entry, Reading


class Outcome(NamedTuple):
    """The service's definite answer to one batch.

    accepted: sequence numbers of the entries that are there now.
    refused: per sequence number why the service will never take that entry as it is.
    Whatever is named by neither is kept, and was not applied.
    """

    accepted: Sequence[int]
    refused: Mapping[int, str]


class Sink(Protocol):
    """Somewhere readings go. `open` and `close` are called once, from one thread; `write` from
    one thread, for several lanes at a time, but never for a lane that still has a write open."""

    name: str
    policy: BatchPolicy
    # Whether the order within a lane counts, and an accepted entry may be written once more.
    ordered_copies: bool

    def open(self) -> None:
        """Connect and look whether the destination fits. May block. Raises ConfigurationError
        for what can never work (the process ends), SinkError for what may work later."""

    def lane(self, reading: Reading) -> str:
        """The order a reading belongs to: the batches of one lane are written one at a time, in
        order; lanes do not wait for each other. Pure."""

    def write(self, batch: Sequence[Entry]) -> Future[Outcome]:
        """Begin to write a batch, not empty, within the policy. Does not block; the future ends
        within a bounded time, in any thread: with an Outcome, or with a SinkError. After
        `Transient` and `Held` the same batch comes again before anything later of its lane, and
        writing a batch again that is there already must be harmless to what the sink promises."""

    def ready_in(self, lane: str) -> float:
        """Seconds until the service's own limits let this lane be written to; 0: now. Does not
        block. From the thread that writes."""

    def usage(self) -> Mapping[str, float]:
        """Bytes a second by lane over the last minute or so, where the service limits lanes.
        Does not block. From any thread."""

    def close(self) -> None:
        """Let go of everything; open writes may end with an error. Idempotent."""
