"""Sinks of a journal: which there are, where they lead, and what they read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import EXIT_CONFIG, DestinationChanged, JournalError
from bridge.journal import Journal, tail
from bridge.journal.journal import READ_BYTES
from bridge.journal.tail import Tail
from bridge.parsing.identity import canonical_json
from bridge.reading import Entry, Reading
from bridge.snapshot import SinkCounts
from tests.support.clock import ManualClock
from tests.support.journals import (
    Limits,
    audit,
    new_journal,
    opened,
    pass_time,
    settle,
    settle_everything,
)
from tests.support.readings import reading


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


MOVED = {"pubsub": "project/topic", "bigquery": "project.dataset.other"}
GONE = {"pubsub": "project/topic"}


def activation(path: Path, sinks: dict[str, str], accept: bool = False) -> None:
    journal = Journal(path, Limits(), ManualClock())
    journal.open()
    try:
        journal.activate(sinks, accept)
    finally:
        journal.close()


# --- destinations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sinks", [MOVED, GONE], ids=["moved", "gone"])
def test_a_destination_with_unsettled_readings_cannot_change(
    path: Path, sinks: dict[str, str]
) -> None:
    with opened(path) as journal:
        journal.append([reading(1), reading(2)], [])
        settle(journal, "bigquery", journal.read(0, 1))
        settle_everything(journal, ["pubsub"])
    for _ in range(2):  # as often as it is tried
        with pytest.raises(DestinationChanged) as caught:
            activation(path, sinks)
        assert caught.value.exit_code == EXIT_CONFIG == 78
        words = str(caught.value)
        assert "1 readings" in words
        assert "sink bigquery" in words
        assert "project.dataset.table" in words
        assert sinks.get("bigquery", "no such sink") in words
        assert "--accept-destination-change" in words
    with opened(path) as journal:  # the former configuration still works
        assert journal.pending("bigquery") == 1


@pytest.mark.parametrize("sinks", [MOVED, GONE], ids=["moved", "gone"])
def test_a_destination_with_nothing_unsettled_may_change(path: Path, sinks: dict[str, str]) -> None:
    with opened(path) as journal:
        journal.append([reading(1)], [])
        settle_everything(journal)
    activation(path, sinks)
    with opened(path, sinks=sinks) as journal:
        assert set(journal.sites()["MOR"].sinks) == set(sinks)
        assert journal.sites()["MOR"].balanced


def test_with_the_flag_unsettled_readings_go_to_the_new_destination(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(1), reading(2)], [])
        settle_everything(journal, ["pubsub"])
        settle(journal, "bigquery", journal.read(0, 1))
    activation(path, MOVED, accept=True)
    with opened(path, sinks=MOVED) as journal:
        assert journal.pending("bigquery") == 1
        settle_everything(journal, ["bigquery"])
        assert journal.sites()["MOR"].sinks["bigquery"] == SinkCounts(settled=2)
        assert journal.sites()["MOR"].balanced
    audit(path)


def test_with_the_flag_a_removed_sinks_readings_are_given_up_and_hold_nothing_back(
    path: Path,
) -> None:
    clock = ManualClock()
    limits = Limits(retention_us=0)
    with opened(path, limits, clock) as journal:
        journal.acknowledged(journal.append([reading(1), reading(2)], []).last_seq)
        settle_everything(journal, ["pubsub"])
        settle(journal, "bigquery", journal.read(0, 1))
    activation(path, GONE, accept=True)
    with opened(path, limits, clock, GONE) as journal:
        pass_time(journal, clock, 60)
        assert journal.read(0, 10) == []
    with opened(path, limits, clock) as journal:  # and comes back
        assert journal.sites()["MOR"].sinks["bigquery"] == SinkCounts(settled=1, skipped=1)
        assert journal.sites()["MOR"].balanced
        journal.append([reading(3)], [])
        assert journal.pending("bigquery") == 1
    audit(path)


def test_a_sink_new_to_a_journal_starts_at_its_end_and_the_ledger_stays_balanced(
    path: Path,
) -> None:
    with opened(path, sinks=GONE) as journal:
        journal.append([reading(1), reading(2, "NEV")], [])
        settle(journal, "pubsub", journal.read(0, 1))
    with opened(path) as journal:
        assert journal.resume("bigquery").position == journal.last_seq
        assert journal.pending("bigquery") == 0
        journal.append([reading(3), reading(4, "NEW")], [])
        settle(journal, "bigquery", journal.read(2, 1))
        sites = journal.sites()
        assert sites["MOR"].sinks["bigquery"] == SinkCounts(settled=1, skipped=1)
        assert sites["NEV"].sinks["bigquery"] == SinkCounts(skipped=1)
        assert sites["NEW"].sinks["bigquery"] == SinkCounts(pending=1)
        assert all(site.balanced for site in sites.values())
    with opened(path) as journal:
        assert journal.sites() == sites
    audit(path)


# --- reading --------------------------------------------------------------------------------------

whole_numbers = st.integers(-(2**63), 2**63 - 1)
plain_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
attributes = st.dictionaries(plain_text, st.integers() | plain_text | st.booleans(), max_size=3)
extreme_readings = st.builds(
    Reading,
    event_id=st.binary(min_size=16, max_size=16),
    site=plain_text,
    pi_tag=plain_text,
    sensor_id=plain_text,
    event_us=whole_numbers,
    value=st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0),
    received_us=whole_numbers,
    attributes=attributes.map(lambda value: canonical_json(value) if value else None),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(extreme_readings, min_size=1, max_size=20, unique_by=lambda one: one.event_id))
def test_entries_from_memory_and_from_the_disk_are_equal(
    tmp_path_factory: pytest.TempPathFactory, batch: list[Reading]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    with opened(path) as journal:
        journal.append(batch, [])
        from_memory = journal.read(0, 100)
        assert [entry.reading for entry in from_memory] == batch
        assert journal.entries([entry.seq for entry in from_memory]) == from_memory
    with opened(path) as journal:
        from_disk = journal.read(0, 100)
        assert from_disk == from_memory
        for one, other in zip(from_disk, from_memory, strict=True):
            assert list(map(type, one.reading)) == list(map(type, other.reading))
            assert str(one.reading.value) == str(other.reading.value)


@pytest.mark.parametrize("reopened", [False, True], ids=["memory", "disk"])
def test_reading_goes_on_after_any_entry_up_to_any_number_of_them(
    path: Path, reopened: bool
) -> None:
    with opened(path) as journal:
        for first in range(0, 30, 3):  # every batch ends with a duplicate: numbers with gaps
            journal.append([reading(first), reading(first + 1), reading(0)], [])
        seqs = [entry.seq for entry in journal.read(0, 100)]
        last = journal.last_seq
        if not reopened:
            _assert_reads(journal, seqs, last)
    if reopened:
        with opened(path) as journal:
            _assert_reads(journal, seqs, last)


def _assert_reads(journal: Journal, seqs: list[int], last: int) -> None:
    for after in range(last + 2):
        for limit in (1, 2, 7, 100):
            expected = [seq for seq in seqs if seq > after][:limit]
            assert [entry.seq for entry in journal.read(after, limit)] == expected


def test_an_entry_that_is_gone_is_an_error_and_not_left_out(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(1)], [])
        with pytest.raises(JournalError, match="entry 2 is not in the journal"):
            journal.entries([1, 2])


def test_reading_from_the_disk_is_bounded_by_bytes_but_always_goes_on(path: Path) -> None:
    large = canonical_json({"note": "x" * (READ_BYTES // 2)})
    with opened(path) as journal:
        for number in range(4):
            journal.append([reading(number, attributes=large)], [])
    with opened(path) as journal:
        assert 1 <= len(journal.read(0, 1_000)) < 4
        after, found = 0, 0
        while entries := journal.read(after, 1_000):
            after, found = entries[-1].seq, found + len(entries)
        assert found == 4


def test_listeners_are_told_of_every_append(path: Path) -> None:
    told: list[int] = []
    with opened(path) as journal:
        journal.listen(lambda: told.append(journal.last_seq))
        journal.append([reading(1)], [])
        journal.append([reading(2)], [])
    assert told == [1, 2]


# --- the tail -------------------------------------------------------------------------------------


def _batch(first: int, size: int, note: str | None = None) -> list[Entry]:
    return [Entry(seq, reading(seq, attributes=note)) for seq in range(first, first + size)]


def test_the_tail_forgets_the_oldest_batches_beyond_its_number_of_entries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tail, "MAX_ENTRIES", 10)
    memory = Tail(floor=0)
    for first in (1, 5, 9):
        memory.add(_batch(first, 4))
    assert memory.read(0, 100) is None
    assert memory.read(3, 100) is None
    assert [entry.seq for entry in memory.read(4, 100) or []] == list(range(5, 13))
    assert [entry.seq for entry in memory.read(6, 3) or []] == [7, 8, 9]
    assert memory.read(12, 100) == []


def test_the_tail_is_bounded_by_bytes_and_keeps_nothing_of_a_batch_beyond_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tail, "MAX_BYTES", 10_000)
    memory = Tail(floor=0)
    memory.add(_batch(1, 2))
    memory.add(_batch(3, 1, "x" * 10_000))
    assert memory.read(0, 10) is None
    assert memory.read(2, 10) is None
    assert memory.read(3, 10) == []
    memory.add(_batch(4, 2))
    assert [entry.seq for entry in memory.read(3, 10) or []] == [4, 5]


def test_a_tail_that_begins_in_the_middle_knows_what_it_has_not(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(1), reading(2)], [])
    with opened(path) as journal:
        journal.append([reading(3)], [])
        assert [entry.reading.value for entry in journal.read(0, 10)] == [1, 2, 3]
        assert [entry.reading.value for entry in journal.read(1, 10)] == [2, 3]
        assert [entry.reading.value for entry in journal.read(2, 10)] == [3]


def test_entries_that_memory_has_forgotten_come_from_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "MAX_ENTRIES", 5)
    with opened(path) as journal:
        for number in range(20):
            journal.append([reading(number)], [])
        assert [entry.reading.value for entry in journal.read(0, 100)] == list(range(20))
        assert [entry.reading.value for entry in journal.read(17, 100)] == [17, 18, 19]


def test_closing_twice_does_no_harm_and_a_closed_journal_says_so(path: Path) -> None:
    journal = new_journal(path)
    journal.append([reading(1)], [])
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append([reading(2)], [])
    assert not Path(f"{path}.suspect").exists()
