"""What is kept for how long, and what happens when there is no more room."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bridge.errors import JournalError
from bridge.journal import Journal, retention, store
from bridge.journal.letters import Refused
from bridge.journal.retention import LONGEST_GAP_US, RESUME_BELOW
from bridge.parsing.identity import canonical_json
from bridge.reading import Reading, Rejection
from tests.support.clock import ManualClock
from tests.support.disk import small_disk
from tests.support.journals import (
    MINUTE_US,
    Limits,
    audit,
    counted,
    new_journal,
    opened,
    pass_time,
    rows,
    settle,
    settle_everything,
)
from tests.support.readings import reading, rejection

MIB = 1024**2
NOTE = canonical_json({"note": "x" * 500})
HOUR = 3_600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def batch(first: int, size: int = 100, site: str = "MOR") -> list[Reading]:
    return [reading(number, site, attributes=NOTE) for number in range(first, first + size)]


def fill(journal: Journal, share: float = 1.0, acknowledge: bool = True) -> int:
    """Append until this much of the room is taken. Answers how many readings that were."""
    count = 0
    while journal.used_bytes < share * journal.ceiling_bytes:
        last = journal.append(batch(count, 50), []).last_seq
        count += 50
        if acknowledge:
            journal.acknowledged(last)
    return count


def fill_with_data(journal: Journal) -> int:
    """Append until it is full and upkeep does not help. Answers how many readings that were."""
    count = 0
    while not journal.full:
        journal.acknowledged(journal.append(batch(count, 50), []).last_seq)
        count += 50
        if journal.full:
            journal.maintain()
    return count


def test_what_is_only_in_the_log_does_not_keep_it_full(path: Path, clock: ManualClock) -> None:
    """A log longer than the journal may be, nearly all of it settled and pruned, and nothing to
    write by which it would get shorter."""
    with opened(path, Limits(max_bytes=MIB), clock) as journal:
        journal.acknowledged(journal.append(batch(0, 1_900), []).last_seq)
        settle_everything(journal, ["pubsub"])
        settle(journal, "bigquery", journal.read(0, 1_899))
        assert journal.full
        for _ in range(3):
            journal.maintain()
        assert not journal.full


# --- retention, in running time -------------------------------------------------------------------


def recognises(journal: Journal, number: int) -> bool:
    return journal.append([reading(number)], []).duplicates == 1


def test_settled_readings_are_kept_for_the_retention_and_then_pruned(
    path: Path, clock: ManualClock
) -> None:
    with opened(path, Limits(retention_us=35 * MINUTE_US), clock) as journal:
        journal.acknowledged(journal.append([reading(1)], []).last_seq)
        settle_everything(journal)
        pass_time(journal, clock, 35 * 60 - 10)
        assert counted(path, "entries") == counted(path, "ids") == 1
        assert recognises(journal, 1)
        pass_time(journal, clock, 40)
        assert counted(path, "entries") == counted(path, "ids") == 0
        assert not recognises(journal, 1)


@pytest.mark.parametrize("jump", [-10 * 365 * 86_400.0, -HOUR, HOUR, 10 * 365 * 86_400.0])
def test_a_jump_of_the_wall_clock_neither_shortens_nor_lengthens_the_retention(
    path: Path, clock: ManualClock, jump: float
) -> None:
    with opened(path, Limits(retention_us=35 * MINUTE_US), clock) as journal:
        journal.acknowledged(journal.append([reading(1)], []).last_seq)
        settle_everything(journal)
        pass_time(journal, clock, 60)
        clock.jump(jump)
        pass_time(journal, clock, 33 * 60)
        assert counted(path, "ids") == 1
        pass_time(journal, clock, 3 * 60)
        assert counted(path, "ids") == 0


def test_downtime_does_not_count(path: Path, clock: ManualClock) -> None:
    limits = Limits(retention_us=35 * MINUTE_US)
    with opened(path, limits, clock) as journal:
        journal.acknowledged(journal.append([reading(1)], []).last_seq)
        settle_everything(journal)
        pass_time(journal, clock, 20 * 60)
    clock.pass_(30 * 86_400)
    clock = ManualClock(clock.now_us(), monotonic=3.0)  # the machine was started anew
    with opened(path, limits, clock) as journal:
        pass_time(journal, clock, 14 * 60)
        assert recognises(journal, 1)
        pass_time(journal, clock, 2 * 60)
        assert counted(path, "entries") == 0


def test_a_process_that_was_stopped_for_hours_has_not_run(path: Path, clock: ManualClock) -> None:
    with opened(path, Limits(retention_us=35 * MINUTE_US), clock) as journal:
        journal.acknowledged(journal.append([reading(1)], []).last_seq)
        settle_everything(journal)
        pass_time(journal, clock, 30)
        clock.pass_(10 * HOUR)  # without upkeep: nobody ran
        journal.maintain()
        assert recognises(journal, 1)
        assert journal.dedupe_window_seconds() <= 30 + LONGEST_GAP_US / 1e6 + 10


def test_an_endless_retention_is_possible(path: Path, clock: ManualClock) -> None:
    with opened(path, Limits(retention_us=10**30), clock) as journal:
        journal.acknowledged(journal.append([reading(1)], []).last_seq)
        settle_everything(journal)
        pass_time(journal, clock, HOUR)
        assert recognises(journal, 1)


def test_the_window_shown_is_the_one_that_is_held(path: Path, clock: ManualClock) -> None:
    with opened(path, Limits(retention_us=35 * MINUTE_US), clock) as journal:
        journal.maintain()
        assert journal.dedupe_window_seconds() == 0
        for number in range(60):  # an hour of a reading each minute
            journal.acknowledged(journal.append([reading(number)], []).last_seq)
            settle_everything(journal)
            pass_time(journal, clock, 60)
            held = journal.dedupe_window_seconds()
            youngest_unknown = 60.0 * (number + 1 - counted(path, "ids"))
            assert held <= min(60.0 * (number + 1), 35 * 60 + 30)
            assert held <= 60.0 * (number + 1) - youngest_unknown + 60 + 30
            assert held >= min(60.0 * (number + 1), 35 * 60.0) - 30
        pass_time(journal, clock, 3 * HOUR)  # nothing comes any more
        assert counted(path, "ids") == 0
        assert 34 * 60 < journal.dedupe_window_seconds() < 36 * 60
        assert counted(path, "ticks") < 250


def test_the_window_shown_grows_with_a_sink_that_is_stuck(path: Path, clock: ManualClock) -> None:
    with opened(path, Limits(retention_us=MINUTE_US), clock) as journal:
        journal.acknowledged(journal.append([reading(1)], []).last_seq)
        pass_time(journal, clock, HOUR)
        assert HOUR - 30 < journal.dedupe_window_seconds() <= HOUR


# --- pressure -------------------------------------------------------------------------------------


def test_under_pressure_payloads_go_first_and_ids_only_when_no_payload_is_left(
    path: Path, clock: ManualClock
) -> None:
    with opened(path, Limits(max_bytes=MIB), clock) as journal:
        count = fill(journal, 0.97)
        settle_everything(journal, ["pubsub"])
        journal.maintain()
        assert counted(path, "entries") == counted(path, "ids") == count  # not settled: kept
        settle_everything(journal, ["bigquery"])
        journal.maintain()
        assert counted(path, "entries") < count
        assert counted(path, "ids") == count
        assert not journal.full
        # Ids go as well when they alone are too many.
        for _ in range(100):
            last = journal.append([reading(n) for n in range(count, count + 200)], []).last_seq
            journal.acknowledged(last)
            count += 200
            settle_everything(journal)
            entries = counted(path, "entries")
            journal.maintain()
            if counted(path, "ids") < count:
                break
        assert 0 < counted(path, "ids") < count
        assert counted(path, "entries") == 0
        assert entries <= 200
        audit(path)


def test_under_pressure_an_id_is_kept_while_the_broker_may_still_redeliver_it(
    path: Path, clock: ManualClock
) -> None:
    with opened(path, Limits(max_bytes=MIB), clock) as journal:
        count = fill(journal, acknowledge=False)
        settle_everything(journal)
        for _ in range(10):
            journal.maintain()
        assert (counted(path, "entries"), counted(path, "ids")) == (0, count)
        assert recognises(journal, 0) is False  # another reading: attributes differ
        assert journal.append(batch(0, 50), []).duplicates == 50


def test_ids_that_must_be_kept_do_not_stop_the_intake_when_all_is_settled(
    path: Path, clock: ManualClock
) -> None:
    """They go when the broker has answered behind messages that it sends now: to wait for that
    without taking any would have no end."""
    with opened(path, Limits(max_bytes=MIB), clock) as journal:
        count = 0
        while True:
            journal.append([reading(n) for n in range(count, count + 500)], [])
            count += 500
            if journal.live_bytes > MIB and counted(path, "ids") == count:
                break
            settle_everything(journal)
            journal.maintain()
        assert journal.full
        settle_everything(journal)
        assert journal.full, "upkeep can make room"
        for _ in range(10):
            journal.maintain()
        assert (counted(path, "entries"), counted(path, "ids")) == (0, count)
        assert journal.live_bytes > RESUME_BELOW * MIB
        assert not journal.full
        last = journal.append([reading(count)], []).last_seq
        assert journal.full, "it is pending"
        journal.acknowledged(last)
        settle_everything(journal)
        for _ in range(10):
            journal.maintain()
        assert journal.live_bytes < RESUME_BELOW * MIB
        audit(path)


def test_without_pressure_nothing_is_pruned_early(path: Path, clock: ManualClock) -> None:
    with opened(path, Limits(max_bytes=MIB), clock) as journal:
        count = fill(journal, 0.5)
        settle_everything(journal)
        pass_time(journal, clock, 60)
        assert counted(path, "entries") == count


# --- full, and not full again ---------------------------------------------------------------------


def test_a_full_journal_says_so_and_is_full_until_it_is_clearly_below(
    path: Path, clock: ManualClock
) -> None:
    with opened(path, Limits(max_bytes=MIB), clock) as journal:
        count = fill_with_data(journal)
        assert journal.used_bytes >= RESUME_BELOW * MIB
        for _ in range(20):
            journal.maintain()
        assert journal.full, "nothing was settled"
        assert counted(path, "entries") == count
        resumed_at = None
        while resumed_at is None and journal.pending("bigquery"):
            for sink in ("pubsub", "bigquery"):
                settle(journal, sink, journal.read(journal.resume(sink).position, 50))
            journal.maintain()
            if not journal.full:
                resumed_at = journal.used_bytes
        assert resumed_at is not None
        assert resumed_at < RESUME_BELOW * MIB
        audit(path)


def test_a_journal_can_be_filled_and_emptied_for_ever(path: Path, clock: ManualClock) -> None:
    with opened(path, Limits(max_bytes=MIB), clock) as journal:
        for _ in range(5):
            assert not journal.full
            fill(journal)
            assert journal.full
            settle_everything(journal)
            pass_time(journal, clock, 60)
        assert path.stat().st_size < 2 * MIB
        audit(path)


def test_a_full_journal_stays_full_across_a_restart_and_can_be_settled_then(
    path: Path, clock: ManualClock
) -> None:
    limits = Limits(max_bytes=MIB)
    with opened(path, limits, clock) as journal:
        count = fill(journal, 1.4)  # enough without the log, which closing empties
    with opened(path, limits, clock) as journal:
        assert journal.full
        assert journal.pending("pubsub") == count
        settle_everything(journal)
        pass_time(journal, clock, 60)
        assert not journal.full


def test_fullness_counts_live_data_and_not_the_size_of_the_file(
    path: Path, clock: ManualClock
) -> None:
    with opened(path, Limits(max_bytes=MIB, retention_us=0), clock) as journal:
        fill(journal)
        settle_everything(journal)
        pass_time(journal, clock, 120)
        assert path.stat().st_size > 0.6 * MIB
        assert journal.used_bytes < 0.5 * MIB


# --- dead letters ---------------------------------------------------------------------------------


def letter(size: int) -> Rejection:
    return rejection()._replace(payload=b"x" * size, payload_bytes=size)


def test_without_a_dead_letter_topic_letters_beyond_the_limit_are_deferred(path: Path) -> None:
    with opened(path, Limits(dead_letter_max_bytes=10_000)) as journal:
        assert journal.append([], [letter(4_000), letter(4_000)]).deferred == frozenset()
        assert journal.has_room_for_letters()
        assert journal.append([reading(1)], [letter(4_000), letter(10)]).deferred == {0}
        assert journal.append([], [letter(4_000)]).deferred == {0}
        assert counted(path, "dead_letters") == 3
    with opened(path, Limits(dead_letter_max_bytes=10_000)) as journal:
        assert journal.append([], [letter(4_000)]).deferred == {0}


def test_with_a_limit_of_nothing_every_rejection_is_deferred(path: Path) -> None:
    with opened(path, Limits(dead_letter_max_bytes=0)) as journal:
        assert journal.append([], [letter(0)]).deferred == {0}
        assert not journal.has_room_for_letters()


def test_with_a_dead_letter_topic_letters_beyond_the_limit_only_pass_through(path: Path) -> None:
    limits = Limits(dead_letter_max_bytes=10_000, forwarding=True)
    with opened(path, limits) as journal:
        for _ in range(2):
            assert journal.append([], [letter(4_000)] * 3).deferred == frozenset()
        waiting = journal.letters_waiting(100)
        assert len(waiting) == 6
        journal.letters_forwarded(waiting[:3])  # far above the limit: gone once published
        assert counted(path, "dead_letters") == 3
        assert [one.id for one in journal.letters_waiting(100)] == [one.id for one in waiting[3:]]
        journal.letters_forwarded(waiting[3:5])
        journal.letters_forwarded(waiting[5:])  # below: kept for the operator
        assert journal.letters_waiting(100) == []
        assert rows(path, "SELECT id, forwarded FROM dead_letters") == [(waiting[5].id, 1)]


def test_what_is_on_its_way_to_the_dead_letter_topic_is_bounded(path: Path) -> None:
    with opened(path, Limits(dead_letter_max_bytes=0, forwarding=True)) as journal:
        result = journal.append([], [letter(100_000)] * 20)
        assert 5 <= 20 - len(result.deferred) <= 11
        journal.letters_forwarded(journal.letters_waiting(100))
        assert counted(path, "dead_letters") == 0
        assert journal.append([], [letter(100_000)]).deferred == frozenset()


def test_a_single_letter_however_large_gets_through_to_the_dead_letter_topic(path: Path) -> None:
    with opened(path, Limits(dead_letter_max_bytes=0, forwarding=True)) as journal:
        assert journal.append([], [letter(6 * MIB), letter(6 * MIB)]).deferred == {1}
        journal.letters_forwarded(journal.letters_waiting(100))
        assert journal.append([], [letter(6 * MIB)]).deferred == frozenset()


def test_letters_that_a_command_purged_make_room_for_new_ones(path: Path) -> None:
    with opened(path, Limits(dead_letter_max_bytes=10_000)) as journal:
        journal.append([], [letter(9_000)])
        assert journal.append([], [letter(9_000)]).deferred == {0}
        command = store.connect(path, 1_000)
        command.execute("DELETE FROM dead_letters")
        command.close()
        journal.maintain()
        assert journal.append([], [letter(9_000)]).deferred == frozenset()


def test_an_entry_that_a_sink_refused_is_a_letter_that_can_be_sent_again(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(1, attributes=NOTE), reading(2)], [])
        entries = journal.read(0, 10)
        settle(journal, "bigquery", entries[1:], refused=[Refused(entries[0], "row", "too odd")])
        (found,) = journal.letters_waiting(10)
        assert (found.sink, found.reason, found.detail) == ("bigquery", "row", "too odd")
        assert found.event_id == entries[0].reading.event_id
        assert found.topic == "FCTS/FAE/MOR/SolvExtract/FT-101"
        assert found.payload_bytes == len(found.payload)
        assert b'"note":"xxx' in found.payload


def test_a_loss_that_a_command_cleared_is_no_longer_shown(path: Path) -> None:
    with opened(path) as journal:
        command = store.connect(path, 1_000)
        command.execute("INSERT INTO meta VALUES ('loss', 'some')")
        journal.maintain()
        assert journal.loss == "some"
        command.execute("DELETE FROM meta WHERE key = 'loss'")
        command.close()
        journal.maintain()
        assert journal.loss is None


# --- a full disk ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 3 * MIB) as made:
        yield made


def take_room(folder: Path) -> Path:
    """Something else fills the disk to the last byte."""
    filler = folder / "filler"
    with open(filler, "ab", buffering=0) as file:
        for size in (65_536, 4_096, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def append_until_the_disk_is_full(journal: Journal) -> int:
    count = 0

    def append_for_ever() -> None:
        nonlocal count
        while True:
            journal.acknowledged(journal.append(batch(count, 50), []).last_seq)
            count += 50

    with pytest.raises(JournalError, match="full"):
        append_for_ever()
    return count


def test_on_a_full_disk_settling_and_pruning_work_and_then_the_intake_again(
    disk: Path, clock: ManualClock
) -> None:
    path = disk / "journal.db"
    with opened(path, Limits(max_bytes=64 * MIB), clock) as journal:
        count = append_until_the_disk_is_full(journal)
        assert journal.full
        assert counted(path, "entries") == count
        for sink in ("pubsub", "bigquery"):
            while entries := journal.read(journal.resume(sink).position, 100):
                settle(journal, sink, entries)
                journal.maintain()
        for _ in range(10):
            journal.maintain()
        assert not journal.full
        assert journal.append(batch(count, 50), []).accepted == 50
        audit(path)


def test_where_the_disk_has_room_only_for_short_transactions_pruning_takes_short_steps(
    path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = 0

    def delete(db: sqlite3.Connection, table: str, last: int) -> None:
        nonlocal gone
        if last - gone > 40:
            raise sqlite3.OperationalError("database or disk is full")
        gone = last if table == "ids" else gone
        whole(db, table, last)

    whole = retention.delete_up_to
    monkeypatch.setattr(retention, "delete_up_to", delete)
    with opened(path, Limits(retention_us=0), clock) as journal:
        journal.acknowledged(journal.append(batch(0, 500), []).last_seq)
        settle_everything(journal)
        clock.pass_(10)
        for _ in range(100):
            with suppress(JournalError):
                journal.maintain()
        assert counted(path, "ids") == 0


def test_when_others_fill_the_disk_the_reserve_lets_the_journal_be_settled(
    disk: Path, clock: ManualClock
) -> None:
    path = disk / "journal.db"
    with opened(path, Limits(max_bytes=16 * MIB), clock) as journal:
        journal.acknowledged(journal.append(batch(0, 500), []).last_seq)
        filler = take_room(disk)
        count = 500 + append_until_the_disk_is_full(journal)
        settle_everything(journal)
        pass_time(journal, clock, 60)
        filler.unlink()  # an operator makes room
        pass_time(journal, clock, 60)
        assert not journal.full
        assert journal.ceiling_bytes == 16 * MIB
        assert journal.append(batch(count, 500), []).accepted == 500
        audit(path)


def test_a_journal_opens_and_is_settled_on_a_disk_that_is_full(
    disk: Path, clock: ManualClock
) -> None:
    path = disk / "journal.db"
    limits = Limits(max_bytes=16 * MIB)
    journal = new_journal(path, limits, clock)
    journal.acknowledged(journal.append(batch(0, 300), []).last_seq)
    reserve = Path(f"{path}.reserve").read_bytes()
    journal.close()
    Path(f"{path}.reserve").write_bytes(reserve)  # as after a kill
    filler = take_room(disk)
    with opened(path, limits, clock) as journal:
        assert journal.pending("pubsub") == 300
        settle_everything(journal)
        pass_time(journal, clock, 60)
        filler.unlink()
        pass_time(journal, clock, 60)
        assert journal.append(batch(300), []).accepted == 100
        audit(path)


@pytest.mark.parametrize("size", [500, 1_000, 2_000])
def test_a_large_batch_does_not_fill_the_room_in_which_a_full_disk_is_settled(
    disk: Path, clock: ManualClock, size: int
) -> None:
    path = disk / "journal.db"
    with opened(path, Limits(max_bytes=64 * MIB), clock) as journal:
        count = append_until_the_disk_is_full(journal)
        for _ in range(8):
            while journal.full:
                for sink in ("pubsub", "bigquery"):
                    settle(journal, sink, journal.read(journal.resume(sink).position, 200))
                journal.maintain()
            with suppress(JournalError):  # it may be too large, and is taken later then
                journal.acknowledged(journal.append(batch(count, size), []).last_seq)
                count += size
            journal.maintain()
        settle_everything(journal)
        audit(path)


def test_a_kill_on_a_full_disk_loses_nothing(disk: Path, clock: ManualClock) -> None:
    path = disk / "journal.db"
    journal = new_journal(path, Limits(max_bytes=64 * MIB), clock)
    count = append_until_the_disk_is_full(journal)
    os.close(journal._file_lock._file or -1)  # as a kill does: nothing else is closed
    with opened(path, Limits(max_bytes=64 * MIB), clock) as again:
        assert again.pending("pubsub") == count
        settle_everything(again)
        pass_time(again, clock, 60)
        assert again.sites()["MOR"].balanced
    journal._db.close()
    audit(path)


def test_log_and_reserve_are_sized_by_a_disk_that_is_smaller_than_the_limit(
    disk: Path, clock: ManualClock
) -> None:
    """Sized by the limit, the log would take up the whole disk, and could never be emptied."""
    path = disk / "journal.db"
    with opened(path, Limits(max_bytes=4096 * MIB), clock) as journal:
        count = append_until_the_disk_is_full(journal)
        for sink in ("pubsub", "bigquery"):
            while entries := journal.read(journal.resume(sink).position, 500):
                settle(journal, sink, entries)
                journal.maintain()
        for _ in range(20):
            clock.pass_(5)
            journal.maintain()
        assert not journal.full
        journal.append(batch(count, 50), [])


def test_a_disk_with_room_again_is_not_filled_before_the_reserve_is_back(
    disk: Path, clock: ManualClock
) -> None:
    """Filled a second time without one, the journal could not even be settled."""
    path = disk / "journal.db"
    with opened(path, Limits(max_bytes=4096 * MIB), clock) as journal:
        filler = take_room(disk)
        count = append_until_the_disk_is_full(journal)
        filler.unlink()
        for _ in range(40):
            with suppress(JournalError):
                for sink in ("pubsub", "bigquery"):
                    if entries := journal.read(journal.resume(sink).position, 150):
                        settle(journal, sink, entries)
                journal.maintain()
                while not journal.full:
                    journal.acknowledged(journal.append(batch(count, 20), []).last_seq)
                    count += 20
        settle_everything(journal)
        for _ in range(50):
            with suppress(JournalError):  # a step that was too long for the room is made shorter
                journal.maintain()
        assert not journal.full
        assert journal.append(batch(count, 20), []).accepted == 20
        audit(path)
