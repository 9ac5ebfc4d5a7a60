"""What goes into the journal and comes out of it, beside readings and letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bridge.journal.letters import Refused
from bridge.reading import Entry


class Limits(NamedTuple):
    """Sizes in bytes, times in microseconds. `forwarding`: a dead-letter topic is configured.
    `ledger_days`: for how many days the ledger by day is kept."""

    max_bytes: int = 4 * 1024**3
    dead_letter_max_bytes: int = 256 * 1024**2
    retention_us: int = 35 * 60_000_000
    forwarding: bool = False
    ledger_days: int = 400


class Appended(NamedTuple):
    """What became of a batch. `deferred`: indexes of the rejections for which there was no room;
    they are not stored, not counted and must not be acknowledged."""

    accepted: int
    duplicates: int
    deferred: frozenset[int]
    last_seq: int


class LaneProgress(NamedTuple):
    """How far a lane is: resolved up to `position`, and the entries of `beyond`."""

    position: int
    beyond: tuple[int, ...]


class Settlement(NamedTuple):
    """What one answer of a sink settles in one lane. reference: as in the sink's `Outcome`."""

    lane: str
    progress: LaneProgress
    settled: Sequence[Entry]
    refused: Sequence[Refused] = ()
    reference: str = ""


class AppendIntent(NamedTuple):
    """Which entries, in which order, were or will be appended at which offset of which stream."""

    stream: str
    offset: int
    seqs: tuple[int, ...]


class Resume(NamedTuple):
    """Where a sink goes on: resolved up to `position`, and per lane what is beyond it."""

    position: int
    lanes: dict[str, LaneProgress]
