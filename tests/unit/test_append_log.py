"""The undecided append of the run before: what the delivery begins with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.clock import SystemClock
from bridge.journal import AppendIntent, Journal, LaneProgress, Settlement
from bridge.journal.journal import Limits
from bridge.policy import BatchPolicy
from bridge.sinks.memory import MemorySink
from bridge.wiring import JournalAppendLog
from tests.contract.sink_harness import readings, running

NAME = "bigquery"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """Ten entries, of which none is settled."""
    opened = Journal(path, Limits(), SystemClock())
    opened.open()
    opened.activate({NAME: "here"})
    opened.append(readings(10), [])
    yield opened
    opened.close()


def begun_with(path: Path, batch: int = 4) -> list[list[int]]:
    """The batches of the next run."""
    sink = MemorySink(NAME, policy=BatchPolicy(batch, 10_000_000))
    with running(path, lambda _journal: sink) as run:
        run.drain()
        assert run.journal.sites()["MOR"].balanced
    return sink.batches


def settle(journal: Journal, *seqs: int) -> None:
    """Settle these, and nothing before them that is open."""
    entries = journal.entries(seqs)
    position = 0
    while position + 1 in seqs:
        position += 1
    beyond = tuple(seq for seq in seqs if seq > position)
    progress = LaneProgress(position, beyond)
    journal.settle(NAME, [Settlement("", progress, entries)], position)


def test_the_append_log_answers_what_was_recorded_last(journal: Journal) -> None:
    log = JournalAppendLog(journal)
    assert log.load() is None
    for intent in (
        AppendIntent("s", 0, (1, 2)),
        AppendIntent("s", 2, ()),
        AppendIntent("", 0, (3,)),
    ):
        log.record(intent)
        assert log.load() == intent


def test_without_an_append_the_delivery_begins_with_what_is_open(
    journal: Journal, path: Path
) -> None:
    journal.close()
    assert begun_with(path) == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_an_undecided_append_is_sent_first_and_as_it_was(journal: Journal, path: Path) -> None:
    journal.record_append(NAME, AppendIntent("s", 0, (2, 3, 5, 7, 8, 9)))
    journal.close()
    assert begun_with(path) == [[2, 3, 5, 7, 8, 9], [1, 4, 6, 10]]


def test_a_settled_append_is_not_sent_again(journal: Journal, path: Path) -> None:
    journal.record_append(NAME, AppendIntent("s", 0, (1, 2, 3)))
    settle(journal, 1, 2, 3)
    journal.close()
    assert begun_with(path) == [[4, 5, 6, 7], [8, 9, 10]]


def test_a_settled_append_ahead_of_an_open_entry_is_not_sent_again(
    journal: Journal, path: Path
) -> None:
    journal.record_append(NAME, AppendIntent("s", 0, (3, 4)))
    settle(journal, 3, 4)
    journal.close()
    assert begun_with(path) == [[1, 2, 5, 6], [7, 8, 9, 10]]


@pytest.mark.parametrize("settled", [(1,), (2,), (3,), (1, 3)])
def test_of_an_append_that_was_settled_in_part_only_the_rest_is_sent(
    journal: Journal, path: Path, settled: tuple[int, ...]
) -> None:
    journal.record_append(NAME, AppendIntent("", 0, (1, 2, 3)))
    settle(journal, *settled)
    journal.close()
    batches = begun_with(path)
    assert batches[0] == [seq for seq in (1, 2, 3) if seq not in settled]
    written = sorted(seq for batch in batches for seq in batch)
    assert written == [seq for seq in range(1, 11) if seq not in settled]


def test_an_append_without_entries_changes_nothing(journal: Journal, path: Path) -> None:
    journal.record_append(NAME, AppendIntent("s", 7, ()))
    journal.close()
    assert begun_with(path, batch=10) == [list(range(1, 11))]
