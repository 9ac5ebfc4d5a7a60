"""What BigQuery over REST is held to, asked with Google's own client library."""

from __future__ import annotations

import gzip
import json
import uuid
from datetime import UTC, date, datetime
from typing import Any

import pytest
import requests
from google.api_core.exceptions import BadRequest, Conflict, GoogleAPICallError, NotFound
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from tests.contract.conftest import Inside
from tests.support.bigquery import COLUMNS, PROJECT, Service, json_row, new_table

NOWHERE = f"{PROJECT}.nowhere.readings"


def insert(client: Any, table: Any, rows: list[Any], ids: Any = None, **options: Any) -> Any:
    wanted = ids if ids is not None else [None] * len(rows)
    return client.insert_rows_json(table, rows, row_ids=wanted, retry=None, **options)


def event_ids(client: Any, table: Any) -> list[str]:
    return [row["event_id"] for row in client.list_rows(table)]


def reasons(errors: list[dict[str, Any]]) -> dict[int, str]:
    return {error["index"]: error["errors"][0]["reason"] for error in errors}


def post(service: Service, path: str, **body: Any) -> requests.Response:
    root = f"{service.rest}/bigquery/v2/projects/{PROJECT}"
    return requests.post(root + path, timeout=30, **body)


# --- datasets and tables --------------------------------------------------------------------------


def test_the_client_finds_the_service_by_its_own_emulator_variable(
    bigquery_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_service.rest)
    client = bigquery.Client(project=PROJECT, credentials=AnonymousCredentials())
    assert new_table(client).schema == client.get_table(new_table(client)).schema


def test_a_dataset_can_be_made_got_listed_and_deleted(bigquery_rest: Any) -> None:
    name = f"made_{uuid.uuid4().hex}"
    bigquery_rest.create_dataset(name)
    assert bigquery_rest.get_dataset(name).project == PROJECT
    assert name in [item.dataset_id for item in bigquery_rest.list_datasets()]
    bigquery_rest.delete_dataset(name)
    with pytest.raises(NotFound):
        bigquery_rest.get_dataset(name)


def test_a_dataset_that_exists_is_a_conflict(bigquery_rest: Any, bigquery_table: Any) -> None:
    with pytest.raises(Conflict):
        bigquery_rest.create_dataset(bigquery_table.dataset_id)
    bigquery_rest.create_dataset(bigquery_table.dataset_id, exists_ok=True)


