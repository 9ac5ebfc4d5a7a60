"""BigQuery by the Storage Write API: whatever the service, the disk or the process does, each
reading is in the table once. Real delivery, journal and client; local services."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from random import Random

import pytest

from bridge.errors import JournalError
from bridge.journal import AppendIntent, Journal
from bridge.policy import BatchPolicy
from bridge.reading import Entry, Reading
from bridge.sinks.base import Outcome
from bridge.sinks.bigquery import StorageWriteSink
from bridge.wiring import JournalAppendLog
from tests.contract.sink_harness import (
    HASTY,
    PATIENT,
    SITES,
    Place,
    Run,
    crash_at,
    readings,
    running,
    schema,
    storage_write,
)
from tests.support.poll import eventually

APPEND = "storage.AppendRows"
CREATE = "storage.CreateWriteStream"
QUERIES = "bigquery.jobs.*"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def streams_of(place: Place) -> str:
    return f"*/{place.table[1]}/*"


def finalize(place: Place) -> None:
    assert place.services.tables.finalize_streams(streams_of(place))


def forget(place: Place) -> None:
    assert place.services.tables.forget_streams(streams_of(place))


def letters(run: Run) -> list[bytes]:
    return [letter.event_id or b"" for letter in run.journal.letters_waiting(10_000)]


class Interfering(StorageWriteSink):
    """Lets something happen just before the nth write."""

    def __init__(self, place: Place, journal: Journal, events: dict[int, Callable[[], None]]):
        super().__init__(place.settings, JournalAppendLog(journal), lambda: 0, PATIENT)
        self.policy = BatchPolicy(100, 3_500_000)
        self._events = events
        self._count = itertools.count(1)

    def write(self, batch: Sequence[Entry]) -> Future[Outcome]:
        self._events.get(next(self._count), lambda: None)()
        return super().write(batch)


def delivered(place: Place, path: Path, count: int = 300, deadline: float = PATIENT) -> None:
    """Readings go through in batches of 100; each of them is there once."""
    given = readings(count, SITES)
    with running(path, storage_write(place, deadline_seconds=deadline)) as run:
        run.journal.append(given, [])
        run.drain()
        assert letters(run) == []
        assert all(site.balanced for site in run.journal.sites().values())
    place.require_rows(given)


# --- answers --------------------------------------------------------------------------------------


def test_without_a_fault_one_stream_takes_everything_in_order(place: Place, path: Path) -> None:
    before = place.calls(CREATE)
    delivered(place, path, 1_000)
    assert [row["value"] for row in place.rows()] == [float(n) for n in range(1, 1_001)]
    assert place.calls(CREATE) == before + 1


@pytest.mark.parametrize("skip", [0, 1])
def test_an_append_whose_answer_was_lost_is_recognised_by_its_offset(
    place: Place, path: Path, skip: int
) -> None:
    before = place.calls(CREATE)
    place.fail(APPEND, "answer_lost", skip=skip, times=2)
    delivered(place, path)
    assert place.calls(CREATE) == before + 1


@pytest.mark.parametrize("kind", ["cut", "close_stream", "status"])
@pytest.mark.parametrize("skip", [0, 1])
def test_an_append_whose_connection_ended_goes_again(
    place: Place, path: Path, kind: str, skip: int
) -> None:
    place.fail(APPEND, kind, skip=skip, times=3)
    delivered(place, path)


def test_an_append_that_is_never_answered_goes_again_after_the_deadline(
    place: Place, path: Path
) -> None:
    place.fail(APPEND, "hang", skip=1, times=2)
    delivered(place, path, deadline=HASTY)


def test_a_first_copy_that_comes_in_after_its_repetition_is_not_taken_twice(
    place: Place, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = appended_offsets(place, monkeypatch)
    place.fail(APPEND, "delay", seconds=2 * HASTY, skip=1)
    delivered(place, path, deadline=HASTY)
    eventually(lambda: offsets.count(100) == 2, "the first copy has come in")
    place.require_rows(readings(300, SITES))


def test_a_connection_that_ended_while_idle_is_replaced_without_a_failure(
    place: Place, path: Path
) -> None:
    before = place.calls(CREATE)
    given = readings(200, SITES)
    with running(path, storage_write(place)) as run:
        run.journal.append(given[:100], [])
        run.drain()
        assert isinstance(run.sink, StorageWriteSink)
        connection = run.sink._connection
        assert connection is not None
        connection._call.cancel()
        run.until(lambda: connection.over, "the connection has ended")
        run.journal.append(given[100:], [])
        run.drain()
        assert not run.delivery.retries
    place.require_rows(given)
    assert place.calls(CREATE) == before + 1


def appended_offsets(place: Place, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The offsets of all appends that the service has judged."""
    offsets: list[int | None] = []
    judge = place.services.tables.require_end

    def judged(stream: str, offset: int | None) -> int:
        try:
            return judge(stream, offset)
        finally:
            offsets.append(offset)

    monkeypatch.setattr(place.services.tables, "require_end", judged)
    return offsets


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL"])
def test_a_storm_of_failures_of_every_call_only_delays(place: Place, path: Path, code: str) -> None:
    place.fail("storage.*", status=code, times=25)
    delivered(place, path)


