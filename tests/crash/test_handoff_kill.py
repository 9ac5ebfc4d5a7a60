"""Instances killed between any two uses of the bucket: each reading has one owner, and one only."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.clock import SystemClock
from bridge.errors import Transient
from bridge.handoff import Handoff, handoff, others, own
from bridge.handoff.bucket import Bucket, BucketError, Stored
from bridge.handoff.own import Superseded
from bridge.handoff.record import HEADS, Head
from bridge.journal import Journal
from bridge.journal.journal import Limits
from bridge.journal.orders import Order
from bridge.reading import Rejection
from tests.support.journals import settle_everything
from tests.support.orders import GOOD, carried_out
from tests.support.readings import reading
from tests.support.storage import Storage, storage

SINKS = {"pubsub": "topic", "bigquery": "table"}


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class Mortal:
    """A bucket whose user is killed at its call number `dies_at`, before or after it works; or
    hears no answer, with another `end`."""

    def __init__(self, bucket: Bucket, dies_at: int | None, applied: bool) -> None:
        self._bucket = bucket
        self.dies_at = dies_at
        self.applied = applied
        self.end: Callable[[], BaseException] = Killed
        self.calls = 0

    def get(self, path: str) -> Stored | None:
        stored: Stored | None = self._step(lambda: self._bucket.get(path))
        return stored

    def put(self, path: str, data: bytes, generation: int | None = None) -> int:
        return int(self._step(lambda: self._bucket.put(path, data, generation)))

    def delete(self, path: str, generation: int | None = None) -> None:
        self._step(lambda: self._bucket.delete(path, generation))

    def names(self, prefix: str) -> list[str]:
        return list(self._step(lambda: self._bucket.names(prefix)))

    def _step(self, call: Callable[[], Any]) -> Any:
        self.calls += 1
        dies = self.dies_at == self.calls
        if dies and not self.applied:
            raise self.end()
        answer = call()
        if dies:
            raise self.end()
        return answer


class Machine:
    """One disk, and the process that runs on it just now."""

    def __init__(self, bucket: Bucket, path: Path) -> None:
        self.path = path
        self._bucket = bucket

    def start(self, dies_at: int | None = None, applied: bool = False) -> None:
        self.journal = Journal(self.path, Limits(), SystemClock())
        self.journal.open()
        self.journal.activate(SINKS)
        self.bucket = Mortal(self._bucket, dies_at, applied)
        name = f"{self.path.stem}-{next(_NUMBERS)}"
        bucket: Any = self.bucket
        self.handoff = Handoff(bucket, self.journal, SINKS, name, SystemClock())

    def take_up(self) -> None:
        self.handoff.take_up(lambda: True)

    def tick(self) -> None:
        self.handoff._tick()

    def end(self) -> None:
        """As a kill leaves it."""
        self.journal.close()

    def open_values(self) -> list[float]:
        """The readings that this machine has still to deliver, in order."""
        entries, _ = self.journal.unresolved(self.journal.resolved_up_to, 10_000)
        return [entry.reading.value for entry in entries]


_NUMBERS = itertools.count()


def taken_up(bucket: Bucket, path: Path) -> Machine:
    """A machine that has started, and taken over what there was."""
    machine = Machine(bucket, path)
    machine.start()
    machine.take_up()
    return machine


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    with storage(tmp_path_factory.mktemp("storage")) as made:
        yield made


@pytest.fixture
def bucket(server: Storage) -> Bucket:
    for name in server.bucket.names(""):
        server.bucket.delete(name)
    return server.bucket


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "AGE_US", 0)
    monkeypatch.setattr(own, "PART", 7)
    monkeypatch.setattr(own, "READ", 5)
    monkeypatch.setattr(others, "STALE_SECONDS", 0.0)
    monkeypatch.setattr(others, "PRESENT_SECONDS", 0.0)
    monkeypatch.setattr(handoff, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(handoff, "START_SECONDS", 2.0)
    monkeypatch.setattr(handoff, "POLL_SECONDS", 0.0)


def values(first: int, end: int) -> list[float]:
    return [float(number) for number in range(first, end)]


def take(machine: Machine, first: int, end: int) -> None:
    machine.journal.append([reading(number) for number in range(first, end)], [])


def all_settled(machine: Machine) -> None:
    settle_everything(machine.journal, list(SINKS))


def parts(bucket: Bucket) -> list[str]:
    return bucket.names("parts/")


def heads(bucket: Bucket) -> list[Head]:
    found = [bucket.get(name) for name in bucket.names(HEADS)]
    return [Head.model_validate_json(head.data) for head in found if head is not None]


def head_of(bucket: Bucket, machine: str) -> Head:
    (found,) = [head for head in heads(bucket) if head.instance.startswith(machine)]
    return found


# --- the predecessor dies -------------------------------------------------------------------------


def handing_in(machine: Machine) -> None:
    """What the first machine does with its life."""
    machine.take_up()
    take(machine, 0, 10)
    all_settled(machine)
    take(machine, 10, 30)
    machine.tick()
    take(machine, 30, 40)
    machine.tick()
    machine.handoff.close()


def calls_of(bucket: Bucket, path: Path, life: Callable[[Machine], None]) -> int:
    machine = Machine(bucket, path)
    machine.start()
    life(machine)
    machine.end()
    return machine.bucket.calls


@pytest.mark.parametrize("applied", [False, True])
def test_whenever_the_first_is_killed_both_together_have_each_reading_once(
    bucket: Bucket, tmp_path: Path, applied: bool
) -> None:
    calls = calls_of(bucket, tmp_path / "measure.db", handing_in)
    assert calls > 10
    for dies_at in range(1, calls + 1):
        for name in bucket.names(""):
            bucket.delete(name)
        first = Machine(bucket, tmp_path / f"first-{dies_at}.db")
        first.start(dies_at, applied)
        with pytest.raises(Killed):
            handing_in(first)
        there = [*first.open_values()]
        first.end()
        second = Machine(bucket, tmp_path / f"second-{dies_at}.db")
        second.start()
        second.take_up()
        taken = second.open_values()
        assert taken == there[: len(taken)]
        second.end()
        first.start()
        first.take_up()
        assert taken + first.open_values() == there
        first.end()


# --- the successor dies ---------------------------------------------------------------------------


def left_behind(bucket: Bucket, path: Path) -> None:
    """A record of 30 unsettled readings, a dead letter and some ids, closed."""
    for name in bucket.names(""):
        bucket.delete(name)
    first = taken_up(bucket, path)
    take(first, 0, 10)
    all_settled(first)
    take(first, 10, 40)
    refused = Rejection("field_missing", "no value", "MOR", "t", b"\x00\xff", 2, b"sha", 1)
    first.journal.append([], [refused])
    first.handoff.close()
    first.end()


def taking_over(machine: Machine) -> None:
    machine.take_up()
    machine.tick()
    machine.tick()


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_whenever_the_second_is_killed_whoever_goes_on_has_each_reading_once(
    bucket: Bucket, tmp_path: Path, applied: bool, disk: str
) -> None:
    left_behind(bucket, tmp_path / "measured.db")
    calls = calls_of(bucket, tmp_path / "measure.db", taking_over)
    assert calls > 10
    for dies_at in range(1, calls + 1):
        left_behind(bucket, tmp_path / f"first-{dies_at}.db")
        second = Machine(bucket, tmp_path / f"second-{dies_at}.db")
        second.start(dies_at, applied)
        with pytest.raises(Killed):
            taking_over(second)
        second.end()
        last = second if disk == "kept" else Machine(bucket, tmp_path / f"third-{dies_at}.db")
        last.start()
        last.take_up()
        assert last.open_values() == values(10, 40)
        assert [letter.payload for letter in last.journal.letters_waiting(9)] == [b"\x00\xff"]
        take(last, 5, 15)  # sent again by sensors that had no acknowledgement
        assert last.open_values() == values(10, 40)
        all_settled(last)
        last.tick()
        named = {part for head in heads(bucket) for part in head.parts()}
        assert not [name for name in named if "readings" in name]
        last.end()


def persistently(step: Callable[[], object]) -> None:
    """As the bridge does: what the bucket did not do is tried again."""
    try:
        step()
    except (BucketError, Transient):
        step()


@pytest.mark.slow
def test_an_answer_that_never_comes_is_no_end_long_after_the_start_either(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When others are hardly looked at any more, which would show what came of the call."""
    monkeypatch.setattr(own, "PART", 100)
    monkeypatch.setattr(own, "READ", 100)
    calls = itertools.count(1)
    while use_with_a_lost_answer(bucket, tmp_path, next(calls), monkeypatch):
        pass
    assert next(calls) > 5