def test_a_dataset_with_tables_is_deleted_only_with_its_contents(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    with pytest.raises(BadRequest, match="in use"):
        bigquery_rest.delete_dataset(bigquery_table.dataset_id)
    bigquery_rest.delete_dataset(bigquery_table.dataset_id, delete_contents=True)
    with pytest.raises(NotFound):
        bigquery_rest.get_table(bigquery_table)


def test_a_table_keeps_schema_partitioning_and_clustering(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    table = bigquery_rest.get_table(bigquery_table)
    described = [(field.name, field.mode) for field in table.schema]
    assert described == [(column.name, column.mode) for column in COLUMNS]
    assert table.time_partitioning.field == "event_time"
    assert table.time_partitioning.type_ == "DAY"
    assert table.clustering_fields == ["event_id"]


def test_a_table_that_exists_is_a_conflict(bigquery_rest: Any, bigquery_table: Any) -> None:
    with pytest.raises(Conflict):
        bigquery_rest.create_table(bigquery.Table(bigquery_table.reference, schema=COLUMNS))


def test_a_table_needs_its_dataset(bigquery_rest: Any) -> None:
    with pytest.raises(NotFound):
        bigquery_rest.create_table(bigquery.Table(NOWHERE, schema=COLUMNS), retry=None)


def test_an_unknown_table_is_not_found_with_googles_reason(bigquery_rest: Any) -> None:
    with pytest.raises(NotFound) as refused:
        bigquery_rest.get_table(NOWHERE)
    assert refused.value.errors[0]["reason"] == "notFound"


def test_tables_are_listed_and_deleted(bigquery_rest: Any, bigquery_table: Any) -> None:
    [listed] = bigquery_rest.list_tables(bigquery_table.dataset_id)
    assert listed.table_id == bigquery_table.table_id
    bigquery_rest.delete_table(bigquery_table)
    assert list(bigquery_rest.list_tables(bigquery_table.dataset_id)) == []
    with pytest.raises(NotFound):
        bigquery_rest.delete_table(bigquery_table)


def test_a_column_can_be_added_and_is_null_in_the_rows_before(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    assert insert(bigquery_rest, bigquery_table, [json_row("before")]) == []
    bigquery_table.schema = [*COLUMNS, bigquery.SchemaField("unit", "STRING")]
    table = bigquery_rest.update_table(bigquery_table, ["schema"])
    assert insert(bigquery_rest, table, [json_row("after", unit="bar")]) == []
    assert [row["unit"] for row in bigquery_rest.list_rows(table)] == [None, "bar"]


def test_a_columns_type_cannot_be_changed(bigquery_rest: Any, bigquery_table: Any) -> None:
    changed = [*COLUMNS[:2], bigquery.SchemaField("value", "STRING", "REQUIRED"), *COLUMNS[3:]]
    bigquery_table.schema = changed
    with pytest.raises(BadRequest, match="changed type"):
        bigquery_rest.update_table(bigquery_table, ["schema"])


def test_columns_that_are_not_served_are_refused_in_words(
    bigquery_rest: Any, bigquery_table: Any, bigquery_inside: Inside
) -> None:
    refused = {
        "is not served": [bigquery.SchemaField("r", "RECORD", fields=COLUMNS[:1])],
        "REPEATED": [bigquery.SchemaField("r", "STRING", "REPEATED")],
        "Invalid field name": [bigquery.SchemaField('a" b', "STRING")],
        "without columns": [],
        "the same name": [COLUMNS[0], bigquery.SchemaField("EVENT_ID", "STRING")],
    }
    for words, schema in refused.items():
        body = bigquery.Table(f"{PROJECT}.{bigquery_table.dataset_id}.other", schema=schema)
        with pytest.raises(BadRequest, match=words):
            bigquery_rest.create_table(body)


def test_all_permissions_asked_for_are_held(bigquery_rest: Any, bigquery_table: Any) -> None:
    asked = ["bigquery.tables.updateData", "bigquery.tables.get"]
    answer = bigquery_rest.test_iam_permissions(bigquery_table, asked)
    assert answer["permissions"] == asked


def test_an_unknown_path_is_not_found_in_googles_form(bigquery_service: Service) -> None:
    answer = requests.get(f"{bigquery_service.rest}/bigquery/v2/nothing", timeout=30)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == 404


# --- insertAll ------------------------------------------------------------------------------------


def test_rows_are_visible_at_once_in_the_types_of_their_columns(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    row = json_row(
        "a",
        attributes=json.dumps({"unit": "bar", "deep": [1, {"x": None}]}),
        number="-9223372036854775808",
        good=True,
        raw="AAH/",
        day="2026-11-21",
    )
    assert insert(bigquery_rest, bigquery_table, [row]) == []
    [found] = bigquery_rest.list_rows(bigquery_table)
    assert dict(found) == {
        "event_id": "a",
        "event_time": datetime(2026, 11, 21, 3, 0, 0, 1, tzinfo=UTC),
        "value": 1.5,
        "attributes": {"unit": "bar", "deep": [1, {"x": None}]},
        "number": -(2**63),
        "good": True,
        "raw": b"\x00\x01\xff",
        "day": date(2026, 11, 21),
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-21T03:00:00Z", 0),
        ("2026-11-21 03:00:00 UTC", 0),
        ("2026-11-21 04:30:00.5+01:30", 0.5),
        ("2026-11-21", -3 * 3600),
        (1795230000, 0),
        (1795230000.25, 0.25),
    ],
)
def test_times_are_read_in_the_services_forms(
    bigquery_rest: Any, bigquery_table: Any, text: Any, seconds: float
) -> None:
    assert insert(bigquery_rest, bigquery_table, [json_row("a", event_time=text)]) == []
    [row] = bigquery_rest.list_rows(bigquery_table)
    assert (row["event_time"] - datetime(2026, 11, 21, 3, tzinfo=UTC)).total_seconds() == seconds


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"value": "warm"}, "value"),
        ({"value": True}, "value"),
        ({"value": "1_0"}, "value"),
        ({"value": {"a": 1}}, "value"),
        ({"value": None}, "value"),
        ({"event_id": ["a"]}, "event_id"),
        ({"event_time": "yesterday"}, "event_time"),
        ({"event_time": "2026-02-30T00:00:00Z"}, "event_time"),
        ({"event_time": "2026-11-21T03:00:00+15:00"}, "event_time"),
        ({"event_time": 1e12}, "event_time"),
        ({"number": 1.5}, "number"),
        ({"number": "9223372036854775808"}, "number"),
        ({"good": "perhaps"}, "good"),
        ({"raw": "no base64"}, "raw"),
        ({"day": "2026-13-01"}, "day"),
        ({"attributes": "{not json"}, "attributes"),
        ({"attributes": "NaN"}, "attributes"),
        ({"attributes": {"an": "object"}}, "attributes"),
        ({"elevation": 3}, "elevation"),
    ],
)
def test_a_row_that_does_not_fit_is_invalid_with_its_column(
    bigquery_rest: Any, bigquery_table: Any, changes: dict[str, Any], column: str
) -> None:
    [error] = insert(bigquery_rest, bigquery_table, [json_row("a", **changes)])
    assert error["errors"][0]["reason"] == "invalid"
    assert column in error["errors"][0]["location"]
    assert event_ids(bigquery_rest, bigquery_table) == []