@pytest.mark.parametrize("kind", ["status", "answer_lost"])
def test_out_of_range_is_decided_by_the_table(place: Place, path: Path, kind: str) -> None:
    place.fail(APPEND, kind, status="OUT_OF_RANGE", skip=1)
    delivered(place, path)


@pytest.mark.parametrize("kind", ["status", "answer_lost"])
def test_already_exists_without_a_repetition_is_decided_by_the_table(
    place: Place, path: Path, kind: str
) -> None:
    place.fail(APPEND, kind, status="ALREADY_EXISTS", skip=1)
    delivered(place, path)


def intrude(place: Place) -> None:
    """Somebody else appends five rows to the one stream there is."""
    tables = place.services.tables
    (name,) = tables._stream_names(streams_of(place))
    table = tables.table(".".join(place.table))
    row = tuple("elsewhere" if field.name == "site_code" else None for field in table.fields)
    tables.append_at(name, table, None, [row] * 5)


def require_ours(place: Place, given: Sequence[Reading]) -> None:
    found = [row["event_id"] for row in place.rows() if row["site_code"] != "elsewhere"]
    assert sorted(found) == sorted(r.event_id.hex() for r in given)


def test_a_failed_look_up_makes_no_foreign_rows_be_taken_for_ours(place: Place, path: Path) -> None:
    place.fail(QUERIES, status="503", times=3)
    given = readings(300, SITES)
    events = {2: lambda: intrude(place)}
    with running(path, lambda journal: Interfering(place, journal, events)) as run:
        run.journal.append(given, [])
        run.drain()
    require_ours(place, given)


@pytest.mark.parametrize("moment", ["before note", "after note"])
def test_a_crash_during_the_look_up_makes_no_foreign_rows_be_taken_for_ours(
    place: Place, path: Path, moment: str
) -> None:
    # Before the note is on disk there is nothing to tell that the offset is not to be believed.
    crash = crash_at("after note") if moment == "after note" else None
    journal_trouble = itertools.count()

    def trouble(name: str) -> bool:
        if name == "before note" and next(journal_trouble) < 3:
            raise JournalError("disk full")
        return False

    given = readings(300, SITES)
    events = {2: lambda: intrude(place)}
    with running(path, lambda j: Interfering(place, j, events), crash or trouble) as run:
        run.journal.append(given, [])
        if crash is None:
            run.drain()
        else:
            run.until_crashed()
    with running(path, storage_write(place)) as run:
        run.drain()
    require_ours(place, given)


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [finalize, forget])
def test_a_stream_that_ended_between_two_appends_is_replaced(
    place: Place, path: Path, end: Callable[[Place], None]
) -> None:
    before = place.calls(CREATE)
    given = readings(300, SITES)
    events = {3: lambda: end(place)}
    with running(path, lambda journal: Interfering(place, journal, events)) as run:
        run.journal.append(given, [])
        run.drain()
    place.require_rows(given)
    assert place.calls(CREATE) == before + 2


@pytest.mark.parametrize("kind", ["answer_lost", "status"], ids=["applied", "not-applied"])
@pytest.mark.parametrize("end", [finalize, forget])
def test_a_stream_that_ended_while_an_append_was_undecided_is_replaced(
    place: Place, path: Path, end: Callable[[Place], None], kind: str
) -> None:
    given = readings(300, SITES)
    place.fail(APPEND, kind, skip=1)
    events = {3: lambda: end(place)}
    with running(path, lambda journal: Interfering(place, journal, events)) as run:
        run.journal.append(given, [])
        run.drain()
    place.require_rows(given)


