"""`audit` against the local BigQuery: what it finds, what it does not take for a difference, and
what it writes down."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bridge.audit import DIFFERENT, EQUAL, UNSETTLED, Audit, Line
from bridge.cli.main import cli
from bridge.clock import SystemClock
from bridge.delivery import Delivery
from bridge.journal import Journal, account, counts, retention
from bridge.journal.account import Accounts
from bridge.journal.days import DAY_US
from bridge.journal.journal import Limits
from bridge.reading import Reading
from bridge.sinks.base import Sink
from bridge.sinks.bigquery_sums import TableSums
from bridge.sinks.pubsub import PubSubSink
from bridge.wiring import destinations
from tests.contract.sink_harness import QUICK, Place, storage_write
from tests.support.clock import START_US
from tests.support.journals import counted
from tests.support.poll import eventually
from tests.support.readings import reading

TODAY = START_US // DAY_US


class Bridge:
    """Journal and deliveries of one life of the daemon."""

    def __init__(self, place: Place, path: Path, limits: Limits | None = None) -> None:
        self.place, self.path = place, path
        # Readings that count as received when this began, whatever their times are.
        self.journal = Journal(path, limits or Limits(), Early())
        self.journal.open()
        self.journal.activate(destinations(place.settings))
        sinks: list[Sink] = [
            PubSubSink(place.settings, SystemClock()),
            storage_write(place)(self.journal),
        ]
        self.deliveries = [
            Delivery(sink, self.journal, QUICK, SystemClock(), Random(3)) for sink in sinks
        ]
        self._threads = [threading.Thread(target=one.run, daemon=True) for one in self.deliveries]
        for thread in self._threads:
            thread.start()

    def take(self, *readings: Reading) -> None:
        self.journal.append(list(readings), [])

    def settle(self, *readings: Reading) -> None:
        self.take(*readings)
        eventually(lambda: all(one.drained for one in self.deliveries), "all is settled")

    def stop(self) -> None:
        for delivery, thread in zip(self.deliveries, self._threads, strict=True):
            delivery.stop()
            thread.join(20)
            delivery.sink.close()
        self.journal.close()


class Early(SystemClock):
    """Says of the start that it was before all readings of these tests."""

    def now_us(self) -> int:
        return START_US - 1_000_000


@pytest.fixture
def bridge(place: Place, tmp_path: Path) -> Iterator[Bridge]:
    made = Bridge(place, tmp_path / "journal.db")
    yield made
    made.stop()


@pytest.fixture
def table(place: Place) -> Iterator[TableSums]:
    sums = TableSums(place.settings)
    yield sums
    sums.close()


def audited(bridge: Bridge, table: TableSums, first: int = TODAY, last: int = TODAY) -> list[Line]:
    audit = Audit(Accounts(bridge.path, "bigquery"), table, [], SystemClock(), lambda _: None)
    return [line for lines in audit.lines(first, last) for line in lines]


def some(count: int, site: str = "MOR", first: int = 1) -> list[Reading]:
    return [reading(number, site) for number in range(first, first + count)]


def change(place: Place, sql: str, *values: object) -> None:
    """Do something to the table's rows that nobody should. `{rows}` stands for the table."""
    tables = place.services.tables
    rows = tables.table(".".join(place.table)).rows
    with tables.lock:
        tables._db.execute(sql.format(rows=rows), values)


def copy(place: Place, one: Reading) -> None:
    change(place, "INSERT INTO {rows} SELECT * FROM {rows} WHERE event_id = ?", one.event_id.hex())


def delete(place: Place, one: Reading) -> None:
    change(place, "DELETE FROM {rows} WHERE event_id = ?", one.event_id.hex())


def rename(place: Place, one: Reading, event_id: str) -> None:
    change(place, "UPDATE {rows} SET event_id = ? WHERE event_id = ?", event_id, one.event_id.hex())


# --- what it finds --------------------------------------------------------------------------------


def test_what_was_settled_is_found_equal_per_site_and_day(bridge: Bridge, table: TableSums) -> None:
    tomorrow = [one._replace() for one in some(20, "NEV", 90_000)]  # 90,000 s on
    bridge.settle(*some(30), *some(40, "NEV"), *tomorrow)
    found = audited(bridge, table, TODAY - 3, TODAY + 10)
    assert [(line.site, line.day, line.settled.readings) for line in found] == [
        ("MOR", TODAY, 30),
        ("NEV", TODAY, 40),
        ("NEV", TODAY + 1, 20),
    ]
    assert {line.verdict for line in found} == {EQUAL}


