"""Orders about dead letters: what they change, together or not at all, and each once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bridge.errors import JournalError
from bridge.handoff.record import Part, decode, encode
from bridge.intake import Intake
from bridge.journal import Journal, salvage, store
from bridge.journal.handover import Handed
from bridge.journal.letters import DeadLetter, Refused, row_of_refused
from bridge.journal.orders import KEPT, Order
from bridge.reading import Again, Entry, Limits, Message, parse
from bridge.snapshot import SinkCounts
from tests.support.clock import ManualClock
from tests.support.journals import (
    SINKS,
    audit,
    counted,
    new_journal,
    opened,
    pass_time,
    rows,
    settle,
    settle_everything,
)
from tests.support.journals import Limits as JournalLimits
from tests.support.orders import GOOD, carried_out, everything, give, judge, outcomes, refuse
from tests.support.readings import TOPIC, reading, refused, rejection, text

LIMITS = JournalLimits(retention_us=10 * 60_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(path: Path, clock: ManualClock) -> Iterator[Journal]:
    with opened(path, LIMITS, clock) as journal:
        yield journal
        audit(path)


def is_balanced(journal: Journal) -> bool:
    return all(site.balanced for site in journal.sites().values())


# --- refused at the entrance ----------------------------------------------------------------------


def test_with_a_corrected_payload_it_is_a_newly_received_reading(journal: Journal) -> None:
    journal.append([], [rejection()])
    assert carried_out(journal, Order(1, payload=GOOD)) == ["accepted"]
    line = journal.sites()["MOR"]
    assert (line.received, line.accepted, line.rejected) == (2, 1, 1)
    assert line.sinks == dict.fromkeys(SINKS, SinkCounts(pending=1))
    assert line.balanced
    (entry,) = journal.read(0, 10)
    assert (entry.reading.value, entry.reading.received_us) == (12.5, journal._clock.now_us())
    assert rows(journal.path, "SELECT replayed_us IS NULL FROM dead_letters") == [(0,)]


def test_it_is_received_as_it_is_where_only_the_limits_were_in_its_way(journal: Journal) -> None:
    early = refused(text(timestamp="2026-09-21T20:00:00Z"))
    assert early.reason == "timestamp_out_of_range"
    journal.append([], [early])
    assert carried_out(journal, Order(1)) == ["refused"]
    journal._clock.pass_(6 * 3_600)  # type: ignore[attr-defined]
    assert carried_out(journal, Order(1)) == ["accepted"]


def test_what_is_refused_again_changes_nothing_and_says_why(journal: Journal) -> None:
    journal.append([], [rejection()])
    before = everything(journal.path), journal.sites()
    numbers = give(journal.path, Order(1), Order(1, payload=b"[]"))
    Intake(journal, Limits()).upkeep()
    assert [outcome.outcome for outcome in outcomes(journal.path, numbers)] == ["refused"] * 2
    assert "payload_not_object" in outcomes(journal.path, numbers)[1].detail
    after = everything(journal.path)
    del before[0]["ticks"], after["ticks"], before[0]["meta"], after["meta"]
    assert (after, journal.sites()) == before


def test_a_malformed_topic_needs_another_and_a_payload_that_was_cut_all_of_it(
    journal: Journal,
) -> None:
    cut = refused(GOOD + b" " * 100, limits=Limits(max_payload_bytes=64))
    journal.append([], [refused(GOOD, "FCTS/FAE/MOR/SolvExtract"), cut])
    numbers = give(journal.path, Order(1), Order(2), Order(1, topic=TOPIC), Order(2, payload=GOOD))
    Intake(journal, Limits()).upkeep()
    found = outcomes(journal.path, numbers)
    assert [outcome.outcome for outcome in found] == ["refused", "refused", "accepted", "duplicate"]
    assert "--topic" in found[0].detail
    assert "64 of its" in found[1].detail
    assert journal.sites()["MOR"].duplicates == 1
    assert is_balanced(journal)


def test_i10_a_letter_is_replayed_once_also_when_it_is_ordered_twice(journal: Journal) -> None:
    journal.append([], [rejection()])
    order = Order(1, payload=GOOD)
    assert carried_out(journal, order, order) == ["accepted", "refused"]
    assert carried_out(journal, order) == ["refused"]
    assert carried_out(journal, order._replace(force=True)) == ["duplicate"]
    assert len(journal.read(0, 10)) == 1
    assert is_balanced(journal)


def test_a_letter_that_is_gone_is_refused_in_words(journal: Journal) -> None:
    numbers = give(journal.path, Order(7))
    Intake(journal, Limits()).upkeep()
    assert "no dead letter 7" in outcomes(journal.path, numbers)[0].detail


# --- refused by a sink ----------------------------------------------------------------------------


def test_i9_it_goes_from_dead_lettered_to_pending_for_that_sink_alone(
    journal: Journal, path: Path, clock: ManualClock
) -> None:
    journal.append([reading(1), reading(2)], [])
    first, second = journal.read(0, 10)
    settle_everything(journal, ["pubsub"])
    letter = refuse(journal, "bigquery", first)
    settle(journal, "bigquery", [second])
    assert carried_out(journal, Order(letter)) == ["pending"]
    line = journal.sites()["MOR"]
    assert (line.received, line.accepted) == (2, 2)
    assert line.sinks["bigquery"] == SinkCounts(settled=1, pending=1)
    assert line.sinks["pubsub"] == SinkCounts(settled=2)
    (again,) = journal.read(second.seq, 10)
    assert again == Again(3, first.reading, "bigquery")
    assert isinstance(again, Again)
    assert journal.oldest_pending_us("bigquery") == first.reading.received_us
    assert journal.oldest_pending_us("pubsub") is None
    assert journal.unresolved(0, 10) == ([again], 3)
    before = journal.sites()
    journal.close()
    with opened(path, LIMITS, clock) as restarted:
        assert restarted.sites() == before
        assert restarted.last_seq == again.seq
        assert restarted.retried("bigquery") == 1
        (found,) = restarted.read(second.seq, 10)
        assert isinstance(found, Again)
        assert (found, found.sink) == (again, "bigquery")
        assert restarted.entries([again.seq]) == [again]
        settle(restarted, "bigquery", [found])
        assert restarted.sites()["MOR"].sinks["bigquery"] == SinkCounts(settled=2)
    audit(path)


@pytest.mark.parametrize("pruned", [False, True], ids=["id held", "id gone"])
def test_i9_its_number_and_its_identity_are_never_those_of_another(
    path: Path, clock: ManualClock, pruned: bool
) -> None:
    with opened(path, LIMITS, clock) as journal:
        journal.acknowledged(journal.append([reading(1)], []).last_seq)
        settle_everything(journal, ["pubsub"])
        letter = refuse(journal, "bigquery", journal.read(0, 1)[0])
        if pruned:
            pass_time(journal, clock, 1_200)
            assert counted(path, "ids") == 0
        assert carried_out(journal, Order(letter)) == ["pending"]
        assert journal.append([reading(1)], []).duplicates == 1
    with opened(path, LIMITS, clock) as journal:
        journal.append([reading(2)], [])
        assert [entry.seq for entry in journal.read(1, 10)] == [2, 4]  # 3 was the duplicate's
        assert is_balanced(journal)
    audit(path)


def test_refused_once_more_it_is_a_letter_of_its_own_that_can_be_replayed(
    journal: Journal,
) -> None:
    journal.append([reading(1)], [])
    settle_everything(journal, ["pubsub"])
    first = refuse(journal, "bigquery", journal.read(0, 1)[0])
    assert carried_out(journal, Order(first)) == ["pending"]
    second = refuse(journal, "bigquery", journal.read(1, 1)[0])
    assert second != first
    assert journal.sites()["MOR"].sinks["bigquery"] == SinkCounts(dead_lettered=1)
    assert carried_out(journal, Order(first), Order(second)) == ["refused", "pending"]
    assert journal.sites()["MOR"].sinks["bigquery"] == SinkCounts(pending=1)


def test_i9_forced_it_is_one_more_reading_of_which_the_other_sinks_get_nothing(
    journal: Journal,
) -> None:
    journal.append([reading(1)], [])
    settle_everything(journal, ["pubsub"])
    letter = refuse(journal, "bigquery", journal.read(0, 1)[0])
    forced = Order(letter, force=True)
    assert carried_out(journal, forced, forced) == ["pending", "pending"]
    line = journal.sites()["MOR"]
    assert (line.received, line.accepted) == (2, 2)
    assert line.sinks["bigquery"] == SinkCounts(pending=2)
    assert line.sinks["pubsub"] == SinkCounts(settled=1, skipped=1)
    assert line.balanced


def test_with_another_payload_it_is_a_new_message_and_the_letter_stays_counted(
    journal: Journal,
) -> None:
    journal.append([reading(1)], [])
    settle_everything(journal, ["pubsub"])
    letter = refuse(journal, "bigquery", journal.read(0, 1)[0])
    (content,) = rows(journal.path, "SELECT payload FROM dead_letters")[0]
    assert carried_out(journal, Order(letter, payload=GOOD)) == ["accepted"]
    line = journal.sites()["MOR"]
    assert line.sinks["bigquery"] == SinkCounts(pending=1, dead_lettered=1)
    assert line.sinks["pubsub"] == SinkCounts(settled=1, pending=1)
    # The same payload is no correction.
    assert isinstance(content, bytes)
    same = Order(letter, payload=content, force=True)
    assert carried_out(journal, same) == ["pending"]
    assert is_balanced(journal)


def test_an_old_reading_is_not_judged_by_its_age_again(journal: Journal) -> None:
    ancient = reading(1, event_us=0, received_us=1)
    journal.append([ancient], [])
    settle_everything(journal, ["pubsub"])
    letter = refuse(journal, "bigquery", journal.read(0, 1)[0])
    assert carried_out(journal, Order(letter)) == ["pending"]
    assert journal.read(1, 1)[0].reading == ancient


def test_for_a_sink_that_there_is_not_it_is_refused(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(1)], [])
        settle_everything(journal, ["pubsub"])
        letter = refuse(journal, "bigquery", journal.read(0, 1)[0])
    with opened(path, sinks={"pubsub": "project/topic"}) as journal:
        assert carried_out(journal, Order(letter)) == ["refused"]


def test_what_is_replayed_and_settled_is_pruned(
    journal: Journal, path: Path, clock: ManualClock
) -> None:
    journal.append([reading(1)], [])
    settle_everything(journal, ["pubsub"])
    letter = refuse(journal, "bigquery", journal.read(0, 1)[0])
    carried_out(journal, Order(letter))
    pass_time(journal, clock, 1_200)
    assert counted(path, "again") == 1  # pending
    settle(journal, "bigquery", journal.read(1, 1))
    journal.append([reading(2)], [])
    settle_everything(journal)
    journal.acknowledged(journal.last_seq)
    pass_time(journal, clock, 1_200)
    assert counted(path, "again") == counted(path, "entries") == counted(path, "ids") == 0


# --- together or not at all -----------------------------------------------------------------------


class _Failing:
    """Stands for the journal's connection, and fails at a statement of its own."""

    def __init__(self, db: sqlite3.Connection, at: int) -> None:
        self._db = db
        self._left = at

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        if not statement.startswith(("SELECT", "ROLLBACK")):
            self._left -= 1
            if self._left < 0:
                raise sqlite3.OperationalError("disk I/O error")
        return self._db.execute(statement, *values)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._db, name)


