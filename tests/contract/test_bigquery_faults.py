"""What the local BigQuery does on demand: fail, hang, lose answers, refuse single rows, be gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import requests
from google.api_core.exceptions import (
    Aborted,
    DeadlineExceeded,
    GoogleAPICallError,
    NotFound,
    ResourceExhausted,
    ServiceUnavailable,
    TooManyRequests,
)
from google.cloud.bigquery_storage_v1 import types
from google.rpc import code_pb2

from localgcp.bigquery_rest import BigQueryRestServer
from localgcp.bigquery_write import StorageWriteServer
from localgcp.faults import Faults
from localgcp.tables import Tables
from tests.contract.conftest import Inside
from tests.support.bigquery import (
    PROJECT,
    Appends,
    Service,
    json_row,
    new_table,
    proto_row,
    rest_client,
    storage_code,
    write_client,
)
from tests.support.poll import eventually


def path_of(table: Any) -> str:
    return f"projects/{PROJECT}/datasets/{table.dataset_id}/tables/{table.table_id}"


def name_of(table: Any) -> tuple[str, str, str]:
    return PROJECT, table.dataset_id, table.table_id


def create(client: Any, table: Any) -> str:
    wanted = types.WriteStream(type_=types.WriteStream.Type.COMMITTED)
    made = client.create_write_stream(parent=path_of(table), write_stream=wanted, retry=None)
    return str(made.name)


def insert(client: Any, table: Any, *rows: Any, timeout: float = 30.0, **options: Any) -> Any:
    ids = [row["event_id"] for row in rows]
    return client.insert_rows_json(table, rows, row_ids=ids, retry=None, timeout=timeout, **options)


def seconds_of(call: Callable[[], Any]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


@pytest.fixture
def inside(bigquery_inside: Inside) -> Inside:
    return bigquery_inside


@pytest.fixture
def stream(bigquery_write: Any, bigquery_table: Any, bigquery_inside: Inside) -> str:
    return create(bigquery_write, bigquery_table)


@pytest.fixture
def appends(bigquery_write: Any, stream: str) -> Iterator[Appends]:
    with Appends(bigquery_write, stream) as connection:
        yield connection


# --- REST -----------------------------------------------------------------------------------------


def test_a_status_over_rest_has_googles_form_and_applies_nothing(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any
) -> None:
    inside.fail("bigquery.tabledata.insertAll", status="429", message="slow down")
    with pytest.raises(TooManyRequests, match="slow down") as refused:
        insert(bigquery_rest, bigquery_table, json_row("a"))
    assert refused.value.errors[0]["reason"] == "rateLimitExceeded"
    assert inside.tables.count(*name_of(bigquery_table)) == 0
    assert insert(bigquery_rest, bigquery_table, json_row("a")) == []


def test_a_reason_over_rest_can_be_chosen(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any
) -> None:
    inside.fail("bigquery.tables.get", status="403", reason="quotaExceeded")
    with pytest.raises(GoogleAPICallError) as refused:
        bigquery_rest.get_table(bigquery_table, retry=None)
    assert (refused.value.code, refused.value.errors[0]["reason"]) == (403, "quotaExceeded")


def test_a_fault_is_for_one_table_where_it_names_one(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any
) -> None:
    other = new_table(bigquery_rest)
    subject = f"{bigquery_table.dataset_id}.{bigquery_table.table_id}"
    inside.fail("bigquery.*", status="500", subject=subject, times=None)
    assert insert(bigquery_rest, other, json_row("a")) == []
    for call in (bigquery_rest.get_table, bigquery_rest.delete_table):
        with pytest.raises(GoogleAPICallError):
            call(bigquery_table, retry=None)
    with pytest.raises(GoogleAPICallError):
        bigquery_rest.create_table(bigquery_table, retry=None)


def test_a_lost_answer_over_rest_applies_the_call(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any
) -> None:
    inside.fail("bigquery.tabledata.insertAll", "answer_lost")
    with pytest.raises(ServiceUnavailable):
        insert(bigquery_rest, bigquery_table, json_row("a"))
    assert inside.tables.count(*name_of(bigquery_table)) == 1
    assert insert(bigquery_rest, bigquery_table, json_row("a")) == []
    assert inside.tables.count(*name_of(bigquery_table)) == 1


def test_a_delay_over_rest_comes_before_the_answer(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any
) -> None:
    inside.fail("bigquery.tables.get", "delay", seconds=0.3)
    assert seconds_of(lambda: bigquery_rest.get_table(bigquery_table)) >= 0.3


def test_a_cut_over_rest_drops_the_connection_and_applies_nothing(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any
) -> None:
    for kind in ("cut", "close_stream"):
        inside.fail("bigquery.tabledata.insertAll", kind)
        with pytest.raises(requests.ConnectionError):
            insert(bigquery_rest, bigquery_table, json_row("a"))
    assert inside.tables.count(*name_of(bigquery_table)) == 0
    assert insert(bigquery_rest, bigquery_table, json_row("a")) == []


def test_a_call_that_hangs_over_rest_fails_when_the_fault_is_lifted(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any
) -> None:
    number = inside.fail("bigquery.tabledata.insertAll", "hang")
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(insert, bigquery_rest, bigquery_table, json_row("a"))
        eventually(lambda: inside.faults.listing()[0]["used"] == 1, "the call hangs")
        assert not call.done()
        inside.faults.remove(number)
        assert isinstance(call.exception(timeout=15), ServiceUnavailable)
    assert inside.tables.count(*name_of(bigquery_table)) == 0


def test_calls_that_hang_over_rest_are_given_up_when_their_callers_go(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any
) -> None:
    # More than there are threads: each has to be free again for the call after them.
    inside.fail("bigquery.tabledata.insertAll", "hang", times=20)
    for _ in range(20):
        with pytest.raises(requests.Timeout):
            insert(bigquery_rest, bigquery_table, json_row("a"), timeout=0.2)
    assert insert(bigquery_rest, bigquery_table, json_row("a"), timeout=15) == []


def test_every_call_over_rest_is_counted_by_its_name(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any
) -> None:
    insert(bigquery_rest, bigquery_table, json_row("a"))
    bigquery_rest.get_table(bigquery_table)
    list(bigquery_rest.list_rows(bigquery_table))
    bigquery_rest.query_and_wait("SELECT 1")
    assert inside.faults.calls() == {
        "bigquery.datasets.insert": 1,
        "bigquery.tables.insert": 1,
        "bigquery.tabledata.insertAll": 1,
        "bigquery.tables.get": 1,
        "bigquery.tabledata.list": 1,
        "bigquery.jobs.query": 1,
    }


# --- Storage Write --------------------------------------------------------------------------------


def test_a_code_ends_the_append_stream_with_nothing_applied(
    inside: Inside, bigquery_table: Any, bigquery_write: Any, stream: str, appends: Appends
) -> None:
    appends.append([proto_row("a")], 0)
    inside.fail("storage.AppendRows", status="ABORTED", subject=stream)
    with pytest.raises(Aborted):
        appends.append([proto_row("b")], 1)
    assert inside.tables.count(*name_of(bigquery_table)) == 1
    with Appends(bigquery_write, stream) as again:
        assert again.append([proto_row("b")], 1).append_result.offset == 1


def test_a_lost_answer_applies_the_append(
    inside: Inside, bigquery_table: Any, bigquery_write: Any, stream: str, appends: Appends
) -> None:
    inside.fail("storage.AppendRows", "answer_lost")
    with pytest.raises(ServiceUnavailable):
        appends.append([proto_row("a")], 0)
    assert inside.tables.count(*name_of(bigquery_table)) == 1
    with Appends(bigquery_write, stream) as again:
        assert again.append([proto_row("a")], 0).error.code == code_pb2.ALREADY_EXISTS


def test_a_closed_stream_ends_without_an_answer_or_an_error(
    inside: Inside, bigquery_table: Any, appends: Appends
) -> None:
    appends.append([proto_row("a")], 0)
    inside.fail("storage.AppendRows", "close_stream")
    with pytest.raises(StopIteration):
        appends.append([proto_row("b")], 1)
    assert inside.tables.count(*name_of(bigquery_table)) == 1


def test_a_cut_append_stream_is_unavailable(
    inside: Inside, bigquery_table: Any, appends: Appends
) -> None:
    inside.fail("storage.AppendRows", "cut")
    with pytest.raises(ServiceUnavailable):
        appends.append([proto_row("a")], 0)
    assert inside.tables.count(*name_of(bigquery_table)) == 0


def test_a_delayed_append_is_answered_all_the_same(inside: Inside, appends: Appends) -> None:
    inside.fail("storage.AppendRows", "delay", seconds=0.3)
    assert seconds_of(lambda: appends.append([proto_row("a")], 0)) >= 0.3


def test_an_append_that_hangs_fails_when_the_fault_is_lifted(
    inside: Inside, bigquery_table: Any, appends: Appends
) -> None:
    number = inside.fail("storage.AppendRows", "hang")
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(appends.append, [proto_row("a")], 0)
        eventually(lambda: inside.faults.listing()[0]["used"] == 1, "the append hangs")
        assert not call.done()
        inside.faults.remove(number)
        assert isinstance(call.exception(timeout=15), ServiceUnavailable)
    assert inside.tables.count(*name_of(bigquery_table)) == 0


def test_unary_calls_of_storage_write_fail_on_demand(
    inside: Inside, bigquery_table: Any, bigquery_write: Any, stream: str
) -> None:
    inside.fail("storage.CreateWriteStream", status="RESOURCE_EXHAUSTED")
    with pytest.raises(ResourceExhausted):
        create(bigquery_write, bigquery_table)
    inside.fail("storage.GetWriteStream", "hang", subject=stream)
    with pytest.raises(DeadlineExceeded):
        bigquery_write.get_write_stream(name=stream, retry=None, timeout=0.3)
    inside.fail("storage.FinalizeWriteStream", "answer_lost", subject=stream)
    with pytest.raises(ServiceUnavailable):
        bigquery_write.finalize_write_stream(name=stream, retry=None)
    with Appends(bigquery_write, stream) as connection:
        assert storage_code(connection.append([proto_row("a")], 0)) == "STREAM_FINALIZED"


def test_an_unknown_stream_that_a_fault_only_delays_is_not_found(
    inside: Inside, bigquery_table: Any, bigquery_write: Any
) -> None:
    inside.fail("storage.GetWriteStream", "delay", seconds=0.01)
    with pytest.raises(NotFound):
        bigquery_write.get_write_stream(
            name=f"{path_of(bigquery_table)}/streams/unknown", retry=None
        )


# --- rows, tables and streams ---------------------------------------------------------------------


def test_a_row_with_a_refused_value_is_refused_alone(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any, appends: Appends
) -> None:
    inside.tables.refuse(*name_of(bigquery_table), "event_id", "poison")
    rows = json_row("a"), json_row("poison"), json_row("b")
    errors = insert(bigquery_rest, bigquery_table, *rows, skip_invalid_rows=True)
    assert [(e["index"], e["errors"][0]["reason"]) for e in errors] == [(1, "invalid")]
    answer = appends.append([proto_row("c"), proto_row("poison")], 0)
    assert [error.index for error in answer.row_errors] == [1]
    assert appends.append([proto_row("c")], 0).append_result.offset == 0
    found = [row["event_id"] for row in inside.tables.rows(*name_of(bigquery_table))]
    assert found == ["a", "b", "c"]


def test_a_refused_value_can_be_accepted_again(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any
) -> None:
    inside.tables.refuse(*name_of(bigquery_table), "value", 1.5)
    assert len(insert(bigquery_rest, bigquery_table, json_row("a"))) == 1
    inside.tables.accept_all(*name_of(bigquery_table))
    assert insert(bigquery_rest, bigquery_table, json_row("a")) == []


def test_a_hidden_table_is_not_found_by_writes_for_a_while(
    inside: Inside, bigquery_rest: Any, bigquery_table: Any, bigquery_write: Any, appends: Appends
) -> None:
    inside.tables.hide(*name_of(bigquery_table), 3600)
    assert bigquery_rest.get_table(bigquery_table).num_rows == 0
    with pytest.raises(NotFound):
        insert(bigquery_rest, bigquery_table, json_row("a"))
    with pytest.raises(NotFound):
        create(bigquery_write, bigquery_table)
    answer = appends.append([proto_row("b")], 0)
    assert answer.error.code == code_pb2.NOT_FOUND
    assert storage_code(answer) == "TABLE_NOT_FOUND"
    inside.tables.hide(*name_of(bigquery_table), 0)
    assert insert(bigquery_rest, bigquery_table, json_row("a")) == []


def test_forgotten_streams_are_not_found(
    inside: Inside, bigquery_write: Any, stream: str, appends: Appends
) -> None:
    appends.append([proto_row("a")], 0)
    assert inside.tables.forget_streams() == 1
    answer = appends.append([proto_row("b")], 1)
    assert answer.error.code == code_pb2.NOT_FOUND
    assert storage_code(answer) == "STREAM_NOT_FOUND"
    with pytest.raises(NotFound):
        bigquery_write.finalize_write_stream(name=stream, retry=None)


def test_streams_can_be_finalized_behind_their_users_backs(
    inside: Inside, bigquery_write: Any, stream: str, appends: Appends
) -> None:
    appends.append([proto_row("a")], 0)
    assert inside.tables.finalize_streams("*/no-such-stream") == 0
    assert inside.tables.finalize_streams() == 1
    assert storage_code(appends.append([proto_row("b")], 1)) == "STREAM_FINALIZED"
    assert bigquery_write.finalize_write_stream(name=stream, retry=None).row_count == 1


# --- stopping, and many at once -------------------------------------------------------------------


def test_servers_that_stop_serve_nobody_any_more() -> None:
    tables, faults = Tables(), Faults()
    rest, storage = BigQueryRestServer(tables, faults), StorageWriteServer(tables, faults)
    rest.start()
    storage.start()
    service = Service(f"http://127.0.0.1:{rest.port}", f"127.0.0.1:{storage.port}")
    client, writer = rest_client(service), write_client(service)
    table = new_table(client)
    connection = Appends(writer, create(writer, table))
    connection.append([proto_row("a")], 0)
    rest.stop()
    storage.stop()
    with pytest.raises(requests.ConnectionError):
        client.get_table(table, retry=None)
    with pytest.raises(GoogleAPICallError) as refused:
        connection.append([proto_row("b")], 1)
    assert refused.value.grpc_status_code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
    )
    tables.close()


def test_a_server_stops_while_a_call_hangs() -> None:
    tables, faults = Tables(), Faults()
    inside = Inside(tables, faults)
    inside.fail("bigquery.tables.get", "hang")
    rest = BigQueryRestServer(tables, faults)
    rest.start()
    client = rest_client(Service(f"http://127.0.0.1:{rest.port}", ""))
    table = new_table(client)
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(client.get_table, table, retry=None)
        eventually(lambda: inside.faults.listing()[0]["used"] == 1, "the call hangs")
        rest.stop()
        assert isinstance(call.exception(timeout=15), requests.ConnectionError)
    tables.close()


def test_many_writers_at_once_lose_and_double_nothing(
    inside: Inside, bigquery_service: Service, bigquery_rest: Any, bigquery_table: Any
) -> None:
    names = [[f"{writer}-{number}" for number in range(50)] for writer in range(6)]
    barrier = threading.Barrier(len(names))

    def by_stream(mine: list[str]) -> None:
        client = write_client(bigquery_service)
        barrier.wait()
        with Appends(client, create(client, bigquery_table)) as connection:
            for offset, name in enumerate(mine):
                assert connection.append([proto_row(name)], offset).append_result.offset == offset

    def by_insert_all(mine: list[str]) -> None:
        client = rest_client(bigquery_service)
        barrier.wait()
        for name in mine:
            assert insert(client, bigquery_table, json_row(name)) == []

    with ThreadPoolExecutor(len(names)) as threads:
        calls = [
            threads.submit(by_stream if number % 2 else by_insert_all, mine)
            for number, mine in enumerate(names)
        ]
        for call in calls:
            call.result(timeout=60)
    found = [row["event_id"] for row in inside.tables.rows(*name_of(bigquery_table))]
    assert sorted(found) == sorted(name for mine in names for name in mine)