def test_a_row_that_is_gone_is_missing_and_named(
    place: Place, bridge: Bridge, table: TableSums
) -> None:
    readings = some(10)
    bridge.settle(*readings)
    delete(place, readings[4])
    (line,) = audited(bridge, table)
    assert (line.verdict, line.found.rows) == (DIFFERENT, 9)
    assert line.words == "1 readings fewer than the bridge has settled"
    assert line.ids.missing == [readings[4].event_id.hex()]
    assert (line.ids.foreign, line.ids.doubled) == ([], [])


def test_a_row_that_is_there_twice_is_named(place: Place, bridge: Bridge, table: TableSums) -> None:
    readings = some(10)
    bridge.settle(*readings)
    copy(place, readings[4])
    (line,) = audited(bridge, table)
    assert (line.verdict, line.found.rows, line.found.ids) == (DIFFERENT, 11, 10)
    assert line.words == "1 rows more than ids: written more than once"
    assert line.ids.doubled == [readings[4].event_id.hex()]
    assert (line.ids.foreign, line.ids.missing) == ([], [])


@pytest.mark.parametrize("name", ["0" * 32, "f" * 33, "no id at all", ""])
def test_an_id_that_was_altered_is_told_by_the_checksum(
    place: Place, bridge: Bridge, table: TableSums, name: str
) -> None:
    readings = some(10)
    bridge.settle(*readings)
    rename(place, readings[4], name)
    (line,) = audited(bridge, table)
    assert (line.verdict, line.found.rows, line.found.ids) == (DIFFERENT, 10, 10)
    assert line.words == "as many ids as the bridge has settled, but not the same ones"
    assert line.ids.missing == [readings[4].event_id.hex()]
    assert line.ids.foreign == [name]


def test_a_row_swapped_for_a_copy_of_another_is_found_although_the_number_is_right(
    place: Place, bridge: Bridge, table: TableSums
) -> None:
    readings = some(10)
    bridge.settle(*readings)
    delete(place, readings[0])
    copy(place, readings[1])
    (line,) = audited(bridge, table)
    assert (line.found.rows, line.verdict) == (10, DIFFERENT)
    assert "written more than once; 1 readings fewer" in line.words


def test_rows_of_a_site_or_day_that_the_ledger_does_not_know_are_a_difference(
    place: Place, bridge: Bridge, table: TableSums
) -> None:
    readings = some(4)
    bridge.settle(*readings)
    ids = [one.event_id.hex() for one in readings]
    change(place, "UPDATE {rows} SET site_code = 'NEW' WHERE event_id = ?", ids[0])
    change(place, "UPDATE {rows} SET event_time = ? WHERE event_id = ?", START_US - DAY_US, ids[1])
    found = {(line.site, line.day): line for line in audited(bridge, table, TODAY - 1)}
    assert {key: line.found.rows for key, line in found.items()} == {
        ("MOR", TODAY - 1): 1,
        ("MOR", TODAY): 2,
        ("NEW", TODAY): 1,
    }
    assert {line.verdict for line in found.values()} == {DIFFERENT}
    assert found["NEW", TODAY].ids.foreign == ids[:1]


# --- what is no difference ------------------------------------------------------------------------


def test_what_is_not_settled_yet_is_left_out_whether_it_is_in_the_table_or_not(
    place: Place, bridge: Bridge, table: TableSums
) -> None:
    bridge.settle(*some(10))
    place.fail("storage.AppendRows", "answer_lost", times=None)
    bridge.take(*some(10, first=11))
    eventually(lambda: len(place.rows()) == 20, "they are in the table")
    assert bridge.journal.pending("bigquery") == 10
    (line,) = audited(bridge, table)
    assert (line.verdict, line.settled.readings, line.found.rows) == (EQUAL, 10, 10)


def test_more_than_can_be_named_is_said_to_be_unsettled(
    place: Place, bridge: Bridge, table: TableSums, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "PENDING_MOST", 5)
    bridge.settle(*some(10), *some(3, "NEV"))
    place.fail("storage.AppendRows", "answer_lost", times=None)
    bridge.take(*some(10, first=11))
    eventually(lambda: len(place.rows()) == 23, "they are in the table")
    mor, nev = audited(bridge, table)
    assert (mor.verdict, mor.words) == (UNSETTLED, "not settled yet: 10 readings")
    assert nev.verdict == EQUAL


def test_what_came_a_moment_ago_is_left_out_on_both_sides(
    place: Place, bridge: Bridge, table: TableSums
) -> None:
    now = SystemClock().now_us()
    young = [one._replace(received_us=now) for one in some(5, first=11)]
    bridge.settle(*some(10), *young)
    assert len(place.rows()) == 15
    (line,) = audited(bridge, table)
    assert (line.verdict, line.settled.readings, line.found.rows) == (EQUAL, 10, 10)


