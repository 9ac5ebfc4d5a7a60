"""The journal's invariants, by their numbers in `bridge/journal/__init__.py`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import DestinationChanged, JournalError
from bridge.journal import AppendIntent, Journal, LaneProgress, Settlement
from bridge.journal.letters import Refused
from bridge.reading import Reading
from bridge.snapshot import SinkCounts
from tests.support.clock import ManualClock
from tests.support.journals import (
    MINUTE_US,
    SINKS,
    Limits,
    audit,
    counted,
    opened,
    pass_time,
    rows,
    settle,
    settle_everything,
)
from tests.support.readings import reading, rejection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(path: Path, clock: ManualClock) -> Iterator[Journal]:
    with opened(path, Limits(retention_us=35 * MINUTE_US), clock) as journal:
        yield journal
        audit(path)


def ids_of(journal: Journal) -> list[bytes]:
    return [entry.reading.event_id for entry in journal.read(0, 100_000)]


# --- I1: what was acknowledged is there -----------------------------------------------------------


def test_i1_a_batch_is_in_the_file_when_append_returns(journal: Journal, path: Path) -> None:
    batch = [reading(1), reading(2), reading(1), reading(3, "NEV")]
    result = journal.append(batch, [rejection(b"Bad Input"), rejection(b"", "NEV")])
    assert (result.accepted, result.duplicates, result.deferred) == (3, 1, frozenset())
    # Another connection sees it: it is committed, not only held by the writing one.
    assert rows(path, "SELECT site, value FROM entries ORDER BY seq") == [
        ("MOR", 1.0),
        ("MOR", 2.0),
        ("NEV", 3.0),
    ]
    assert counted(path, "ids") == 3
    assert rows(path, "SELECT site, payload FROM dead_letters ORDER BY id") == [
        ("MOR", b"Bad Input"),
        ("NEV", b""),
    ]


def test_i1_every_commit_goes_to_the_disk_before_it_is_answered(journal: Journal) -> None:
    # 2 is FULL: in WAL mode each commit is synced. Anything less loses commits with the power.
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def after_power_cut(path: Path, log_bytes: int) -> Path:
    """The journal as a machine that lost its power finds it: the log as far as it was flushed."""
    found = path.with_name("found.db")
    found.write_bytes(path.read_bytes())
    log = Path(f"{path}-wal").read_bytes()
    assert len(log) > log_bytes
    Path(f"{found}-wal").write_bytes(log[:log_bytes])
    return found


def test_a_power_cut_takes_back_no_more_than_settlements_since_the_last_flush(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(number) for number in range(1, 7)], [])
        settle(journal, "pubsub", journal.read(0, 2))
        journal.record_append("bigquery", AppendIntent("stream", 0, (1, 2)))  # flushed
        flushed = Path(f"{path}-wal").stat().st_size
        settle(journal, "pubsub", journal.read(2, 2))
        settle(journal, "bigquery", journal.read(0, 2))
        found = after_power_cut(path, flushed)
        # Whatever comes after them is flushed again, and they with it.
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
    with opened(found) as journal:
        assert journal.resume("pubsub").position == 2
        assert (journal.pending("pubsub"), journal.pending("bigquery")) == (4, 6)
        assert journal.append_intent("bigquery") == AppendIntent("stream", 0, (1, 2))
        settle_everything(journal)
    audit(found)


def test_a_settlement_that_fails_leaves_the_next_commit_flushed(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(1)], [])
        entries = journal.read(0, 1)
        journal._db.execute("PRAGMA query_only = ON")
        with pytest.raises(JournalError):
            settle(journal, "pubsub", entries)
        journal._db.execute("PRAGMA query_only = OFF")
        assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_i1_a_deferred_rejection_is_neither_stored_nor_counted(path: Path) -> None:
    with opened(path, Limits(dead_letter_max_bytes=1_000)) as journal:
        result = journal.append(
            [reading(1)], [rejection(b"a"), rejection(b"b" * 2_000), rejection(b"c")]
        )
        assert result.deferred == {1}
        assert counted(path, "dead_letters") == 2
        assert journal.sites()["MOR"].rejected == 2
        assert journal.rejected_by_reason() == {"payload_not_json": 2}


# --- I2: no event id twice ------------------------------------------------------------------------


def test_i2_a_duplicate_is_recognised_within_a_batch_across_batches_and_across_a_restart(
    path: Path,
) -> None:
    with opened(path) as journal:
        assert journal.append([reading(1), reading(1)], [])[:2] == (1, 1)
        assert journal.append([reading(1), reading(2)], [])[:2] == (1, 1)
    with opened(path) as journal:
        assert journal.append([reading(2), reading(1), reading(3)], [])[:2] == (1, 2)
        assert ids_of(journal) == [reading(number).event_id for number in (1, 2, 3)]
    audit(path)


def test_i2_a_duplicate_is_recognised_after_its_payload_was_pruned(
    path: Path, clock: ManualClock
) -> None:
    with opened(path, Limits(retention_us=10 * MINUTE_US), clock) as journal:
        last = journal.append([reading(1)], []).last_seq  # not acknowledged to the broker
        settle_everything(journal)
        pass_time(journal, clock, 3_600)
        assert counted(path, "entries") == 0
        assert journal.append([reading(1)], [])[:2] == (0, 1)
        journal.acknowledged(last)
        pass_time(journal, clock, 60)
        assert journal.append([reading(1)], [])[:2] == (1, 0)


def test_i2_readings_of_the_same_moment_are_told_apart(journal: Journal) -> None:
    same = reading(1)
    others = [reading(1, value=2.5), reading(1, pi_tag="FT-102"), reading(1, "NEV")]
    assert journal.append([same, *others, same], [])[:2] == (4, 1)


# --- I3: sequence numbers -------------------------------------------------------------------------


def test_i3_sequence_numbers_grow_in_the_order_of_arrival(journal: Journal) -> None:
    batches = [[5, 3, 3], [9], [3, 1, 5, 2], [7], [8, 6]]
    for numbers in batches:
        journal.append([reading(number, received_us=7) for number in numbers], [])
    entries = journal.read(0, 100)
    assert [entry.reading.value for entry in entries] == [5, 3, 9, 1, 2, 7, 8, 6]
    seqs = [entry.seq for entry in entries]
    assert seqs == sorted(set(seqs))


def test_i3_a_number_is_not_used_again_after_everything_was_pruned_and_a_restart(
    path: Path, clock: ManualClock
) -> None:
    limits = Limits(retention_us=0)
    with opened(path, limits, clock) as journal:
        last = journal.append([reading(number) for number in range(10)], []).last_seq
        settle_everything(journal)
        journal.acknowledged(last)
        pass_time(journal, clock, 60)
        assert counted(path, "ids") == counted(path, "entries") == 0
    with opened(path, limits, clock) as journal:
        assert journal.last_seq == last
        assert journal.append([reading(1)], []).accepted == 1
        assert journal.read(0, 10)[0].seq == last + 1


def test_i3_a_failed_batch_leaves_the_order_as_it_was(
    journal: Journal, failing: Callable[[str], Any]
) -> None:
    journal.append([reading(1)], [])
    with failing("COMMIT"), pytest.raises(JournalError):
        journal.append([reading(2)], [])
    journal.append([reading(3)], [])
    assert [entry.reading.value for entry in journal.read(0, 10)] == [1, 3]


# --- I4: the ledger -------------------------------------------------------------------------------


def test_i4_the_ledger_counts_what_came_and_what_became_of_it(journal: Journal) -> None:
    journal.append([reading(1), reading(1), reading(2), reading(3, "NEV")], [rejection()])
    entries = journal.read(0, 10)
    settle(journal, "pubsub", entries)
    refused = Refused(entries[0], "row", "no")
    settle(journal, "bigquery", entries[1:2], refused=[refused])
    mor, nev = journal.sites()["MOR"], journal.sites()["NEV"]
    assert (mor.received, mor.accepted, mor.duplicates, mor.rejected) == (4, 2, 1, 1)
    assert mor.sinks["pubsub"] == SinkCounts(settled=2)
    assert mor.sinks["bigquery"] == SinkCounts(settled=1, dead_lettered=1)
    assert nev.sinks == {"pubsub": SinkCounts(settled=1), "bigquery": SinkCounts(pending=1)}
    assert mor.balanced
    assert nev.balanced
    assert journal.pending("bigquery") == 1
    assert journal.fullest() == ("bigquery", "NEV")


def test_i4_the_ledger_is_the_same_after_a_restart(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(number, f"S{number % 3}") for number in range(30)], [rejection()])
        entries = journal.read(0, 20)
        settle(journal, "pubsub", entries[:12])
        settle(journal, "bigquery", entries[:4], refused=[Refused(entries[4], "row", "no")])
        before = journal.sites(), journal.rejected_by_reason()
    with opened(path) as journal:
        assert (journal.sites(), journal.rejected_by_reason()) == before
        assert journal.pending("pubsub") == 18
        assert journal.pending("bigquery") == 25
    audit(path)


def test_i4_a_malformed_topic_counts_under_the_empty_site(journal: Journal) -> None:
    journal.append([], [rejection()._replace(site="", reason="topic_malformed")])
    assert journal.sites()[""].rejected == 1
    assert journal.rejected_by_reason() == {"topic_malformed": 1}


def test_i4_sites_beyond_the_limit_are_counted_together_also_within_one_batch(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.journal.counts.MAX_SITES", 3)
    with opened(path) as journal:
        journal.append([reading(number, f"S{number}") for number in range(6)], [])
        journal.append([reading(0, "S0"), reading(9, "S4")], [rejection(site="S5")])
        assert set(journal.sites()) == {"S0", "S1", "S2", "__other__"}
        settle_everything(journal)
        assert journal.sites()["__other__"].sinks["pubsub"] == SinkCounts(settled=4)
        assert all(site.balanced for site in journal.sites().values())
        before = journal.sites()
    with opened(path) as journal:
        assert journal.sites() == before


@pytest.mark.parametrize("step", ["append", "settle"])
def test_i4_counts_and_what_they_count_are_written_together_or_not_at_all(
    journal: Journal, path: Path, step: str, failing: Callable[[str], Any]
) -> None:
    journal.append([reading(1), reading(2)], [rejection()])
    entries = journal.read(0, 10)
    before = journal.sites(), journal.rejected_by_reason(), journal.resume("pubsub")
    table = "ledger" if step == "append" else "sink_ledger"
    letter = Refused(entries[1], "row", "no")
    steps: dict[str, Callable[[], Any]] = {
        "append": lambda: journal.append([reading(3)], [rejection()]),
        "settle": lambda: settle(journal, "pubsub", entries[:1], refused=[letter]),
    }
    with failing(f"INSERT INTO {table}"), pytest.raises(JournalError):
        steps[step]()
    assert (journal.sites(), journal.rejected_by_reason(), journal.resume("pubsub")) == before
    assert (counted(path, "entries"), counted(path, "dead_letters")) == (2, 1)


# --- I5: what is not pruned -----------------------------------------------------------------------


def test_i5_an_entry_that_one_sink_has_not_resolved_is_never_pruned(
    path: Path, clock: ManualClock
) -> None:
    with opened(path, Limits(retention_us=0), clock) as journal:
        last = journal.append([reading(number) for number in range(10)], []).last_seq
        journal.acknowledged(last)
        settle_everything(journal, ["pubsub"])
        settle(journal, "bigquery", journal.read(0, 4))
        pass_time(journal, clock, 7_200)
        assert rows(path, "SELECT value FROM entries ORDER BY seq") == [(n,) for n in range(4, 10)]
        assert counted(path, "ids") == 6
        settle_everything(journal, ["bigquery"])
        pass_time(journal, clock, 20)
        assert counted(path, "entries") == counted(path, "ids") == 0
        audit(path)


def test_i5_an_entry_settled_beyond_an_unresolved_one_is_kept_as_well(
    path: Path, clock: ManualClock
) -> None:
    with opened(path, Limits(retention_us=0), clock) as journal:
        journal.acknowledged(journal.append([reading(1), reading(2)], []).last_seq)
        first, second = journal.read(0, 2)
        settle_everything(journal, ["pubsub"])
        progress = LaneProgress(0, (second.seq,))
        journal.settle("bigquery", [Settlement("", progress, [second])], 0)
        pass_time(journal, clock, 600)
        assert journal.entries([first.seq, second.seq]) == [first, second]


def test_i5_nothing_is_pruned_before_the_sinks_are_known(path: Path, clock: ManualClock) -> None:
    with opened(path, Limits(retention_us=0), clock) as journal:
        journal.acknowledged(journal.append([reading(1)], []).last_seq)
    journal = Journal(path, Limits(retention_us=0), clock)
    journal.open()
    pass_time(journal, clock, 600)
    journal.close()
    assert counted(path, "entries") == 1


def test_i5_an_id_is_kept_until_its_puback_reached_the_broker_even_across_a_restart(
    path: Path, clock: ManualClock
) -> None:
    limits = Limits(retention_us=0)
    with opened(path, limits, clock) as journal:
        first = journal.append([reading(1)], []).last_seq
        journal.append([reading(2)], [])
        journal.acknowledged(first)
        settle_everything(journal)
        pass_time(journal, clock, 600)
        assert counted(path, "entries") == 0
        assert counted(path, "ids") == 1
    with opened(path, limits, clock) as journal:
        pass_time(journal, clock, 600)
        assert journal.append([reading(2)], [])[:2] == (0, 1)
        assert journal.append([reading(1)], [])[:2] == (1, 0)


# --- I6: positions --------------------------------------------------------------------------------


def test_i6_a_sink_goes_on_where_it_was_with_its_lanes_and_what_lies_beyond(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(n, "AB"[n % 2]) for n in range(10)], [])  # A: odd seqs, B: even
        a, b = journal.read(0, 10)[0::2], journal.read(0, 10)[1::2]
        journal.settle(
            "pubsub",
            [
                Settlement("A", LaneProgress(a[1].seq, (a[3].seq,)), [a[0], a[1], a[3]]),
                Settlement("B", LaneProgress(b[4].seq, ()), b),
            ],
            position=b[1].seq,
        )
        before = journal.resume("pubsub")
        assert before.position == b[1].seq
        assert before.lanes == {
            "A": LaneProgress(a[1].seq, (a[3].seq,)),
            "B": LaneProgress(b[4].seq, ()),
        }
        assert journal.pending("pubsub") == 2
    with opened(path) as journal:
        assert journal.resume("pubsub") == before
        assert journal.resume("bigquery") == (0, {})
        assert journal.sites()["A"].sinks["pubsub"] == SinkCounts(settled=3, pending=2)
        assert journal.sites()["B"].sinks["pubsub"] == SinkCounts(settled=5)
        assert journal.oldest_pending_us("pubsub") == a[2].reading.received_us
        assert journal.oldest_pending_us("bigquery") == a[0].reading.received_us
    audit(path)


def test_i6_lanes_that_the_position_has_caught_up_with_are_forgotten(
    journal: Journal, path: Path
) -> None:
    journal.append([reading(number, f"S{number}") for number in range(50)], [])
    entries = journal.read(0, 50)
    for entry in entries[1:]:  # all but the first site are ahead
        progress = LaneProgress(entry.seq, ())
        journal.settle("pubsub", [Settlement(entry.reading.site, progress, [entry])], 0)
    assert len(journal.resume("pubsub").lanes) == 49
    settle(journal, "pubsub", entries[:1], position=entries[-1].seq, lane="S0")
    assert journal.resume("pubsub") == (entries[-1].seq, {})
    assert counted(path, "lanes") == 0
    assert journal.pending("pubsub") == 0


# --- I7: append intents ---------------------------------------------------------------------------


def test_i7_an_append_intent_is_there_again_after_a_restart_until_it_is_overwritten(
    path: Path,
) -> None:
    with opened(path) as journal:
        journal.append([reading(1), reading(2), reading(3)], [])
        assert journal.append_intent("bigquery") is None
        first = AppendIntent("streams/s1", 7, (2, 1, 3))
        journal.record_append("bigquery", first)
    with opened(path) as journal:
        assert journal.append_intent("bigquery") == first
        assert [entry.seq for entry in journal.entries(first.seqs)] == [2, 1, 3]
        settle_everything(journal)
        assert journal.append_intent("bigquery") == first
        second = AppendIntent("streams/s1", 10, (2**62,))
        journal.record_append("bigquery", second)
        assert journal.append_intent("bigquery") == second
        assert journal.append_intent("pubsub") is None


def test_i7_a_change_of_destination_never_takes_an_undecided_append_along(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(1)], [])
        journal.record_append("bigquery", AppendIntent("streams/s1", 0, (1,)))
        settle_everything(journal, ["pubsub"])
    other = SINKS | {"bigquery": "project.dataset.other"}
    with pytest.raises(DestinationChanged):
        new_journal_and_close(path, other)
    with opened(path) as journal:  # refused, hence unchanged
        assert journal.append_intent("bigquery") == AppendIntent("streams/s1", 0, (1,))
    journal = Journal(path, Limits(), ManualClock())
    journal.open()
    journal.activate(other, accept_change=True)
    assert journal.append_intent("bigquery") is None
    journal.close()


def new_journal_and_close(path: Path, sinks: dict[str, str]) -> None:
    journal = Journal(path, Limits(), ManualClock())
    journal.open()
    try:
        journal.activate(sinks)
    finally:
        journal.close()


# --- I8: all or nothing ---------------------------------------------------------------------------


class _Failing:
    """Stands for the journal's connection, and fails at the statement that begins like this."""

    def __init__(self, db: sqlite3.Connection, prefix: str) -> None:
        self._db = db
        self._prefix = prefix

    def _check(self, statement: str) -> None:
        if statement.strip().startswith(self._prefix):
            raise sqlite3.OperationalError("disk I/O error")

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        self._check(statement)
        return self._db.execute(statement, *values)

    def executemany(self, statement: str, *values: Any) -> sqlite3.Cursor:
        self._check(statement)
        return self._db.executemany(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


@pytest.fixture
def failing(journal: Journal) -> Callable[[str], Any]:
    @contextmanager
    def at(prefix: str) -> Iterator[None]:
        whole = journal._db
        journal._db = _Failing(whole, prefix)  # type: ignore[assignment]
        try:
            yield
        finally:
            journal._db = whole

    return at


def _everything(journal: Journal, path: Path) -> dict[str, Any]:
    tables = "ids entries ledger reasons sinks sink_ledger lanes appends dead_letters meta ticks"
    return {table: rows(path, f"SELECT * FROM {table}") for table in tables.split()} | {
        "sites": journal.sites(),
        "reasons in memory": journal.rejected_by_reason(),
        "resume": {sink: journal.resume(sink) for sink in SINKS},
        "read": journal.read(0, 100),
        "last": journal.last_seq,
        "letters": journal._letter_bytes,
        "first": (journal._first_entry, journal._first_id),
        "loss": journal.loss,
    }


STATEMENTS = {
    "append": [
        *("BEGIN", "INSERT OR IGNORE INTO ids", "INSERT INTO entries", "INSERT INTO dead_letters"),
        *("INSERT INTO ledger", "INSERT INTO reasons", "COMMIT"),
    ],
    "settle": [
        *("BEGIN", "UPDATE sinks", "DELETE FROM lanes", "INSERT OR REPLACE INTO lanes"),
        *("INSERT INTO dead_letters", "INSERT INTO sink_ledger", "COMMIT"),
    ],
    "record": ["BEGIN", "INSERT OR REPLACE INTO appends", "COMMIT"],
    "forward": ["BEGIN", "UPDATE dead_letters", "COMMIT"],
    "prune": ["BEGIN", "DELETE FROM entries", "DELETE FROM ids", "COMMIT"],
    "clear": ["BEGIN", "DELETE FROM meta", "COMMIT"],
}


@pytest.mark.parametrize(
    ("step", "statement"), [(step, each) for step, all_ in STATEMENTS.items() for each in all_]
)
def test_i8_a_step_that_fails_anywhere_changes_nothing_and_works_afterwards(
    journal: Journal,
    path: Path,
    clock: ManualClock,
    failing: Callable[[str], Any],
    step: str,
    statement: str,
) -> None:
    steps = _prepared(journal, clock)
    before = _everything(journal, path)
    with failing(statement), pytest.raises(JournalError, match="disk I/O error"):
        steps[step]()
    assert _everything(journal, path) == before
    assert not journal._db.in_transaction
    steps[step]()
    assert _everything(journal, path) != before or step == "clear"


def _prepared(journal: Journal, clock: ManualClock) -> dict[str, Callable[[], Any]]:
    batch = [reading(1), reading(2), reading(3, "NEV"), reading(4)]
    journal.acknowledged(journal.append(batch, [rejection()]).last_seq)
    first, second, third, fourth = journal.read(0, 10)
    settle(journal, "bigquery", [first, second, third, fourth])
    settle(journal, "pubsub", [first], lane="MOR")
    pass_time(journal, clock, 3_600)
    assert journal._first_entry == second.seq
    journal._first_entry = journal._first_id = first.seq
    letters = journal.letters_waiting(10)
    nev = Settlement("NEV", LaneProgress(third.seq, ()), [third])
    beyond = LaneProgress(first.seq, (fourth.seq,))
    mor = Settlement("MOR", beyond, [], [Refused(fourth, "row", "no")])
    return {
        "append": lambda: journal.append([reading(2), reading(9)], [rejection()]),
        "settle": lambda: journal.settle("pubsub", [nev, mor], first.seq),
        "record": lambda: journal.record_append("bigquery", AppendIntent("s", 1, (2,))),
        "forward": lambda: journal.letters_forwarded(letters),
        "prune": journal.maintain,
        "clear": journal.clear_loss,
    }


def test_i8_a_refused_activation_changes_nothing(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(1)], [])
        before = rows(path, "SELECT * FROM sinks")
    with pytest.raises(DestinationChanged):
        new_journal_and_close(path, {"pubsub": "elsewhere", "log": "log"})
    assert rows(path, "SELECT * FROM sinks") == before


def test_i8_an_unexpected_error_leaves_no_transaction_open(journal: Journal) -> None:
    no_reading: Any = None
    broken = Reading(b"", "MOR", "T", "S", 2**80, 1.0, 0, no_reading)
    with pytest.raises(OverflowError):
        journal.append([broken], [])
    assert journal.append([reading(1)], []).accepted == 1