@pytest.mark.parametrize("end", [finalize, forget])
def test_streams_that_all_end_at_once_only_delay(
    place: Place, path: Path, end: Callable[[Place], None]
) -> None:
    tables = place.services.tables
    ended = itertools.count()

    def end_each(name: str) -> bool:
        if name == "after intent" and next(ended) < 9:
            (tables.finalize_streams if end is finalize else tables.forget_streams)(
                streams_of(place)
            )
        return False

    given = readings(300, SITES)
    with running(path, storage_write(place), end_each) as run:
        run.journal.append(given, [])
        run.drain()
        assert run.delivery.retries["stream_over"]
    place.require_rows(given)


def test_the_calls_that_decide_may_fail_as_well(place: Place, path: Path) -> None:
    place.fail(APPEND, "answer_lost", skip=1)
    place.fail("storage.FinalizeWriteStream", times=2)
    place.fail("storage.FinalizeWriteStream", "answer_lost")
    place.fail(CREATE, skip=1, times=2)
    given = readings(300, SITES)
    events = {3: lambda: finalize(place)}
    with running(path, lambda journal: Interfering(place, journal, events)) as run:
        run.journal.append(given, [])
        run.drain()
    place.require_rows(given)


# --- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("already", [False, True], ids=["new", "in-use"])
def test_a_table_that_cannot_be_found_for_a_while_holds_the_sink(
    place: Place, path: Path, already: bool
) -> None:
    given = readings(200, SITES)
    with running(path, storage_write(place)) as run:
        if already:
            run.journal.append(given[:100], [])
            run.drain()
        place.services.tables.hide(*place.table, seconds=0.5)
        run.journal.append(given, [])
        run.until(lambda: run.delivery.held is not None, "the sink is held")
        assert "(`provision` does)" in str(run.delivery.held)
        run.drain()
        run.until(lambda: run.delivery.held is None, "the sink is not held any more")
        assert letters(run) == []
    place.require_rows(given)


@pytest.mark.parametrize("column", ["attributes", "sensor_id"])
def test_a_column_that_is_taken_away_holds_the_sink_until_it_is_back(
    place: Place, path: Path, column: str
) -> None:
    tables, id_ = place.services.tables, ".".join(place.table)
    given = readings(200, SITES)
    with running(path, storage_write(place)) as run:
        run.journal.append(given[:50], [])
        run.drain()
        tables.set_schema(id_, schema(without=[column]))
        run.journal.append(given, [])
        run.until(lambda: run.delivery.retries["schema_mismatch"] > 2, "it was tried again")
        assert "columns" in str(run.delivery.held)
        tables.set_schema(id_, schema())
        run.drain()
        assert letters(run) == []
    place.require_rows(given)


def test_a_required_column_that_is_added_holds_the_sink_until_it_is_gone(
    place: Place, path: Path
) -> None:
    tables, id_ = place.services.tables, ".".join(place.table)
    given = readings(200, SITES)
    wrong = schema()
    wrong["fields"].append({"name": "plant", "type": "STRING", "mode": "REQUIRED"})
    with running(path, storage_write(place, batch=30)) as run:
        run.journal.append(given[:50], [])
        run.drain()
        tables.set_schema(id_, wrong)
        run.journal.append(given, [])
        run.until(lambda: run.delivery.retries["refused"] > 4, "it was tried again")
        assert run.delivery.held
        tables.set_schema(id_, schema())
        run.drain()
        assert letters(run) == []
    place.require_rows(given)


# --- refused rows ---------------------------------------------------------------------------------

BAD_ROWS = {
    "the first": {0},
    "the last": {149},
    "one in the middle": {70},
    "both ends of batches": {0, 49, 50, 99, 100, 149},
    "a whole batch and one more": set(range(50, 101)),
    "every third": set(range(0, 150, 3)),
}


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_refused_rows_are_dead_letters_and_all_others_are_there(
    place: Place, path: Path, bad: str
) -> None:
    given = readings(150)
    for number in BAD_ROWS[bad]:
        place.services.tables.refuse(*place.table, "value", given[number].value)
    with running(path, storage_write(place, batch=50)) as run:
        run.journal.append(given, [])
        # The last entry of all waits for a neighbour.
        run.journal.append(readings(1, first=1_000), [])
        run.drain()
        assert sorted(letters(run)) == sorted(given[n].event_id for n in BAD_ROWS[bad])
        assert run.journal.sites()["MOR"].balanced
    good = [r for n, r in enumerate(given) if n not in BAD_ROWS[bad]]
    place.require_rows([*good, *readings(1, first=1_000)])


