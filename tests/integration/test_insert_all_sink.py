"""BigQuery by insertAll: errors inside an HTTP 200, REST statuses and reasons, insertIds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ContentRefused, Held, SinkError, Transient
from bridge.journal import Journal
from bridge.policy import BatchPolicy
from bridge.sinks.base import Outcome
from bridge.sinks.bigquery_insert import InsertAllSink
from tests.contract.sink_harness import (
    HASTY,
    PATIENT,
    Place,
    crash_at,
    entries,
    outcome_of,
    readings,
    running,
    schema,
)
from tests.support.readings import reading

INSERT = "bigquery.tabledata.insertAll"
Errors = list[dict[str, Any]]


@pytest.fixture
def sink(place: Place) -> Iterator[InsertAllSink]:
    made = InsertAllSink(place.settings, PATIENT)
    made.open()
    yield made
    made.close()


def inserting(
    place: Place, batch: int = 50, deadline: float = PATIENT
) -> Callable[[Journal], InsertAllSink]:
    def make(_journal: Journal) -> InsertAllSink:
        sink = InsertAllSink(place.settings, deadline)
        sink.policy = BatchPolicy(batch, 5_000_000)
        return sink

    return make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


# --- the request ----------------------------------------------------------------------------------


def test_a_row_is_sent_with_its_event_id_as_insert_id(
    place: Place, sink: InsertAllSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []
    assert sink._table is not None
    insert = sink._table.client.insert_rows_json

    def insert_and_keep(table: str, rows: list[Any], **rest: Any) -> Any:
        calls.append({"rows": rows, **rest})
        return insert(table, rows, **rest)

    monkeypatch.setattr(sink._table.client, "insert_rows_json", insert_and_keep)
    batch = entries(3)
    assert sink.write(batch).result(20).accepted == [1, 2, 3]
    (call,) = calls
    assert call["row_ids"] == [entry.reading.event_id.hex() for entry in batch]
    assert call["row_ids"] == [row["event_id"] for row in call["rows"]]
    assert (call["retry"], call["timeout"], call["skip_invalid_rows"]) == (None, PATIENT, False)


def test_an_answer_that_is_lost_again_and_again_doubles_no_row(place: Place, path: Path) -> None:
    given = readings(200)
    place.fail(INSERT, "answer_lost", skip=1, times=5)
    with running(path, inserting(place)) as run:
        run.journal.append(given, [])
        run.drain()
    place.require_rows(given)


@pytest.mark.parametrize("moment", ["before settle", "after settle"])
def test_a_crash_doubles_no_row_as_far_as_insert_ids_reach(
    place: Place, path: Path, moment: str
) -> None:
    given = readings(200)
    with running(path, inserting(place), crash_at(moment, skip=1)) as run:
        run.journal.append(given, [])
        run.until_crashed()
    with running(path, inserting(place)) as run:
        run.drain()
    place.require_rows(given)


# --- errors of rows -------------------------------------------------------------------------------


def test_a_bad_row_is_named_and_keeps_its_neighbours_out(place: Place, sink: InsertAllSink) -> None:
    place.services.tables.refuse(*place.table, "value", 2.0)
    outcome = sink.write(entries(3)).result(20)
    assert outcome.accepted == []
    assert list(outcome.refused) == [2]
    assert "value" in outcome.refused[2]
    assert place.rows() == []


@pytest.mark.parametrize("bad", [{0}, {149}, {49, 50, 99}, set(range(50, 101))])
def test_neighbours_of_bad_rows_are_inserted_once(place: Place, path: Path, bad: set[int]) -> None:
    given = readings(150)
    for number in bad:
        place.services.tables.refuse(*place.table, "value", given[number].value)
    with running(path, inserting(place)) as run:
        run.journal.append([*given, *readings(1, first=1_000)], [])
        run.drain()
        letters = [letter.event_id for letter in run.journal.letters_waiting(200)]
    assert letters == [given[number].event_id for number in sorted(bad)]
    good = [r for number, r in enumerate(given) if number not in bad]
    place.require_rows([*good, *readings(1, first=1_000)])


def answer(sink: InsertAllSink, monkeypatch: pytest.MonkeyPatch, errors: Errors) -> Any:
    """What becomes of five entries with these errors inside an HTTP 200."""
    assert sink._table is not None
    monkeypatch.setattr(sink._table.client, "insert_rows_json", lambda *_args, **_more: errors)
    return outcome_of(sink.write(entries(5)))


def error(index: int, reason: str, message: str = "", location: str = "") -> dict[str, Any]:
    item = {"reason": reason, "location": location, "message": message}
    return {"index": index, "errors": [item]}


@pytest.mark.parametrize("reason", ["backendError", "timeout", "internalError", "stopped", "new"])
def test_rows_that_failed_for_another_reason_are_kept(
    sink: InsertAllSink, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    some = answer(sink, monkeypatch, [error(1, reason), error(3, reason)])
    assert some == Outcome([1, 3, 5], {})
    all_of_them = answer(sink, monkeypatch, [error(index, reason) for index in range(5)])
    assert isinstance(all_of_them, Transient)
    assert all_of_them.reason == "rows_not_inserted"


def test_a_row_with_several_errors_is_refused_when_one_of_them_is_for_good(
    sink: InsertAllSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = {
        "index": 2,
        "errors": [
            {"reason": "stopped", "message": ""},
            {"reason": "invalid", "location": "value", "message": "no number"},
        ],
    }
    outcome = answer(sink, monkeypatch, [error(0, "stopped"), several, error(4, "stopped")])
    assert outcome == Outcome([2, 4], {3: "stopped: ; invalid (value): no number"})


def test_a_missing_column_is_the_tables_fault_even_beside_a_bad_row(
    sink: InsertAllSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [error(0, "invalid", "no such field: attributes.", "attributes")]
    errors += [error(1, "invalid", "bad value"), *(error(n, "stopped") for n in (2, 3, 4))]
    held = answer(sink, monkeypatch, errors)
    assert isinstance(held, Held)
    assert held.reason == "schema_mismatch"
    assert "attributes" in held.detail


@pytest.mark.parametrize("every", [1, 7])
def test_a_column_that_is_taken_away_holds_the_sink_until_it_is_back(
    place: Place, path: Path, every: int
) -> None:
    tables, id_ = place.services.tables, ".".join(place.table)
    given = [
        reading(n, attributes=json.dumps({"n": n}) if n % every == 0 else None)
        for n in range(1, 151)
    ]
    with running(path, inserting(place)) as run:
        run.journal.append(given[:6], [])
        run.drain()
        tables.set_schema(id_, schema(without=["attributes"]))
        run.journal.append(given, [])
        run.until(lambda: run.delivery.retries["schema_mismatch"] > 2, "it was tried again")
        assert "columns" in str(run.delivery.held)
        tables.set_schema(id_, schema())
        run.drain()
        assert run.journal.letters_waiting(1) == []
    place.require_rows(given)


def test_a_required_column_that_is_added_holds_the_sink_until_it_is_gone(
    place: Place, path: Path
) -> None:
    tables, id_ = place.services.tables, ".".join(place.table)
    given = readings(150)
    wrong = schema()
    wrong["fields"].append({"name": "plant", "type": "STRING", "mode": "REQUIRED"})
    with running(path, inserting(place)) as run:
        run.journal.append(given[:6], [])
        run.drain()
        tables.set_schema(id_, wrong)
        run.journal.append(given, [])
        run.until(lambda: run.delivery.retries["refused"] > 4, "it was tried again")
        assert run.delivery.held
        tables.set_schema(id_, schema())
        run.drain()
        assert run.journal.letters_waiting(1) == []
    place.require_rows(given)


# --- errors of requests ---------------------------------------------------------------------------

STATUSES: list[tuple[str, str, type[SinkError], str]] = [
    ("500", "backendError", Transient, "backendError"),
    ("500", "internalError", Transient, "internalError"),
    ("502", "", Transient, "backendError"),
    ("503", "backendError", Transient, "backendError"),
    ("429", "rateLimitExceeded", Transient, "rateLimitExceeded"),
    ("403", "quotaExceeded", Transient, "quotaExceeded"),
    ("403", "rateLimitExceeded", Transient, "rateLimitExceeded"),
    ("403", "accessDenied", Held, "permission_denied"),
    ("403", "billingNotEnabled", Held, "permission_denied"),
    ("401", "authError", Held, "unauthenticated"),
    ("404", "notFound", Held, "not_found"),
    ("400", "invalid", ContentRefused, "invalid_argument"),
    ("413", "uploadTooLarge", ContentRefused, "invalid_argument"),
]


@pytest.mark.parametrize(("status", "reason", "kind", "word"), STATUSES)
def test_a_status_with_its_reason_is_told_as_what_it_is(
    place: Place, sink: InsertAllSink, status: str, reason: str, kind: type[SinkError], word: str
) -> None:
    place.fail(INSERT, status=status, reason=reason)
    found = outcome_of(sink.write(entries(3)))
    assert type(found) is kind, found
    assert isinstance(found, SinkError)
    assert found.reason == word
    assert sink.write(entries(3)).result(20).accepted == [1, 2, 3]


def test_a_service_without_an_answer_is_transient(place: Place, path: Path) -> None:
    given = readings(100)
    place.fail(INSERT, "hang", times=2)
    with running(path, inserting(place, deadline=HASTY)) as run:
        run.journal.append(given, [])
        run.drain()
        assert run.delivery.retries["unavailable"] == 2
    place.require_rows(given)


def test_a_service_that_cannot_be_reached_is_transient(place: Place) -> None:
    nowhere = place.settings.model_copy(
        update={"bigquery_emulator_host": "http://127.0.0.1:9"}  # the port of `discard`
    )
    sink = InsertAllSink(nowhere, PATIENT)
    with pytest.raises(Transient):
        sink.open()
    sink.close()


def test_a_table_that_cannot_be_found_for_a_while_holds_the_sink(place: Place, path: Path) -> None:
    given = readings(100)
    with running(path, inserting(place)) as run:
        run.until(lambda: hasattr(run.delivery, "_loader"), "the sink is open")
        place.services.tables.hide(*place.table, seconds=0.4)
        run.journal.append(given, [])
        run.until(lambda: run.delivery.held is not None, "the sink is held")
        run.drain()
        assert run.journal.letters_waiting(1) == []
    place.require_rows(given)