def test_i10_a_failure_at_any_statement_changes_nothing_and_the_orders_wait_on(
    journal: Journal, path: Path
) -> None:
    journal.append([reading(1)], [rejection()])
    settle_everything(journal, ["pubsub"])
    letter = refuse(journal, "bigquery", journal.read(0, 1)[0])
    numbers = give(path, Order(1, payload=GOOD), Order(letter))
    journal.maintain()
    before = everything(path, but=()), journal.sites(), journal.last_seq, journal.read(0, 10)
    whole = journal._db
    failed = 0
    while True:
        journal._db = _Failing(whole, failed)  # type: ignore[assignment]
        try:
            journal.carry_out(judge)
            break
        except JournalError:
            failed += 1
        finally:
            journal._db = whole
        now = everything(path, but=()), journal.sites(), journal.last_seq, journal.read(0, 10)
        assert now == before
    assert failed > 10
    found = outcomes(path, numbers)
    assert [outcome.outcome for outcome in found] == ["accepted", "pending"]
    assert is_balanced(journal)


def test_orders_wait_while_the_journal_is_full(journal: Journal) -> None:
    journal.append([reading(1)], [rejection()])
    journal._space.full = True
    give(journal.path, Order(1, payload=GOOD))
    journal._look_outside()
    assert journal.carry_out(judge) == 0
    journal._space.full = False
    assert journal.carry_out(judge) == 1
    assert journal.carry_out(judge) == 0