def test_what_was_received_before_this_journal_counted_is_left_out(
    place: Place, bridge: Bridge, table: TableSums
) -> None:
    bridge.settle(*[one._replace(received_us=START_US - 2_000_000) for one in some(5, first=11)])
    bridge.settle(*some(10))
    (line,) = audited(bridge, table)
    assert (line.verdict, line.settled.readings, line.found.rows) == (EQUAL, 10, 10)


def test_what_the_table_refused_is_neither_settled_nor_missing(
    place: Place, bridge: Bridge, table: TableSums
) -> None:
    now = SystemClock().now_us()
    young = [one._replace(received_us=now) for one in some(4, first=11)]
    for bad in (3.0, 12.0):
        place.services.tables.refuse(*place.table, "value", bad)
    bridge.settle(*some(10), *young)
    (line,) = audited(bridge, table)
    assert (line.verdict, line.settled.readings, line.found.rows) == (EQUAL, 9, 9)


def test_a_journal_that_keeps_nothing_that_is_settled_is_compared_all_the_same(
    place: Place, tmp_path: Path, table: TableSums, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "TICK_US", 0)
    bridge = Bridge(place, tmp_path / "short.db", Limits(retention_us=0))
    try:
        bridge.settle(*some(50))
        bridge.journal.acknowledged(bridge.journal.last_seq)
        for _ in range(2):
            bridge.journal.maintain()
        assert counted(bridge.path, "entries") == 0
        (line,) = audited(bridge, table)
        assert (line.verdict, line.settled.readings) == (EQUAL, 50)
    finally:
        bridge.stop()


def test_folded_sites_are_compared_as_one(
    bridge: Bridge, table: TableSums, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "MAX_SITES", 1)
    bridge.settle(*some(3, "A"), *some(4, "B"), *some(5, "C"))
    found = audited(bridge, table)
    assert [(line.site, line.settled.readings, line.verdict) for line in found] == [
        ("A", 3, EQUAL),
        ("__other__", 9, EQUAL),
    ]


