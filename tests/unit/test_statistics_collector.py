"""Keeping the statistics file: made anew, bounded, and nobody else's trouble."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bridge.journal import Journal, store
from bridge.statistics import Statistics, schema
from bridge.statistics import collector as collector_module
from bridge.statistics import file as file_module
from bridge.statistics.tags import NoFigures, Wanted
from tests.support.clock import ManualClock
from tests.support.journals import opened, settle_everything
from tests.support.readings import reading, rejection
from tests.unit.test_statistics_tags import catch_up, collected, names


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(tmp_path: Path, clock: ManualClock) -> Iterator[Journal]:
    with opened(tmp_path / "journal.db", clock=clock) as made:
        yield made


def shown(statistics: Statistics, clock: ManualClock) -> list[str]:
    return names(statistics.tags.page(Wanted(limit=500), clock.now_us())[1])


def test_the_file_is_made_anew_from_what_the_journal_holds(
    journal: Journal, clock: ManualClock
) -> None:
    journal.append([reading(n) for n in range(3)], [])
    first = collected(journal, clock)
    first.collector.path.write_bytes(b"what a crash left behind")
    second = collected(journal, clock)
    found = second.tags.one("MOR", "FT-101", clock.now_us())
    assert found is not None
    assert found.readings == 3


def test_nothing_of_the_file_stays_behind_a_stop(journal: Journal, clock: ManualClock) -> None:
    journal.append([reading(1)], [])
    statistics = collected(journal, clock)
    assert statistics.collector.path.exists()
    statistics.stop()
    statistics.run_tags()
    left = [name for name in os.listdir(journal.path.parent) if "statistics" in name]
    assert left == []


def test_a_damaged_file_is_given_up_in_words_and_made_anew(
    journal: Journal, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    journal.append([reading(n, pi_tag=f"T{n}") for n in range(500)], [])
    statistics = collected(journal, clock)
    damage(statistics.collector.path)
    journal.append([reading(n, pi_tag=f"T{n}") for n in range(500, 1_000)], [])
    wait = statistics.collector.round()
    assert wait == collector_module.RETRY_SECONDS
    assert "could not be kept" in str(statistics.collector.problem)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with pytest.raises(NoFigures, match="could not be kept"):
        statistics.tags.page(Wanted(), clock.now_us())
    catch_up(statistics)
    assert statistics.collector.problem is None
    assert statistics.tags.by_state(clock.now_us())[0] == 1_000


def damage(path: Path) -> None:
    """So that whoever reads on finds it: no page holds what was written."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\xa5" * size)


