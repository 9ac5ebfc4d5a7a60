"""The ledger by day: what is counted, for how long it is kept, and where it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.journal import Journal, LaneProgress, Settlement, counts, days, store
from bridge.journal.days import DAY_US, Tally, deltas, tally
from bridge.journal.letters import Refused
from bridge.reading import Entry, Reading
from tests.support.clock import START_US, ManualClock
from tests.support.journals import (
    Limits,
    counted,
    opened,
    pass_time,
    rows,
    settle,
    settle_everything,
)
from tests.support.readings import reading

TODAY = START_US // DAY_US
ids_of = st.lists(st.binary(min_size=16, max_size=16))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def at(day: int, number: int = 1, site: str = "MOR") -> Reading:
    """A reading of that many days from today on."""
    return reading(number, site, event_us=START_US + day * DAY_US)


def of_ids(readings: list[Reading]) -> Tally:
    whole = sum(int.from_bytes(one.event_id, "big") for one in readings)
    return Tally(len(readings), whole % 2**128)


def lines(path: Path, sink: str = "bigquery") -> dict[tuple[str, int], Tally]:
    db = store.connect_reader(path)
    try:
        return days.lines(db, sink, -(2**40), 2**40)
    finally:
        db.close()


def take(journal: Journal, *readings: Reading) -> None:
    journal.append(list(readings), [])


# --- the checksum ---------------------------------------------------------------------------------


@given(ids_of)
def test_the_checksum_is_the_sum_of_the_ids_modulo_2_to_the_128(ids: list[bytes]) -> None:
    assert tally(ids) == Tally(len(ids), sum(int.from_bytes(i, "big") for i in ids) % 2**128)


@given(ids_of)
def test_the_order_of_the_ids_does_not_matter(ids: list[bytes]) -> None:
    turned = ids[::-1]
    assert tally(ids) == tally(turned)


@given(ids_of, ids_of)
def test_what_was_added_can_be_taken_off_again(one: list[bytes], other: list[bytes]) -> None:
    assert tally(one).plus(tally(other)) == tally(one + other)
    assert tally(one + other).minus(tally(other)) == tally(one)


def test_readings_are_counted_under_their_site_and_the_utc_day_of_their_event_time() -> None:
    midnight = TODAY * DAY_US
    moments = {"A": midnight - 1, "B": midnight, "C": midnight + DAY_US - 1, "D": -1}
    entries = [
        Entry(seq, reading(seq, site, event_us=moment))
        for seq, (site, moment) in enumerate(moments.items(), 1)
    ]
    found = deltas([Settlement("", LaneProgress(4, ()), entries)], 0)
    assert list(found) == [("A", TODAY - 1), ("B", TODAY), ("C", TODAY), ("D", -1)]
    assert found["B", TODAY] == of_ids([entries[1].reading])


# --- in the journal -------------------------------------------------------------------------------


def test_each_settlement_adds_to_its_lines_and_they_outlive_a_restart(path: Path) -> None:
    readings = [at(0, n, site) for n in range(1, 7) for site in ("MOR", "NEV")]
    with opened(path) as journal:
        take(journal, *readings[:8])
        settle(journal, "bigquery", journal.read(0, 3))
        settle(journal, "bigquery", journal.read(3, 5))
    with opened(path) as journal:
        take(journal, *readings[8:])
        settle_everything(journal)
    for sink in ("bigquery", "pubsub"):
        assert lines(path, sink) == {
            (site, TODAY): of_ids([one for one in readings if one.site == site])
            for site in ("MOR", "NEV")
        }


def test_what_a_sink_refused_is_not_counted(path: Path) -> None:
    with opened(path) as journal:
        take(journal, at(0, 1), at(0, 2))
        good, bad = journal.read(0, 2)
        settle(journal, "bigquery", [good], refused=[Refused(bad, "row", "no")])
    assert lines(path) == {("MOR", TODAY): of_ids([good.reading])}


def test_i9_a_line_and_what_it_counts_are_one_transaction(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(path) as journal:
        take(journal, at(0))

        def failing(*_: object) -> None:
            raise RuntimeError("killed here")

        monkeypatch.setattr(days, "write_published", failing)
        with pytest.raises(RuntimeError):
            settle(journal, "bigquery", journal.read(0, 1))
        monkeypatch.undo()
        assert lines(path) == {}
        assert journal.pending("bigquery") == 1
        settle(journal, "bigquery", journal.read(0, 1))
    assert lines(path) == {("MOR", TODAY): of_ids([at(0)])}


def test_sites_that_the_ledger_folds_are_folded_here_as_well(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "MAX_SITES", 1)
    readings = [at(0, 1, "A"), at(0, 2, "B"), at(0, 3, "C")]
    with opened(path) as journal:
        take(journal, *readings)
        settle_everything(journal)
    assert lines(path) == {
        ("A", TODAY): of_ids(readings[:1]),
        ("__other__", TODAY): of_ids(readings[1:]),
    }


def test_the_last_message_id_of_each_site_is_kept(path: Path) -> None:
    with opened(path) as journal:
        take(journal, at(0, 1, "MOR"), at(0, 2, "MOR"), at(0, 3, "NEV"))
        for entry, name in zip(journal.read(0, 3), ("m1", "m2", "m3"), strict=True):
            progress = LaneProgress(entry.seq, ())
            one = Settlement(entry.reading.site, progress, [entry], (), name)
            journal.settle("pubsub", [one], entry.seq)
    assert rows(path, "SELECT * FROM published") == [
        ("MOR", "m2", START_US),
        ("NEV", "m3", START_US),
    ]


# --- since when -----------------------------------------------------------------------------------


def test_a_journal_of_the_version_before_counts_from_its_first_start_on(path: Path) -> None:
    with opened(path) as journal:
        take(journal, at(0, 1))
    db = store.connect_reader(path)
    db.execute("PRAGMA query_only = OFF")
    db.executescript(
        "DROP TABLE days; DROP TABLE published; DELETE FROM meta WHERE key LIKE 'days_since%';"
        "PRAGMA user_version = 1;"
    )
    db.close()
    later = ManualClock(START_US + 3_600_000_000)
    with opened(path, clock=later) as journal:
        take(journal, at(0, 2)._replace(received_us=later.now_us()))
        settle_everything(journal)
    assert [tally.readings for tally in lines(path).values()] == [1]


@pytest.mark.parametrize(
    ("destination", "kept"),
    [("project.dataset.other", 0), ("project.dataset.table by insert_all", 1)],
    ids=["another table", "another method"],
)
def test_a_sink_that_leads_to_another_table_counts_anew(
    path: Path, destination: str, kept: int
) -> None:
    with opened(path) as journal:
        take(journal, at(0))
        settle_everything(journal)
    later = ManualClock(START_US + 1_000_000)
    with opened(path, clock=later, sinks={"bigquery": destination}):
        pass
    assert len(lines(path)) == kept
    db = store.connect_reader(path)
    since = START_US if kept else later.now_us()
    assert days.since(db, "bigquery") == since
    db.close()


# --- how long -------------------------------------------------------------------------------------


def test_days_are_let_go_by_their_age_a_step_at_a_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.journal.retention.STEP", 2)
    clock = ManualClock()
    with opened(path, Limits(ledger_days=10), clock) as journal:
        take(journal, *(at(-n, n) for n in range(14)))
        settle_everything(journal, ["bigquery"])
        pass_time(journal, clock, 20)
        assert 0 < counted(path, "days") < 14
        pass_time(journal, clock, 60)
    assert min(day for _, day in lines(path)) == TODAY - 10
    assert len(lines(path)) == 11


def test_of_a_day_that_was_let_go_no_part_comes_back(path: Path) -> None:
    clock = ManualClock()
    with opened(path, Limits(ledger_days=10), clock) as journal:
        take(journal, at(-20, 1), at(0, 2))
        settle_everything(journal)
        pass_time(journal, clock, 60)
        take(journal, at(-20, 3), at(0, 4))
        settle_everything(journal)
    with opened(path, Limits(ledger_days=400), clock) as journal:
        take(journal, at(-20, 5))
        settle_everything(journal)
    assert set(lines(path)) == {("MOR", TODAY)}


def test_a_clock_that_runs_years_ahead_lets_no_day_go(path: Path) -> None:
    clock = ManualClock()
    with opened(path, Limits(ledger_days=10), clock) as journal:
        take(journal, at(-5), at(0))
        settle_everything(journal)
        clock.jump(2 * 365 * 86_400)
        pass_time(journal, clock, 60)
    assert {day for _, day in lines(path)} == {TODAY - 5, TODAY}