def test_a_difference_that_is_another_one_with_every_look_is_none(
    place: Place, bridge: Bridge, table: TableSums, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = some(10)
    bridge.settle(*readings)
    ask = table.sums

    def asked_while_rows_go(*arguments: Any) -> Any:
        delete(place, readings.pop())
        return ask(*arguments)

    monkeypatch.setattr(table, "sums", asked_while_rows_go)
    (line,) = audited(bridge, table)
    assert (line.verdict, line.words) == (UNSETTLED, "changed with every look")


def test_a_query_that_fails_for_a_moment_is_asked_again(
    place: Place, bridge: Bridge, table: TableSums
) -> None:
    bridge.settle(*some(10))
    place.fail("bigquery.jobs.insert", status="503", reason="backendError", times=2)
    place.fail("bigquery.jobs.query", status="503", reason="backendError", times=2)
    (line,) = audited(bridge, table)
    assert line.verdict == EQUAL


@pytest.mark.parametrize("retention_us", [0, 35 * 60_000_000])
def test_beside_a_bridge_under_load_there_is_never_a_difference(
    place: Place,
    tmp_path: Path,
    table: TableSums,
    retention_us: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So short that most of what is there was written meanwhile.
    monkeypatch.setattr(account, "CUT_US", 500_000)
    monkeypatch.setattr(retention, "TICK_US", 0)
    bridge = Bridge(place, tmp_path / "busy.db", Limits(retention_us=retention_us))
    stop = threading.Event()
    clock = SystemClock()

    def load() -> None:
        number = 0
        while not stop.is_set():
            batch = [reading(number + n, f"S{n % 5}") for n in range(100)]
            number += 100
            now = clock.now_us()
            bridge.take(*(one._replace(received_us=now, event_us=START_US) for one in batch))
            bridge.journal.acknowledged(bridge.journal.last_seq)
            bridge.journal.maintain()
            time.sleep(0.02)
            while bridge.journal.pending("bigquery") > 2_000 and not stop.is_set():
                time.sleep(0.01)  # more could not be named, and would be unsettled

    thread = threading.Thread(target=load)
    thread.start()
    try:
        looks = compared = 0
        # With nothing kept there is nothing to take off: it cannot always be told then.
        allowed = {EQUAL} if retention_us else {EQUAL, UNSETTLED}
        deadline = time.monotonic() + 60
        while looks < 20 or compared < 1_000:
            found = audited(bridge, table)
            assert {line.verdict for line in found} <= allowed, found
            compared = max(compared, sum(line.found.rows for line in found))
            looks += 1
            assert time.monotonic() < deadline, (looks, compared)
    finally:
        stop.set()
        thread.join()
        bridge.stop()


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.cli.audit._pause", lambda _: None)


def run(bridge: Bridge, *arguments: str, **changes: str) -> Result:
    settings = bridge.place.settings
    environment = {
        "APP_ENV": "DEV",
        "GCP_PROJECT_ID": settings.gcp_project_id,
        "PUBSUB_TOPIC": settings.pubsub_topic,
        "BIGQUERY_DATASET": settings.bigquery_dataset,
        "BIGQUERY_TABLE": settings.bigquery_table,
        "JOURNAL_PATH": str(bridge.path),
        **bridge.place.services.environment(),
        **changes,
    }
    span = ("--from", "2026-09-20", "--to", "2026-09-22")
    return CliRunner().invoke(cli, ["audit", *span, *arguments], env=environment)


def test_the_command_ends_with_0_where_all_is_equal_and_with_1_where_it_is_not(
    place: Place, bridge: Bridge
) -> None:
    readings = some(10)
    bridge.settle(*readings)
    equal = run(bridge)
    assert (equal.exit_code, "EQUAL: all 1 lines agree" in equal.stdout) == (0, True)
    delete(place, readings[0])
    different = run(bridge)
    assert different.exit_code == 1
    assert "DIFFERENT: 1 of 1 lines differ" in different.stdout
    assert f"2026-09-21 MOR, missing: {readings[0].event_id.hex()}" in different.stdout


def test_the_document_has_what_pubsub_answered_and_says_whose_word_that_is(bridge: Bridge) -> None:
    bridge.settle(*some(10), *some(3, "NEV"))
    document = json.loads(run(bridge, "--format", "json").stdout)
    assert [line["settled"] for line in document["lines"]] == [10, 3]
    assert [day["answered"] for day in document["pubsub"]["days"]] == [10, 3]
    assert "the bridge's own record" in document["pubsub"]["note"].lower()
    last = {one["site"]: one["message_id"] for one in document["pubsub"]["last_messages"]}
    published = bridge.place.services.pubsub.published(bridge.place.topic, 0)
    assert last == {message.ordering_key: message.message_id for message in published}


def test_the_report_can_be_checked_by_its_reader(
    place: Place, bridge: Bridge, tmp_path: Path
) -> None:
    readings = some(10)
    bridge.settle(*readings)
    copy(place, readings[0])
    report = tmp_path / "audit.md"
    assert run(bridge, "--report", str(report)).exit_code == 1
    text = report.read_text()
    lines = text.partition("```jsonl\n")[2].partition("```")[0]
    assert f"`{hashlib.sha256(lines.encode()).hexdigest()}`" in text
    assert json.loads(lines)["doubled"] == [readings[0].event_id.hex()]
    for words in (str(bridge.path), ".".join(place.table), "DIFFERENT", "another bridge"):
        assert words in text
    other = tmp_path / "audit.json"
    run(bridge, "--report", str(other))
    assert json.loads(other.read_text())["verdict"] == "DIFFERENT: 1 of 1 lines differ"


def test_one_site_is_looked_at_by_itself(place: Place, bridge: Bridge) -> None:
    readings = some(10)
    bridge.settle(*readings, *some(10, "NEV"))
    delete(place, readings[0])
    assert run(bridge, "--site", "NEV").exit_code == 0
    assert run(bridge, "--site", "MOR").exit_code == 1
    assert run(bridge, "--site", "MOR", "--site", "NEV").exit_code == 1


def test_a_folded_site_cannot_be_looked_at_by_itself(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "MAX_SITES", 1)
    bridge.settle(*some(3, "A"), *some(4, "B"))
    assert run(bridge, "--site", "A").exit_code == 0
    refused = run(bridge, "--site", "B")
    assert (refused.exit_code, "no line of its own" in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"APP_ENV": "LOCAL"}, 78, "writes to no table"),
        ({"BIGQUERY_TABLE": "another"}, 78, "counts what went to"),
        ({"JOURNAL_PATH": "/no/such/journal.db"}, 70, "no journal"),
        ({"BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:9"}, 70, "unavailable"),
    ],
)
def test_what_keeps_it_from_comparing_is_said(
    bridge: Bridge,
    changes: dict[str, str],
    code: int,
    words: str,
) -> None:
    bridge.settle(*some(3))
    done = run(bridge, **changes)
    assert (done.exit_code, words in done.stderr) == (code, True), done.output


def test_days_that_are_not_kept_any_more_are_refused(bridge: Bridge) -> None:
    bridge.settle(*some(3))
    with sqlite3.connect(bridge.path) as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('days_floor', ?)", (TODAY,))
    db.close()
    done = run(bridge)
    assert (done.exit_code, "days before 2026-09-21 are not kept" in done.output) == (2, True)


def test_a_journal_that_was_salvaged_once_says_so(bridge: Bridge) -> None:
    bridge.settle(*some(3))
    with sqlite3.connect(bridge.path) as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('salvaged', 'bits flipped')")
    db.close()
    assert "damaged and salvaged once" in run(bridge).stdout