def test_a_disk_without_much_room_is_left_to_the_journal(
    journal: Journal, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append([reading(1)], [])
    statistics = collected(journal, clock)
    monkeypatch.setattr(collector_module, "MIN_FREE_BYTES", 2**62)
    assert statistics.collector.round() == collector_module.RETRY_SECONDS
    assert "make room" in str(statistics.collector.problem)
    assert not statistics.collector.path.exists()
    monkeypatch.undo()
    catch_up(statistics)
    assert shown(statistics, clock) == ["MOR/FT-101"]


def test_a_fault_of_its_own_ends_nothing(
    journal: Journal, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics = Statistics(journal, lambda: 1 / 0, clock)  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(schema, "TAKE", None)
    journal.append([reading(1)], [])
    assert statistics.collector.round() == collector_module.RETRY_SECONDS
    assert "TypeError" in str(statistics.collector.problem)


def test_the_journals_log_can_be_cut_between_two_steps(
    journal: Journal, clock: ManualClock
) -> None:
    journal.append([reading(n) for n in range(100)], [])
    statistics = collected(journal, clock)
    with closing(store.connect_reader(journal.path)) as db:
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    statistics.collector.close()


def test_while_it_goes_over_a_large_journal_it_rests_and_says_how_far_behind_it_is(
    journal: Journal, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_module, "STEP_READINGS", 10)
    journal.append([reading(n) for n in range(25)], [])
    statistics = Statistics(journal, lambda: None, clock)  # type: ignore[arg-type, return-value]
    with pytest.raises(NoFigures, match="being made"):
        statistics.tags.by_state(clock.now_us())
    clock.pass_(7)
    waits = [statistics.collector.round() for _ in range(2)]
    assert all(0 < wait < collector_module.ROUND_SECONDS for wait in waits)
    assert statistics.behind_seconds == pytest.approx(7)
    assert statistics.collector.round() == collector_module.ROUND_SECONDS
    assert statistics.behind_seconds == 0


def test_entries_that_were_pruned_before_they_were_seen_are_no_trouble(
    journal: Journal, clock: ManualClock
) -> None:
    statistics = collected(journal, clock)
    journal.append([reading(n) for n in range(10)], [])
    settle_everything(journal)
    clock.pass_(3_600)
    for _ in range(10):
        clock.pass_(300)
        journal.maintain()
    journal.append([reading(100, pi_tag="LATER", received_us=clock.now_us())], [])
    catch_up(statistics)
    assert "MOR/LATER" in shown(statistics, clock)


def test_tags_beyond_the_limit_are_counted_and_the_known_ones_go_on(
    journal: Journal, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "MAX_TAGS", 10)
    journal.append([reading(n, pi_tag=f"T{n}") for n in range(10)], [])
    statistics = collected(journal, clock)
    assert statistics.tags_left_out == 0
    journal.append([reading(n, pi_tag=f"T{n % 13}") for n in range(10, 36)], [])
    catch_up(statistics)
    assert statistics.tags_left_out == 3
    assert len(shown(statistics, clock)) == 10
    found = statistics.tags.one("MOR", "T0", clock.now_us())
    assert found is not None
    assert found.readings == 3


def test_what_is_older_than_35_minutes_goes_and_a_tag_after_a_day(
    journal: Journal, clock: ManualClock
) -> None:
    for number in range(4):
        journal.append([reading(number, received_us=clock.now_us())], [])
        clock.pass_(30)
    statistics = collected(journal, clock)
    found = statistics.tags.one("MOR", "FT-101", clock.now_us())
    assert found is not None
    assert [minute.readings for minute in found.minutes] == [2, 2]
    clock.pass_(36 * 60)
    catch_up(statistics)
    found = statistics.tags.one("MOR", "FT-101", clock.now_us())
    assert found is not None
    assert found.minutes == []
    clock.pass_(24 * 3600)
    catch_up(statistics)
    assert shown(statistics, clock) == []


def test_letters_that_came_while_as_many_went_are_counted_anew_in_the_end(
    journal: Journal, clock: ManualClock
) -> None:
    journal.append([], [rejection(), rejection()])
    statistics = collected(journal, clock)
    with closing(sqlite3.connect(journal.path)) as db:
        db.execute("DELETE FROM dead_letters WHERE id = 1")
        db.commit()
    journal.append([], [rejection(b"\xff"), rejection(b"\xff")])
    journal.maintain()
    catch_up(statistics)
    assert sum(statistics.tags.reasons().values()) == 4
    clock.pass_(collector_module.RECOUNT_ALWAYS_SECONDS)
    catch_up(statistics)
    assert statistics.tags.reasons() == {"payload_not_json": 1, "payload_not_utf8": 2}


def test_dead_letters_are_counted_by_site_and_reason_and_anew_after_a_purge(
    journal: Journal, clock: ManualClock
) -> None:
    journal.append([], [rejection(site="MOR"), rejection(b"\xff", "BAG"), rejection(site="MOR")])
    statistics = collected(journal, clock)
    assert statistics.tags.reasons() == {"payload_not_json": 2, "payload_not_utf8": 1}
    assert statistics.tags.reasons(site="BAG", sink="entrance") == {"payload_not_utf8": 1}
    assert statistics.tags.reasons(sink="pubsub") == {}
    assert statistics.tags.refused(["MOR", "NEV"]) == {"MOR": {"payload_not_json": 2}}
    with closing(sqlite3.connect(journal.path)) as db:
        db.execute("DELETE FROM dead_letters WHERE site = 'MOR'")
        db.commit()
    journal.maintain()
    clock.pass_(collector_module.RECOUNT_SECONDS)
    catch_up(statistics)
    assert statistics.tags.reasons() == {"payload_not_utf8": 1}
