"""A lane's state: what an answer makes of its batches, without threads and time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random

import pytest

from bridge.clock import SystemClock
from bridge.journal import Journal, LaneProgress, Settlement
from bridge.journal.journal import Limits
from bridge.lanes import ATTEMPTS_A_REFUSAL_MORE, LARGEST_CHUNK, MAX_REFUSALS, Lane
from bridge.loading import Loader
from bridge.policy import BatchPolicy
from bridge.reading import Entry
from bridge.sinks.base import Outcome
from tests.support.readings import reading

POLICY = BatchPolicy(10, 10_000_000)


def lane(count: int = 10) -> Lane:
    made = Lane("")
    made.queue.extend(Entry(seq, reading(seq)) for seq in range(1, count + 1))
    return made


def seqs(entries: Iterable[Entry]) -> list[int]:
    return [entry.seq for entry in entries]


def next_seqs(of: Lane) -> list[int]:
    return seqs(of.next_batch(POLICY))


def accept(of: Lane) -> Settlement:
    """The whole next batch is accepted."""
    settlement = of.answered(Outcome(seqs(of.next_batch(POLICY)), {}), True)
    assert settlement is not None
    return settlement


def refuse(
    of: Lane, *bad: int, accepted: Iterable[int] = (), room: bool = True
) -> Settlement | None:
    """The next batch is answered with these refused by name."""
    of.next_batch(POLICY)
    return of.answered(Outcome(list(accepted), dict.fromkeys(bad, "never")), room)


def letters(settlement: Settlement | None) -> list[int]:
    assert settlement is not None
    return [refused.entry.seq for refused in settlement.refused]


def test_what_the_service_calls_the_last_of_a_batch_goes_on_with_what_it_settles() -> None:
    of = lane(4)
    settlement = of.answered(Outcome(next_seqs(of), {}, "message 4"), True)
    assert settlement is not None
    assert settlement.reference == "message 4"


# --- batches --------------------------------------------------------------------------------------


def test_a_batch_stays_what_it_is_until_there_is_a_definite_answer() -> None:
    of = lane(4)
    first = next_seqs(of)
    of.queue.append(Entry(5, reading(5)))
    assert next_seqs(of) == first == [1, 2, 3, 4]
    accept(of)
    assert next_seqs(of) == [5]


def test_what_an_answer_does_not_name_goes_again_before_anything_later() -> None:
    of = lane(12)
    next_seqs(of)
    settlement = of.answered(Outcome([2, 4], {}), True)
    assert settlement is not None
    assert seqs(settlement.settled) == [2, 4]
    assert settlement.progress == LaneProgress(1 - 1, (2, 4))
    assert next_seqs(of) == [1, 3, 5, 6, 7, 8, 9, 10, 11, 12]


def test_progress_never_passes_what_is_open() -> None:
    of = lane(3)
    next_seqs(of)
    of.answered(Outcome([1, 3], {}), True)
    assert of.first_open == 2
    assert accept(of).progress == LaneProgress(3, ())
    assert of.idle


def test_progress_goes_on_from_a_restart() -> None:
    of = Lane("", LaneProgress(4, (6,)))
    of.queue.extend(Entry(seq, reading(seq)) for seq in (5, 7))
    of.next_batch(POLICY)
    settlement = of.answered(Outcome([7], {}), True)
    assert settlement is not None
    assert settlement.progress == LaneProgress(4, (6, 7))
    assert accept(of).progress == LaneProgress(7, ())


# --- suspects that are named ----------------------------------------------------------------------


def test_a_row_that_is_refused_beside_an_accepted_one_is_its_own_fault() -> None:
    of = lane(3)
    settlement = refuse(of, 2, accepted=[1, 3])
    assert letters(settlement) == [2]
    assert of.idle


def test_a_row_that_is_refused_is_tried_once_more_after_a_neighbour_was_accepted() -> None:
    of = lane(3)
    assert refuse(of, 2) is None
    assert letters(accept(of)) == []
    assert next_seqs(of) == [2]
    assert letters(refuse(of, 2)) == [2]
    assert of.idle


def test_a_row_that_was_refused_by_a_fault_of_the_table_is_accepted_the_second_time() -> None:
    of = lane(3)
    refuse(of, 1, 2)
    accept(of)
    settlement = accept(of)
    assert seqs(settlement.settled) == [1, 2]
    assert settlement.progress == LaneProgress(3, ())


def test_refusals_of_everything_hold_the_lane_and_give_nothing_up() -> None:
    of = lane(100)
    for _ in range(MAX_REFUSALS):
        assert not of.nothing_accepted
        batch = next_seqs(of)
        assert refuse(of, *batch) is None
    assert of.nothing_accepted
    of.give_back_suspects()
    assert not of.nothing_accepted
    assert next_seqs(of) == list(range(1, 11))


def test_a_destination_that_is_mended_between_two_batches_costs_no_entry() -> None:
    of = lane(40)
    refuse(of, *next_seqs(of))
    refuse(of, *next_seqs(of))
    accept(of)
    found: list[int] = []
    while not of.idle:
        settlement = accept(of)
        assert letters(settlement) == []
        found += seqs(settlement.settled)
    assert sorted(found) == [*range(1, 21), *range(31, 41)]


@pytest.mark.parametrize("bad", [{1}, {40}, {1, 2, 3, 4}, set(range(1, 21)), set(range(2, 40, 2))])
def test_named_rows_are_given_up_and_all_others_are_there(bad: set[int]) -> None:
    of = lane(41)
    there: list[int] = []
    given_up: list[int] = []
    while not of.idle:
        assert not of.nothing_accepted
        named = [seq for seq in next_seqs(of) if seq in bad]
        settlement = refuse(of, *named) if named else accept(of)
        if settlement is not None:
            there += seqs(settlement.settled)
            given_up += letters(settlement)
    assert sorted(there) == [seq for seq in range(1, 42) if seq not in bad]
    assert sorted(given_up) == sorted(bad)


def test_many_attempts_allow_more_refusals_so_that_good_entries_are_found_in_the_end() -> None:
    of = lane(100)
    of.attempts = 2 * ATTEMPTS_A_REFUSAL_MORE
    for _ in range(MAX_REFUSALS + 1):
        refuse(of, *next_seqs(of))
        assert not of.nothing_accepted


def test_an_entry_that_is_alone_waits_for_a_neighbour() -> None:
    of = lane(1)
    refuse(of, 1)
    assert of.nothing_accepted
    of.give_back_suspects()
    of.queue.append(Entry(2, reading(2)))
    refuse(of, 1)
    assert not of.nothing_accepted
    accept(of)
    assert letters(refuse(of, 1)) == [1]


def test_without_room_for_letters_the_guilty_stay_and_the_others_go_on() -> None:
    of = lane(3)
    assert letters(refuse(of, 2, accepted=[1, 3], room=False)) == []
    assert of.first_open == 2
    assert of.nothing_accepted
    of.give_back_suspects()
    assert refuse(of, 2, room=False) is None
    of.give_back_suspects()
    assert letters(refuse(of, 2)) == [2]


def test_an_entry_that_is_a_suspect_or_resolved_is_not_to_be_loaded_again() -> None:
    of = lane(5)
    next_seqs(of)
    of.answered(Outcome([2], {}), True)
    assert refuse(of, 4) is None
    assert [seq for seq in range(1, 6) if of.has(seq)] == [2, 4]


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[Loader]:
    """Over a journal of thirty entries of one lane, all of them loaded."""
    journal = Journal(tmp_path / "journal.db", Limits(), SystemClock())
    journal.open()
    journal.activate({"sink": "here"})
    journal.append([reading(number) for number in range(1, 31)], [])
    made = Loader(journal, lambda _reading: "", lambda _lane: False, journal.resume("sink"))
    made.load()
    yield made
    journal.close()


def test_what_was_left_behind_comes_again_without_suspects_and_without_what_is_resolved(
    loader: Loader,
) -> None:
    of = loader.lanes[""]
    refuse(of, 6)
    accept(of)  # the nine others: from now on 6 is tried once more, ahead of them
    refuse(of, 12)
    loader.spill(of, 31)
    while loader.load():
        pass
    loaded = sorted(seqs([*of.queue, *(suspect.entry for suspect in of.suspects)]))
    assert loaded == [6, *range(11, 31)]


# --- suspects that are not named ------------------------------------------------------------------


def found_by_halving(count: int, refused: Callable[[Entry], bool]) -> tuple[list[int], list[int]]:
    """Accepted and given up, of a service that refuses a batch for one of its entries."""
    of = lane(count)
    there: list[int] = []
    given_up: list[int] = []
    policy = BatchPolicy(1_000, 100_000_000)
    for _ in range(20_000):
        if of.idle:
            return there, given_up
        assert not of.nothing_accepted
        batch = of.next_batch(policy)
        if any(refused(entry) for entry in batch):
            settlement = of.refused("something", True)
        else:
            settlement = of.answered(Outcome(seqs(batch), {}), True)
        if settlement is not None:
            there += seqs(settlement.settled)
            given_up += letters(settlement)
    raise AssertionError("it never ends")


@pytest.mark.parametrize("bad", [{1}, {500}, {998, 999}, {1, 2, 500, 501}, {7, 400, 401, 999}])
def test_culprits_are_found_by_halving_and_the_rest_stays_in_order(bad: set[int]) -> None:
    there, given_up = found_by_halving(1_000, lambda entry: entry.seq in bad)
    assert there == [seq for seq in range(1, 1_001) if seq not in bad]
    assert given_up == sorted(bad)


@pytest.mark.parametrize("seed", range(5))
def test_any_culprits_far_enough_apart_are_found(seed: int) -> None:
    chance = Random(seed)
    bad = {chance.randrange(first, first + 40) for first in range(1, 900, 50)}
    there, given_up = found_by_halving(1_000, lambda entry: entry.seq in bad)
    assert there == [seq for seq in range(1, 1_001) if seq not in bad]
    assert sorted(given_up) == sorted(bad)


def test_the_search_ends_and_whole_batches_are_sent_again() -> None:
    of = lane(3)
    of.next_batch(POLICY)
    of.refused("something", True)
    assert of.chunk == 2
    seq = 4
    while of.chunk is not None:
        of.queue.extend(Entry(n, reading(n)) for n in range(seq, seq + 10))
        seq += 10
        accept(of)
        assert of.chunk is None or of.chunk <= LARGEST_CHUNK


def test_an_unnamed_refusal_of_everything_holds_the_lane() -> None:
    of = lane(10)
    answers = 0
    while not of.nothing_accepted:
        of.next_batch(POLICY)
        assert of.refused("something", True) is None
        answers += 1
    assert len(of.suspects) == MAX_REFUSALS
    assert answers < 10
    of.give_back_suspects()
    assert next_seqs(of) == list(range(1, 11))


def test_a_topic_that_is_mended_while_suspects_are_passed_by_costs_no_entry() -> None:
    of = lane(4)
    while len(of.suspects) < 2:
        of.next_batch(POLICY)
        of.refused("something", True)
    there: list[int] = []
    while not of.idle:
        settlement = accept(of)
        assert letters(settlement) == []
        there += seqs(settlement.settled)
    assert sorted(there) == [1, 2, 3, 4]


# --- the witness ----------------------------------------------------------------------------------


def test_while_the_witness_is_asked_nothing_open_is_passed_and_nothing_settled_twice() -> None:
    of = Lane("", witnessed=True, witness=Entry(1, reading(1)))
    of.queue.append(Entry(2, reading(2)))
    assert next_seqs(of) == [2]
    assert of.refused("no", True) is None
    assert next_seqs(of) == [1]
    assert of.first_open == 2
    assert not of.nothing_accepted
    assert of.answered(Outcome([1], {}), True) is None
    assert next_seqs(of) == [2]
    assert seqs(accept(of).settled) == [2]
    assert of.witness == Entry(2, reading(2))


def test_a_destination_that_refuses_the_witness_is_at_fault() -> None:
    of = Lane("", witnessed=True, witness=Entry(1, reading(1)))
    of.queue.extend(Entry(seq, reading(seq)) for seq in (2, 3))
    for _ in range(4):  # all, the first alone, its witness: held; and all again
        of.next_batch(POLICY)
        assert of.refused("no", True) is None
        if of.nothing_accepted:
            of.give_back_suspects()
    assert letters(accept_all(of)) == []


def accept_all(of: Lane) -> Settlement:
    settlement = accept(of)
    while of.queue:
        settlement = accept(of)
    return settlement