def test_a_bad_row_stops_its_neighbours(bigquery_rest: Any, bigquery_table: Any) -> None:
    rows = [json_row("a"), json_row("b", value="warm"), json_row("c")]
    errors = insert(bigquery_rest, bigquery_table, rows)
    assert reasons(errors) == {0: "stopped", 1: "invalid", 2: "stopped"}
    assert event_ids(bigquery_rest, bigquery_table) == []


def test_a_bad_row_is_left_out_with_skip_invalid_rows(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    rows = [json_row("a"), json_row("b", value="warm"), json_row("c")]
    errors = insert(bigquery_rest, bigquery_table, rows, skip_invalid_rows=True)
    assert reasons(errors) == {1: "invalid"}
    assert event_ids(bigquery_rest, bigquery_table) == ["a", "c"]


def test_an_unknown_field_is_named_and_can_be_ignored(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    [error] = insert(bigquery_rest, bigquery_table, [json_row("a", elevation=3)])
    assert "no such field: elevation" in error["errors"][0]["message"]
    rows = [json_row("a", elevation=3)]
    assert insert(bigquery_rest, bigquery_table, rows, ignore_unknown_values=True) == []
    assert event_ids(bigquery_rest, bigquery_table) == ["a"]


def test_a_repeated_insert_id_is_answered_as_inserted_and_not_doubled(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    for _ in range(2):
        rows = [json_row("a"), json_row("b"), json_row("a")]
        assert insert(bigquery_rest, bigquery_table, rows, ids=["a", "b", "a"]) == []
    assert event_ids(bigquery_rest, bigquery_table) == ["a", "b"]


def test_rows_without_insert_id_are_not_deduplicated(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    insert(bigquery_rest, bigquery_table, [json_row("a"), json_row("a")])
    assert event_ids(bigquery_rest, bigquery_table) == ["a", "a"]


def test_the_insert_id_of_a_stopped_row_is_not_remembered(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    rows = [json_row("a"), json_row("b", value="warm")]
    insert(bigquery_rest, bigquery_table, rows, ids=["a", "b"])
    assert insert(bigquery_rest, bigquery_table, rows[:1], ids=["a"]) == []
    assert event_ids(bigquery_rest, bigquery_table) == ["a"]


def test_an_insert_id_is_forgotten_after_a_minute(
    bigquery_rest: Any, bigquery_table: Any, bigquery_inside: Inside
) -> None:
    insert(bigquery_rest, bigquery_table, [json_row("a")], ids=["a"])
    known = bigquery_inside.tables.table(
        f"{PROJECT}.{bigquery_table.dataset_id}.{bigquery_table.table_id}"
    ).insert_ids
    for seconds, count in ((50, 1), (11, 2)):
        known["a"] -= seconds
        insert(bigquery_rest, bigquery_table, [json_row("a")], ids=["a"])
        assert len(event_ids(bigquery_rest, bigquery_table)) == count


def test_inserting_into_an_unknown_table_is_not_found(bigquery_rest: Any) -> None:
    schema = COLUMNS[:1]
    with pytest.raises(NotFound) as refused:
        insert(bigquery_rest, bigquery.Table(NOWHERE, schema=schema), [json_row("a")])
    assert refused.value.errors[0]["reason"] == "notFound"


def test_more_than_50_000_rows_are_refused(bigquery_rest: Any, bigquery_table: Any) -> None:
    with pytest.raises(BadRequest, match="50000"):
        insert(bigquery_rest, bigquery_table, [{"event_id": "a"}] * 50_001)


def test_a_request_of_more_than_10_megabytes_is_refused_as_a_whole(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    rows = [json_row("a"), json_row("x" * 10_500_000)]
    with pytest.raises(GoogleAPICallError) as refused:
        insert(bigquery_rest, bigquery_table, rows)
    assert refused.value.code in (400, 413)
    assert event_ids(bigquery_rest, bigquery_table) == []


def test_no_rows_at_all_are_refused(bigquery_service: Service, bigquery_table: Any) -> None:
    path = f"/datasets/{bigquery_table.dataset_id}/tables/{bigquery_table.table_id}/insertAll"
    bodies: list[dict[str, Any]] = [{}, {"rows": []}, {"rows": "a"}, {"rows": [1]}]
    for body in [*bodies, {"rows": [{"json": 1}]}]:
        assert post(bigquery_service, path, json=body).status_code == 400, body


def test_bodies_that_are_no_json_are_refused(
    bigquery_service: Service, bigquery_table: Any
) -> None:
    path = f"/datasets/{bigquery_table.dataset_id}/tables/{bigquery_table.table_id}/insertAll"
    zipped = {"Content-Encoding": "gzip"}
    assert post(bigquery_service, path, data=b"{").status_code == 400
    assert post(bigquery_service, path, data=b"[]").status_code == 400
    assert post(bigquery_service, path, data=b"{}", headers=zipped).status_code == 400


def test_a_gzipped_body_is_read(
    bigquery_service: Service, bigquery_rest: Any, bigquery_table: Any
) -> None:
    path = f"/datasets/{bigquery_table.dataset_id}/tables/{bigquery_table.table_id}/insertAll"
    body = gzip.compress(json.dumps({"rows": [{"json": json_row("a")}]}).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert (
        post(bigquery_service, path, data=body, headers=headers).json().get("insertErrors") is None
    )
    assert event_ids(bigquery_rest, bigquery_table) == ["a"]


# --- reading back ---------------------------------------------------------------------------------


def test_rows_come_in_pages_in_the_order_of_their_coming(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    names = [f"{number:02}" for number in range(25)]
    insert(bigquery_rest, bigquery_table, [json_row(name) for name in names])
    rows = bigquery_rest.list_rows(bigquery_table, page_size=10)
    pages = [[row["event_id"] for row in page] for page in rows.pages]
    assert pages == [names[:10], names[10:20], names[20:]]


def test_times_are_int64_microseconds_if_asked_for_and_seconds_if_not(
    bigquery_service: Service, bigquery_rest: Any, bigquery_table: Any
) -> None:
    insert(bigquery_rest, bigquery_table, [json_row("a", event_time="2026-11-21T03:00:00.5Z")])
    path = f"datasets/{bigquery_table.dataset_id}/tables/{bigquery_table.table_id}/data"
    url = f"{bigquery_service.rest}/bigquery/v2/projects/{PROJECT}/{path}"
    plain = requests.get(url, timeout=30).json()
    exact = requests.get(url, {"formatOptions.useInt64Timestamp": "true"}, timeout=30).json()
    assert float(plain["rows"][0]["f"][1]["v"]) == 1795230000.5
    assert exact["rows"][0]["f"][1]["v"] == "1795230000500000"


def test_the_number_of_rows_is_in_the_tables_resource(
    bigquery_rest: Any, bigquery_table: Any, bigquery_inside: Inside
) -> None:
    # The service itself counts streamed rows late; the local one at once.
    insert(bigquery_rest, bigquery_table, [json_row("a"), json_row("b")])
    assert bigquery_rest.get_table(bigquery_table).num_rows == 2


# --- queries --------------------------------------------------------------------------------------


def test_ids_are_looked_up_by_an_array_within_a_range_of_time(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    rows = [
        json_row(name, event_time=f"2026-11-{20 + day}T00:00:00Z") for day, name in enumerate("abc")
    ]
    insert(bigquery_rest, bigquery_table, rows)
    config = bigquery.QueryJobConfig(
        query_parameters=[
            bigquery.ArrayQueryParameter("ids", "STRING", ["a", "b", "z"]),
            bigquery.ScalarQueryParameter("a", "TIMESTAMP", datetime(2026, 11, 21, tzinfo=UTC)),
            bigquery.ScalarQueryParameter("b", "TIMESTAMP", datetime(2026, 11, 22, tzinfo=UTC)),
        ]
    )
    sql = (
        f"SELECT event_id FROM `{bigquery_table.full_table_id.replace(':', '.')}` "
        "WHERE event_id IN UNNEST(@ids) AND event_time BETWEEN @a AND @b"
    )
    assert [row.event_id for row in bigquery_rest.query(sql, job_config=config).result()] == ["b"]
    assert [row.event_id for row in bigquery_rest.query_and_wait(sql, job_config=config)] == ["b"]


def test_a_query_answers_typed_columns(bigquery_rest: Any, bigquery_table: Any) -> None:
    rows = [json_row(name, value=value) for name, value in (("a", 1), ("b", 3), ("b", 5))]
    insert(bigquery_rest, bigquery_table, rows)
    sql = (
        "SELECT DATE(event_time) AS day, COUNT(*) AS n, COUNT(DISTINCT event_id) AS ids, "
        "AVG(value) AS mean, MAX(event_time) AS last "
        f"FROM `{bigquery_table.dataset_id}.readings` GROUP BY day"
    )
    [row] = bigquery_rest.query_and_wait(sql)
    last = datetime(2026, 11, 21, 3, 0, 0, 1, tzinfo=UTC)
    assert tuple(row) == (date(2026, 11, 21), 3, 2, 3.0, last)


def test_a_long_answer_comes_in_pages(bigquery_rest: Any, bigquery_table: Any) -> None:
    names = [f"{number:03}" for number in range(25)]
    insert(bigquery_rest, bigquery_table, [json_row(name) for name in names])
    sql = f"SELECT event_id FROM `{bigquery_table.dataset_id}.readings` ORDER BY event_id"
    by_job = bigquery_rest.query(sql).result(page_size=10)
    at_once = bigquery_rest.query_and_wait(sql, page_size=10)
    assert [row.event_id for row in by_job] == names
    assert [row.event_id for row in at_once] == names


def test_a_query_on_an_unknown_table_is_not_found(bigquery_rest: Any) -> None:
    with pytest.raises(NotFound):
        bigquery_rest.query_and_wait(f"SELECT 1 FROM `{NOWHERE}`")
    with pytest.raises(NotFound):
        bigquery_rest.query(f"SELECT 1 FROM `{NOWHERE}`").result(job_retry=None)


def test_a_query_that_is_not_understood_is_an_invalid_query(
    bigquery_rest: Any, bigquery_table: Any
) -> None:
    sql = f"SELECT elevation FROM `{bigquery_table.dataset_id}.readings`"
    with pytest.raises(BadRequest) as refused:
        bigquery_rest.query_and_wait(sql)
    assert refused.value.errors[0]["reason"] == "invalidQuery"
    job = bigquery_rest.query(sql)
    with pytest.raises(BadRequest) as refused:
        job.result(job_retry=None)
    assert refused.value.errors[0]["reason"] == "invalidQuery"


def test_a_job_id_is_taken_once(bigquery_rest: Any) -> None:
    id_ = f"once-{uuid.uuid4().hex}"
    bigquery_rest.query("SELECT 1", job_id=id_, job_retry=None).result()
    assert bigquery_rest.get_job(id_).state == "DONE"
    with pytest.raises(Conflict):
        bigquery_rest.query("SELECT 1", job_id=id_, retry=None, job_retry=None)


def test_legacy_sql_is_refused(bigquery_rest: Any, bigquery_inside: Inside) -> None:
    config = bigquery.QueryJobConfig(use_legacy_sql=True)
    with pytest.raises(BadRequest, match="legacy"):
        bigquery_rest.query_and_wait("SELECT 1", job_config=config)