def use_with_a_lost_answer(
    bucket: Bucket, tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Whether a second machine used the bucket so often after its start that an answer was
    lost."""
    left_behind(bucket, tmp_path / f"first-{call}.db")
    second = taken_up(bucket, tmp_path / f"second-{call}.db")
    fails_at = second.bucket.calls + call
    second.bucket.dies_at, second.bucket.applied = fails_at, True
    second.bucket.end = lambda: BucketError("no answer")
    with monkeypatch.context() as later:
        later.setattr(handoff, "YOUNG_SECONDS", 0.0)
        later.setattr(handoff, "LOOK_SECONDS", 3_600.0)
        persistently(lambda: second.handoff.stream_created("streams/another"))
        assert "streams/another" in head_of(bucket, "first").streams
        persistently(second.tick)
        all_settled(second)
        persistently(second.tick)
    assert head_of(bucket, "first").empty
    second.end()
    return second.bucket.calls >= fails_at


# --- two that live at the same time ---------------------------------------------------------------


def test_one_that_is_alive_is_told_before_it_uses_another_stream(
    bucket: Bucket, tmp_path: Path
) -> None:
    first, second = Machine(bucket, tmp_path / "first.db"), Machine(bucket, tmp_path / "second.db")
    first.start()
    first.take_up()
    first.handoff.stream_created("stream-1")
    take(first, 0, 10)
    first.tick()
    second.start()
    second.take_up()
    assert second.open_values() == values(0, 10)
    assert second.journal.foreign_streams() == ["stream-1"]
    with pytest.raises(Transient, match="another instance"):
        first.handoff.stream_created("stream-2")
    with pytest.raises(Superseded):
        first.tick()
    first.end()
    second.end()


def test_the_head_names_a_new_stream_before_it_is_used(bucket: Bucket, tmp_path: Path) -> None:
    first = taken_up(bucket, tmp_path / "first.db")
    take(first, 0, 10)
    first.tick()
    first.handoff.stream_created("stream-2")
    assert [head.streams for head in heads(bucket)] == [("stream-2",)]
    first.end()


class Interrupted:
    """A bucket of which something else happens right after an object was read."""

    def __init__(self, bucket: Bucket, path: str, then: Callable[[], object]) -> None:
        self._bucket = bucket
        self._path = path
        self._then: Callable[[], object] | None = then

    def get(self, path: str) -> Stored | None:
        stored = self._bucket.get(path)
        if path == self._path and self._then is not None:
            then, self._then = self._then, None
            then()
        return stored

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bucket, name)


def test_a_stream_that_is_created_while_others_are_looked_at_is_named_and_nothing_ends(
    bucket: Bucket, tmp_path: Path
) -> None:
    left_behind(bucket, tmp_path / "first.db")
    second = taken_up(bucket, tmp_path / "second.db")
    (taken,) = [head for head in heads(bucket) if head.taken_by is not None]
    created = threading.Thread(target=lambda: second.handoff.stream_created("stream-2"))

    def create() -> None:
        created.start()
        created.join(0.3)  # it may have to wait until the look is over

    second.handoff._others._bucket = Interrupted(  # type: ignore[assignment]
        bucket, f"{HEADS}{taken.instance}", create
    )
    second.tick()
    created.join()
    assert all("stream-2" in head.streams for head in heads(bucket) if not head.empty)
    all_settled(second)
    second.tick()
    assert next(h for h in heads(bucket) if h.instance == taken.instance).empty
    second.end()


class Late:
    """A lock that somebody else has had just before."""

    def __init__(self, before: Callable[[], object]) -> None:
        self._before: Callable[[], object] | None = before
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if self._before is not None:
            before, self._before = self._before, None
            before()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_sign_of_life_does_not_undo_a_stream_that_was_created_meanwhile(
    bucket: Bucket, tmp_path: Path
) -> None:
    first = taken_up(bucket, tmp_path / "first.db")
    take(first, 0, 10)
    first.tick()
    first.handoff._own._lock = Late(  # type: ignore[assignment]
        lambda: first.handoff.stream_created("stream-2")
    )
    first.tick()
    assert [head.streams for head in heads(bucket)] == [("stream-2",)]
    first.end()


def test_a_living_one_is_left_alone(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "STALE_SECONDS", 60.0)
    monkeypatch.setattr(handoff, "START_SECONDS", 0.2)
    first, second = Machine(bucket, tmp_path / "first.db"), Machine(bucket, tmp_path / "second.db")
    first.start()
    first.take_up()
    take(first, 0, 10)
    first.tick()
    second.start()
    second.take_up()
    assert second.open_values() == []
    first.handoff.close()
    second.tick()
    assert second.open_values() == values(0, 10)
    first.end()
    second.end()


def test_readings_for_another_destination_stay_where_they_are(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left_behind(bucket, tmp_path / "first.db")
    second = Machine(bucket, tmp_path / "second.db")
    second.start()
    second.handoff = Handoff(
        bucket, second.journal, {**SINKS, "bigquery": "another"}, "second", SystemClock()
    )
    second.take_up()
    assert second.open_values() == []
    assert "for another destination" in caplog.text
    assert len(parts(bucket)) > 0
    second.end()


def test_a_damaged_or_missing_part_is_said_and_the_others_are_taken(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left_behind(bucket, tmp_path / "first.db")
    one, two, *_ = [name for name in parts(bucket) if "readings" in name]
    bucket.put(one, b"no such thing")
    bucket.delete(two)
    second = taken_up(bucket, tmp_path / "second.db")
    assert second.open_values() == values(30, 40)
    assert "a part in the bucket is damaged" in caplog.text
    assert "not in the bucket any more" in caplog.text
    second.end()


def test_parts_are_bounded_by_bytes_as_well(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "PART", 1_000)
    monkeypatch.setattr(own, "READ", 1_000)
    monkeypatch.setattr(own, "PART_BYTES", 1_000)
    first, second = Machine(bucket, tmp_path / "first.db"), Machine(bucket, tmp_path / "second.db")
    first.start()
    first.take_up()
    take(first, 0, 30)
    refused = [
        Rejection("field_missing", "", "MOR", f"{number}", b"x" * 600, 600, b"sha", 1)
        for number in range(4)
    ]
    first.journal.append([], refused)
    first.handoff.close()
    (head,) = heads(bucket)
    assert head.readings == (0, 5 + 1)  # of six readings each, and the ids
    assert head.letters == (0, 2)
    first.end()
    second.start()
    second.take_up()
    assert second.open_values() == values(0, 30)
    assert len(second.journal.letters_waiting(9)) == 4
    second.end()


# --- dead letters that were dealt with ------------------------------------------------------------


def with_three_letters(bucket: Bucket, path: Path) -> Machine:
    """A machine of which three dead letters are in the bucket."""
    machine = taken_up(bucket, path)
    refused = [
        Rejection("field_missing", "no value", "MOR", f"t-{n}", b"\x00\xff", 2, b"sha", n)
        for n in range(3)
    ]
    machine.journal.append([], refused)
    machine.tick()
    return machine


def replay(machine: Machine, letter: int) -> None:
    topic = f"FCTS/FAE/MOR/SolvExtract/T-{letter}"
    assert carried_out(machine.journal, Order(letter, topic, GOOD)) == ["accepted"]


def topics_taken(bucket: Bucket, path: Path) -> list[str]:
    """Of the dead letters that a successor is offered."""
    successor = taken_up(bucket, path)
    found = [letter.topic for letter in successor.journal.letters_waiting(9)]
    successor.end()
    return found


def test_a_letter_that_was_replayed_is_not_offered_again_after_a_stop(
    bucket: Bucket, tmp_path: Path
) -> None:
    first = with_three_letters(bucket, tmp_path / "first.db")
    replay(first, 2)
    first.handoff.close()
    first.end()
    assert topics_taken(bucket, tmp_path / "second.db") == ["t-0", "t-2"]


def test_nor_after_a_sudden_end_once_the_orders_have_come_to_rest(
    bucket: Bucket, tmp_path: Path
) -> None:
    first = with_three_letters(bucket, tmp_path / "first.db")
    replay(first, 1)
    first.tick()  # others may follow
    first.tick()
    first.end()
    assert topics_taken(bucket, tmp_path / "second.db") == ["t-1", "t-2"]


@pytest.mark.parametrize("replayed", [[1], [1, 2, 3]])
def test_not_before_what_came_of_it_is_safe(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replayed: list[int]
) -> None:
    first = with_three_letters(bucket, tmp_path / "first.db")
    monkeypatch.setattr(own, "AGE_US", 60_000_000)
    for letter in replayed:
        replay(first, letter)
    first.tick()
    first.tick()
    assert topics_taken(bucket, tmp_path / "second.db") == ["t-0", "t-1", "t-2"]
    first.end()


def test_nor_when_it_was_replayed_while_the_bridge_was_down(bucket: Bucket, tmp_path: Path) -> None:
    first = with_three_letters(bucket, tmp_path / "first.db")
    first.end()
    first.journal.open()
    replay(first, 3)
    first.end()
    first.start()
    first.take_up()
    first.tick()
    first.tick()
    first.end()
    assert topics_taken(bucket, tmp_path / "second.db") == ["t-0", "t-1"]


def test_letters_are_not_read_back_while_nothing_is_ordered(bucket: Bucket, tmp_path: Path) -> None:
    first = with_three_letters(bucket, tmp_path / "first.db")
    first.tick()
    before = first.bucket.calls
    first.tick()
    idle = first.bucket.calls - before
    replay(first, 1)
    first.tick()
    before = first.bucket.calls
    first.tick()
    assert first.bucket.calls - before == idle + 2  # one part is read, and written
    first.end()


def test_whenever_it_is_killed_meanwhile_no_letter_is_lost(bucket: Bucket, tmp_path: Path) -> None:
    for dies_at in itertools.count(1):
        for name in bucket.names(""):
            bucket.delete(name)
        first = with_three_letters(bucket, tmp_path / f"first-{dies_at}.db")
        replay(first, 2)
        first.bucket.dies_at = first.bucket.calls + dies_at
        try:
            first.handoff.close()
        except Killed:
            first.end()
        else:
            break
        found = topics_taken(bucket, tmp_path / f"second-{dies_at}.db")
        assert found in (["t-0", "t-1", "t-2"], ["t-0", "t-2"])
    assert dies_at > 3
    first.end()


# --- the ledger by day ----------------------------------------------------------------------------


def by_day(machine: Machine) -> list[tuple[str, int]]:
    """Sinks, and how many readings are counted as settled."""
    return sorted((line[0], line[3]) for piece in machine.journal.days() for line in piece.lines)


def since(machine: Machine) -> dict[str, int]:
    return dict(next(machine.journal.days()).since)


def counted(number: int) -> list[tuple[str, int]]:
    return [(sink, number) for sink in sorted(SINKS) if number]


def settled_and_closed(bucket: Bucket, path: Path) -> Machine:
    """A machine that has settled ten readings and handed over."""
    machine = taken_up(bucket, path)
    take_now(machine, 0, 10)
    all_settled(machine)
    machine.handoff.close()
    machine.end()
    return machine


def take_now(machine: Machine, first: int, end: int) -> None:
    """Readings of one day, received now."""
    now = SystemClock().now_us()
    machine.journal.append(
        [reading(number)._replace(received_us=now) for number in range(first, end)], []
    )


def test_a_successor_counts_on_where_its_predecessor_stopped(
    bucket: Bucket, tmp_path: Path
) -> None:
    first = settled_and_closed(bucket, tmp_path / "first.db")
    second = taken_up(bucket, tmp_path / "second.db")
    assert by_day(second) == counted(10)
    take_now(second, 10, 15)
    all_settled(second)
    assert by_day(second) == counted(15)
    begun = since(second)
    second.end()
    first.start()
    assert since(first) == begun
    first.take_up()
    assert by_day(first) == []  # it is the second's, and counted there
    assert min(since(first).values()) > max(begun.values())
    first.end()


def test_whenever_a_successor_is_killed_it_has_the_ledger_once(
    bucket: Bucket, tmp_path: Path
) -> None:
    settled_and_closed(bucket, tmp_path / "measured.db")
    calls = calls_of(bucket, tmp_path / "measure.db", taking_over)
    for dies_at in range(1, calls + 1):
        for name in bucket.names(""):
            bucket.delete(name)
        settled_and_closed(bucket, tmp_path / f"first-{dies_at}.db")
        second = Machine(bucket, tmp_path / f"second-{dies_at}.db")
        second.start(dies_at, applied=True)
        with pytest.raises(Killed):
            taking_over(second)
        second.end()
        second.start()
        taking_over(second)
        assert by_day(second) == counted(10)
        second.end()


def test_a_journal_that_goes_on_itself_takes_its_ledger_out_of_the_bucket(
    bucket: Bucket, tmp_path: Path
) -> None:
    first = settled_and_closed(bucket, tmp_path / "first.db")
    assert [name for name in parts(bucket) if "days" in name]
    first.start()
    first.take_up()
    assert by_day(first) == counted(10)
    assert not [name for name in parts(bucket) if "days" in name]
    first.handoff.close()
    first.end()
    second = taken_up(bucket, tmp_path / "second.db")
    assert by_day(second) == counted(10)
    second.end()


def test_of_a_successor_that_died_nobody_takes_its_predecessors_old_ledger(
    bucket: Bucket, tmp_path: Path
) -> None:
    left_behind(bucket, tmp_path / "first.db")
    second = taken_up(bucket, tmp_path / "second.db")
    take_now(second, 40, 50)
    all_settled(second)
    second.end()
    third = taken_up(bucket, tmp_path / "third.db")
    assert third.open_values() == values(10, 40)
    assert by_day(third) == []
    third.end()


def test_of_very_many_lines_those_of_the_newest_days_are_handed_over(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.journal.days.PIECE", 4)
    monkeypatch.setattr("bridge.journal.days.PIECES", 2)
    first = taken_up(bucket, tmp_path / "first.db")
    now = SystemClock().now_us()
    moved = [
        reading(n, event_us=now - n * 86_400_000_000)._replace(received_us=now) for n in range(6)
    ]
    first.journal.append(moved, [])
    all_settled(first)
    first.handoff.close()
    first.end()
    second = taken_up(bucket, tmp_path / "second.db")
    today = now // 86_400_000_000
    pieces = list(second.journal.days())
    found = {line[2] for piece in pieces for line in piece.lines}
    assert found == {today - 2, today - 1, today}
    assert pieces[0].floor == today - 2
    second.end()