def test_old_outcomes_are_forgotten_and_new_ones_kept(journal: Journal, path: Path) -> None:
    numbers = give(path, *[Order(99)] * (KEPT + 300))
    journal.maintain()
    while journal.carry_out(judge):
        pass
    assert counted(path, "orders") == KEPT
    assert len(outcomes(path, numbers)) == KEPT
    assert outcomes(path, numbers[-3:])[2].id == numbers[-1]


# --- older and damaged files ----------------------------------------------------------------------


def older(path: Path) -> None:
    """A journal of the first version, with a letter and a reading in it."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"{store.MIGRATIONS[1]} PRAGMA user_version = 1;")
        db.execute("INSERT INTO sinks VALUES ('pubsub', 'project/topic', 1, 0)")
        one = reading(1)
        db.execute("INSERT INTO ids VALUES (1, ?, ?)", (one.event_us, one.event_id))
        values = (one.site, one.pi_tag, one.sensor_id, one.value, one.received_us)
        db.execute("INSERT INTO entries VALUES (1, ?, ?, ?, ?, ?, NULL)", values)
        db.execute("INSERT INTO ledger VALUES ('MOR', 2, 1, 0, 1)")
        db.execute("INSERT INTO reasons VALUES ('payload_not_json', 1)")
        db.execute(
            "INSERT INTO dead_letters (sink, reason, detail, site, topic, payload, payload_bytes, "
            "sha256, received_us) VALUES (NULL, 'payload_not_json', 'x', 'MOR', ?, X'00', 1, "
            "X'00', 1)",
            (TOPIC,),
        )
        db.commit()


def test_a_journal_of_the_version_before_goes_on_with_all_that_is_in_it(path: Path) -> None:
    older(path)
    with opened(path, sinks={"pubsub": "project/topic"}) as journal:
        assert journal.pending("pubsub") == 1
        assert carried_out(journal, Order(1, payload=GOOD)) == ["accepted"]
        assert journal.pending("pubsub") == 2
    audit(path)


def test_a_suspected_journal_of_the_version_before_is_checked_and_found_sound(path: Path) -> None:
    older(path)
    salvage.suspect(path)
    with opened(path, sinks={"pubsub": "project/topic"}) as journal:
        assert journal.loss is None
        assert len(journal.read(0, 10)) == 1


def test_letters_of_a_damaged_journal_of_the_version_before_are_taken_over(path: Path) -> None:
    older(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE lanes")
    with opened(path, sinks={"pubsub": "project/topic"}) as journal:
        assert "1 readings, 1 dead letters" in (journal.loss or "")
        assert carried_out(journal, Order(1, payload=GOOD)) == ["accepted"]


def test_a_command_of_this_version_says_what_an_older_journal_needs(path: Path) -> None:
    older(path)
    with pytest.raises(JournalError, match="start this version on it first"):
        store.connect_reader(path)


def test_what_one_sink_alone_is_to_get_survives_a_damage_elsewhere(
    path: Path, clock: ManualClock
) -> None:
    journal = new_journal(path, LIMITS, clock)
    journal.append([reading(1)], [])
    settle_everything(journal, ["pubsub"])
    letter = refuse(journal, "bigquery", journal.read(0, 1)[0])
    carried_out(journal, Order(letter))
    journal.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE reasons")
        db.execute("DELETE FROM ids")
        db.commit()
    with opened(path, LIMITS, clock) as salvaged:
        assert salvaged.loss is not None
        (found,) = [entry for entry in salvaged.read(0, 10) if isinstance(entry, Again)]
        assert (found.sink, found.reading) == ("bigquery", reading(1))
        assert salvaged.pending("bigquery") == 1
        assert salvaged.pending("pubsub") == 0
        assert is_balanced(salvaged)


def test_letters_that_a_sink_refused_read_back_as_what_they_were() -> None:
    odd = reading(1, value=-1e-300, attributes='{"a":{"b":[1,null,"ü"]}}')
    row = row_of_refused("pubsub", Refused(Entry(1, odd), "r", "d"))
    letter = DeadLetter(1, *row)
    assert letter.row == row
    assert parse(Message(letter.topic, letter.payload, letter.received_us), Limits()) == odd


# --- handed over ----------------------------------------------------------------------------------


def test_what_one_sink_alone_is_to_get_is_handed_over_as_that(
    journal: Journal, tmp_path: Path
) -> None:
    journal.append([reading(1)], [])
    settle_everything(journal, ["pubsub"])
    letter = refuse(journal, "bigquery", journal.read(0, 1)[0])
    carried_out(journal, Order(letter))
    journal.append([reading(2)], [])
    entries, last = journal.unresolved(0, 10)
    part = decode(encode(Part(entries, ids=journal.known_ids(0, last, 10))))
    assert [(type(entry), entry) for entry in part.entries] == [
        (type(entry), entry) for entry in entries
    ]
    path = tmp_path / "other.db"
    with opened(path) as other:
        other.append([reading(3)], [])
        ids = [known[1:] for known in part.ids]
        again = [(entry.sink, entry.reading) for entry in part.entries if isinstance(entry, Again)]
        ranges: list[tuple[int, int]] = []

        def note(first: int, last: int) -> tuple[str, str]:
            ranges.append((first, last))
            return "taken", "1"

        other.take_over([], Handed(note, ids, again=again))
        other.append([reading(4)], [])
        _assert_handed(other, ranges)
    with opened(path) as other:
        _assert_handed(other, ranges)
        assert other.give_away(*ranges[0]) == 1
        assert other.pending("bigquery") == 2
        assert is_balanced(other)
    audit(path)


def _assert_handed(other: Journal, ranges: list[tuple[int, int]]) -> None:
    first, handed, last = other.read(0, 10)
    assert (first.reading, last.reading) == (reading(3), reading(4))
    assert isinstance(handed, Again)
    assert (handed.sink, handed.reading) == ("bigquery", reading(1))
    assert ranges == [(handed.seq, handed.seq)]
    assert other.verify_up_to == handed.seq
    assert (other.pending("bigquery"), other.pending("pubsub")) == (3, 2)
    assert other.sites()["MOR"].sinks["pubsub"] == SinkCounts(pending=2, skipped=1)
    assert is_balanced(other)


def test_a_letter_that_was_replayed_is_not_handed_over(journal: Journal) -> None:
    journal.append([], [rejection(), rejection()])
    carried_out(journal, Order(1, payload=GOOD))
    assert [letter.id for letter in journal.letters_after(0, 10)] == [2]