def test_a_refusal_of_all_rows_gives_nothing_up(place: Place, path: Path) -> None:
    given = readings(120)
    place.services.tables.refuse(*place.table, "site_code", "MOR")
    with running(path, storage_write(place, batch=50)) as run:
        run.journal.append(given, [])
        run.until(lambda: run.delivery.retries["refused"] > 4, "it was tried again")
        assert run.delivery.held
        place.services.tables.accept_all(*place.table)
        run.drain()
        assert letters(run) == []
    place.require_rows(given)


@pytest.mark.parametrize("kind", ["answer_lost", "status", "cut"])
def test_refused_rows_and_lost_answers_together_leave_nothing_out(
    place: Place, path: Path, kind: str
) -> None:
    given = readings(150)
    for number in (0, 60, 99):
        place.services.tables.refuse(*place.table, "value", given[number].value)
    for skip in (0, 1, 2, 4):
        place.fail(APPEND, kind, skip=skip)
    with running(path, storage_write(place, batch=50)) as run:
        run.journal.append(given, [])
        run.drain()
        assert sorted(letters(run)) == sorted(given[n].event_id for n in (0, 60, 99))
    place.require_rows([r for n, r in enumerate(given) if n not in (0, 60, 99)])


def test_a_late_copy_of_a_refused_list_does_not_get_in_behind_the_refusal(
    place: Place, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = readings(80)
    tables = place.services.tables
    tables.refuse(*place.table, "value", given[7].value)
    offsets = appended_offsets(place, monkeypatch)
    # The first copy is held up, the second is refused for its one bad row; then the row is fine,
    # the first copy comes in, and whatever was sent after the refusal comes behind it.
    place.fail(APPEND, "delay", seconds=2 * HASTY)
    storm = place.fail(APPEND, skip=1, times=None)
    with running(path, storage_write(place, 50, deadline_seconds=HASTY)) as run:
        run.journal.append(given, [])
        run.until(lambda: run.delivery.retries["unavailable"] > 2, "the refusal is past")
        tables.accept_all(*place.table)
        run.until(lambda: len(offsets) == 2, "the first copy has come in")
        place.fail(APPEND, skip=1)
        place.services.faults.remove(storm)
        run.drain()
        assert letters(run) == []
    place.require_rows(given)


# --- restarts -------------------------------------------------------------------------------------

MOMENTS = ["before intent", "after intent", "before settle", "after settle"]
ENDS: dict[str, Callable[[Place], None]] = {
    "alive": lambda _place: None,
    "finalized": finalize,
    "gone": forget,
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("end", ENDS)
def test_after_a_crash_at_any_moment_the_next_run_completes_it(
    place: Place, path: Path, moment: str, end: str
) -> None:
    before = place.calls(CREATE)
    given = readings(300, SITES)
    with running(path, storage_write(place), crash_at(moment, skip=1)) as run:
        run.journal.append(given, [])
        run.until_crashed()
    ENDS[end](place)
    with running(path, storage_write(place)) as run:
        run.drain()
        assert all(site.balanced for site in run.journal.sites().values())
    place.require_rows(given)
    if end == "alive":
        assert place.calls(CREATE) == before + 1


@pytest.mark.parametrize("kind", ["answer_lost", "hang", "status"])
@pytest.mark.parametrize("end", ENDS)
def test_after_a_stop_with_an_undecided_append_the_next_run_decides_it(
    place: Place, path: Path, kind: str, end: str
) -> None:
    given = readings(300, SITES)
    place.fail(APPEND, kind, skip=1, times=None)
    with running(path, storage_write(place, deadline_seconds=HASTY)) as run:
        run.journal.append(given, [])
        run.until(lambda: bool(run.delivery.retries), "an append has failed")
    place.services.faults.clear()
    ENDS[end](place)
    with running(path, storage_write(place)) as run:
        run.drain()
    place.require_rows(given)


@pytest.mark.parametrize("moment", [*MOMENTS, "before note", "after note"])
@pytest.mark.parametrize("end", ENDS)
def test_after_a_crash_among_refused_rows_nothing_is_lost_doubled_or_given_up_twice(
    place: Place, path: Path, moment: str, end: str
) -> None:
    given = readings(150)
    for number in (0, 60, 99):
        place.services.tables.refuse(*place.table, "value", given[number].value)
    for skip in (0, 1, 2):
        with running(path, storage_write(place, batch=50), crash_at(moment, skip)) as run:
            if skip == 0:
                run.journal.append(given, [])
            run.until_over_or_drained()
        if place.services.tables._stream_names(streams_of(place)):
            ENDS[end](place)
    with running(path, storage_write(place, batch=50)) as run:
        # A refused row that is left alone waits for a neighbour.
        run.journal.append(readings(1, first=1_000), [])
        run.drain()
        assert sorted(letters(run)) == sorted(given[n].event_id for n in (0, 60, 99))
        assert run.journal.sites()["MOR"].balanced
    good = [r for n, r in enumerate(given) if n not in (0, 60, 99)]
    place.require_rows([*good, *readings(1, first=1_000)])


def test_a_refusal_that_was_answered_before_a_crash_keeps_the_stream_usable(
    place: Place, path: Path
) -> None:
    before = place.calls(CREATE)
    given = readings(150)
    place.services.tables.refuse(*place.table, "value", given[60].value)
    with running(path, storage_write(place, batch=50), crash_at("after note")) as run:
        run.journal.append(given, [])
        run.until_crashed()
    with running(path, storage_write(place, batch=50)) as run:
        run.drain()
        assert letters(run) == [given[60].event_id]
    place.require_rows([*given[:60], *given[61:]])
    assert place.calls(CREATE) == before + 1


def test_one_stream_is_kept_over_many_restarts(place: Place, path: Path) -> None:
    before = place.calls(CREATE)
    given = readings(400, SITES)
    for first in range(0, 400, 100):
        with running(path, storage_write(place, batch=30)) as run:
            run.journal.append(given[first : first + 100], [])
            run.drain()
    place.require_rows(given)
    assert place.calls(CREATE) == before + 1
    assert len({row["event_id"] for row in place.rows()}) == 400


@pytest.mark.parametrize("moment", ["before intent", "after intent", "before settle"])
def test_a_disk_that_fails_for_a_while_only_delays(place: Place, path: Path, moment: str) -> None:
    before = place.calls(CREATE)
    failures = itertools.count()

    def fail(name: str) -> bool:
        if name == moment and next(failures) == 1:
            raise JournalError("disk full")
        return False

    given = readings(300, SITES)
    with running(path, storage_write(place), fail) as run:
        run.journal.append(given, [])
        run.drain()
    place.require_rows(given)
    assert place.calls(CREATE) == before + 1


def test_a_new_stream_is_not_created_again_for_each_time_the_disk_fails(
    place: Place, path: Path
) -> None:
    before = place.calls(CREATE)
    failures = itertools.count()

    def fail(name: str) -> bool:
        if name == "before intent" and next(failures) < 5:
            raise JournalError("disk full")
        return False

    with running(path, storage_write(place), fail) as run:
        run.journal.append(readings(10), [])
        run.drain()
    place.require_rows(readings(10))
    assert place.calls(CREATE) == before + 1


# --- after a salvage ------------------------------------------------------------------------------


def salvaged(place: Place, up_to: int) -> Callable[[Journal], StorageWriteSink]:
    def make(journal: Journal) -> StorageWriteSink:
        sink = StorageWriteSink(place.settings, JournalAppendLog(journal), lambda: up_to, PATIENT)
        sink.policy = BatchPolicy(50, 3_500_000)
        return sink

    return make


@pytest.mark.parametrize("written", [0, 30, 50, 75, 200])
def test_entries_of_a_salvaged_journal_are_looked_up_before_they_are_written(
    place: Place, tmp_path: Path, written: int
) -> None:
    given = readings(200, SITES)
    with running(tmp_path / "before.db", storage_write(place)) as run:
        run.journal.append(given[200 - written :], [])
        run.drain()
    with running(tmp_path / "after.db", salvaged(place, 200)) as run:
        run.journal.append(given, [])
        run.drain()
        assert all(site.balanced for site in run.journal.sites().values())
    place.require_rows(given)


def test_the_offset_of_a_salvaged_append_is_not_believed(place: Place, tmp_path: Path) -> None:
    given = readings(300, SITES)
    with running(tmp_path / "before.db", storage_write(place, batch=50)) as run:
        run.journal.append(given[:100], [])
        run.drain()
        intent = run.journal.append_intent("bigquery")
        assert intent is not None
    # What was salvaged speaks of the first append; the stream is a hundred rows long. The second
    # append fails, so that it would be repeated where there is something else.
    run = Run(tmp_path / "after.db", salvaged(place, 100))
    run.journal.append(given, [])
    run.journal.record_append("bigquery", AppendIntent(intent.stream, 0, tuple(range(1, 51))))
    place.fail(APPEND, skip=1)
    run.start()
    run.drain()
    run.stop()
    place.require_rows(given)


# --- everything at once ---------------------------------------------------------------------------


class Weather:
    """Random trouble for one run."""

    def __init__(self, place: Place, chance: Random) -> None:
        self._place = place
        self._chance = chance
        kinds = ["status", "status", "answer_lost", "answer_lost", "cut", "close_stream", "hang"]
        codes = ["UNAVAILABLE", "INTERNAL", "ABORTED", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED"]
        self._faults: list[Callable[[], object]] = [
            lambda: place.fail(
                APPEND, chance.choice(kinds), status=chance.choice(codes), **self._when(8)
            ),
            lambda: place.fail(
                APPEND, "answer_lost", status=chance.choice(["OUT_OF_RANGE", ""]), **self._when(8)
            ),
            lambda: place.fail(
                APPEND, "delay", seconds=chance.choice([0.01, 1.5 * HASTY]), **self._when(8)
            ),
            lambda: place.fail("storage.[CF]*", status=chance.choice(codes), **self._when(2)),
            lambda: place.fail("storage.[CF]*", "answer_lost", **self._when(2)),
            lambda: place.fail(QUERIES, status="503", **self._when(1)),
        ]
        self._events: list[Callable[[], object]] = [
            lambda: place.services.tables.finalize_streams(streams_of(place)),
            lambda: place.services.tables.forget_streams(streams_of(place)),
            lambda: place.services.tables.hide(*place.table, seconds=0.05),
        ]
        self._crash = crash_at(chance.choice(MOMENTS), chance.randrange(12))

    def _when(self, most: int) -> dict[str, int]:
        return {"skip": self._chance.randrange(most), "times": self._chance.randint(1, 2)}

    def begin(self) -> None:
        self._place.services.faults.clear()
        for _ in range(self._chance.randint(1, 4)):
            self._chance.choice(self._faults)()

    def strike(self, moment: str) -> bool:
        """At each moment of the journal: sometimes something happens to the service or the disk,
        and at one of them the process ends."""
        if self._chance.random() < 0.05:
            self._chance.choice(self._events)()
        if moment.startswith("before") and self._chance.random() < 0.02:
            raise JournalError("disk full")
        return self._crash(moment)


@pytest.mark.parametrize("seed", [1, 2])
def test_in_any_weather_each_reading_is_in_the_table_once(
    place: Place, path: Path, seed: int
) -> None:
    chance = Random(seed)
    given = readings(2_000, SITES)
    bad = {number for number in range(2_000) if number % 97 == 13}
    for number in bad:
        place.services.tables.refuse(*place.table, "value", given[number].value)
    taken = crashes = 0
    while taken < len(given):
        weather = Weather(place, chance)
        weather.begin()
        make = storage_write(place, batch=chance.choice([7, 40, 100]), deadline_seconds=HASTY)
        with running(path, make, weather.strike) as run:
            count = chance.randint(20, 300)
            run.journal.append(given[taken : taken + count], [])
            taken += count
            run.until_over_or_drained()
            crashes += run.over
    place.services.faults.clear()
    with running(path, storage_write(place)) as run:
        run.drain()
        assert sorted(letters(run)) == sorted(given[number].event_id for number in bad)
        assert all(site.balanced for site in run.journal.sites().values())
    place.require_rows([r for number, r in enumerate(given) if number not in bad])
    assert crashes
