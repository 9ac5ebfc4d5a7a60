"""What the Storage Write API is held to, asked with Google's own client library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import (
    GoogleAPICallError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import descriptor_pb2
from google.rpc import code_pb2

from tests.contract.conftest import Inside
from tests.support.bigquery import (
    COLUMNS,
    PROJECT,
    WRITTEN,
    Appends,
    append_request,
    message_class,
    micros,
    new_table,
    proto_row,
    schema_of,
    storage_code,
)

_Proto = descriptor_pb2.FieldDescriptorProto
_Kind = types.WriteStream.Type


def path_of(table: Any) -> str:
    return f"projects/{PROJECT}/datasets/{table.dataset_id}/tables/{table.table_id}"


def create(client: Any, table: Any, kind: Any = _Kind.COMMITTED) -> str:
    wanted = types.WriteStream(type_=kind)
    made = client.create_write_stream(parent=path_of(table), write_stream=wanted, retry=None)
    return str(made.name)


def event_ids(client: Any, table: Any) -> list[str]:
    return [row["event_id"] for row in client.list_rows(table)]


@pytest.fixture
def stream(bigquery_write: Any, bigquery_table: Any) -> str:
    """A committed stream of the table's."""
    return create(bigquery_write, bigquery_table)


@pytest.fixture
def appends(bigquery_write: Any, stream: str) -> Iterator[Appends]:
    with Appends(bigquery_write, stream) as connection:
        yield connection


@pytest.fixture
def by_default(bigquery_write: Any, bigquery_table: Any) -> Iterator[Appends]:
    """A connection to the table's default stream."""
    with Appends(bigquery_write, f"{path_of(bigquery_table)}/streams/_default") as connection:
        yield connection


# --- streams --------------------------------------------------------------------------------------


def test_a_committed_stream_can_be_made_and_got(
    bigquery_write: Any, bigquery_table: Any, stream: str
) -> None:
    assert stream.startswith(f"{path_of(bigquery_table)}/streams/")
    found = bigquery_write.get_write_stream(
        request={"name": stream, "view": types.WriteStreamView.FULL}
    )
    assert found.type_ == _Kind.COMMITTED
    named = [(column.name, column.mode.name) for column in found.table_schema.fields]
    assert named == [(column.name, column.mode) for column in COLUMNS]


def test_the_schema_is_left_away_in_the_basic_view(bigquery_write: Any, stream: str) -> None:
    assert not bigquery_write.get_write_stream(name=stream).table_schema.fields


def test_pending_and_buffered_streams_are_refused(
    bigquery_write: Any, bigquery_table: Any, bigquery_inside: Inside
) -> None:
    for kind in (_Kind.PENDING, _Kind.BUFFERED):
        with pytest.raises(InvalidArgument, match="not supported here"):
            create(bigquery_write, bigquery_table, kind)


def test_what_is_for_pending_and_buffered_streams_is_not_implemented(
    bigquery_write: Any, bigquery_table: Any, stream: str, bigquery_inside: Inside
) -> None:
    with pytest.raises(GoogleAPICallError) as flushed:
        bigquery_write.flush_rows(write_stream=stream, retry=None)
    request = {"parent": path_of(bigquery_table), "write_streams": [stream]}
    with pytest.raises(GoogleAPICallError) as committed:
        bigquery_write.batch_commit_write_streams(request=request, retry=None)
    codes = [flushed.value.grpc_status_code, committed.value.grpc_status_code]
    assert codes == [grpc.StatusCode.UNIMPLEMENTED] * 2


def test_a_stream_needs_its_table(bigquery_write: Any, bigquery_table: Any) -> None:
    parent = path_of(bigquery_table) + "_elsewhere"
    wanted = types.WriteStream(type_=_Kind.COMMITTED)
    with pytest.raises(NotFound):
        bigquery_write.create_write_stream(parent=parent, write_stream=wanted, retry=None)


def test_an_unknown_stream_is_not_found(bigquery_write: Any, bigquery_table: Any) -> None:
    unknown = f"{path_of(bigquery_table)}/streams/unknown"
    with pytest.raises(NotFound):
        bigquery_write.get_write_stream(name=unknown, retry=None)
    with pytest.raises(NotFound):
        bigquery_write.finalize_write_stream(name=unknown, retry=None)
    with Appends(bigquery_write, unknown) as connection:
        try:
            code = connection.append([proto_row("a")]).error.code
        except NotFound:
            code = code_pb2.NOT_FOUND
    assert code == code_pb2.NOT_FOUND


def test_finalizing_answers_the_number_of_rows_each_time(
    bigquery_write: Any, stream: str, appends: Appends
) -> None:
    appends.append([proto_row("a"), proto_row("b")])
    for _ in range(2):
        assert bigquery_write.finalize_write_stream(name=stream, retry=None).row_count == 2


def test_a_finalized_stream_takes_no_more(
    bigquery_rest: Any, bigquery_table: Any, bigquery_write: Any, stream: str, appends: Appends
) -> None:
    appends.append([proto_row("a")], 0)
    bigquery_write.finalize_write_stream(name=stream, retry=None)
    answer = appends.append([proto_row("b")], 1)
    assert answer.error.code in (code_pb2.INVALID_ARGUMENT, code_pb2.FAILED_PRECONDITION)
    assert storage_code(answer) == "STREAM_FINALIZED"
    assert event_ids(bigquery_rest, bigquery_table) == ["a"]


def test_the_default_stream_cannot_be_finalized(bigquery_write: Any, bigquery_table: Any) -> None:
    name = f"{path_of(bigquery_table)}/streams/_default"
    with pytest.raises(InvalidArgument):
        bigquery_write.finalize_write_stream(name=name, retry=None)


# --- rows -----------------------------------------------------------------------------------------


def test_appended_rows_are_visible_at_once_in_the_types_of_their_columns(
    bigquery_rest: Any, bigquery_table: Any, appends: Appends
) -> None:
    row = proto_row(
        "a",
        event_time=micros("2026-11-21T03:00:00.000001+00:00"),
        attributes=json.dumps({"unit": "bar"}),
        number=-(2**63),
        good=False,
        raw=b"\x00\xff",
        day=(date(2026, 11, 21) - date(1970, 1, 1)).days,
    )
    appends.append([row, proto_row("b")])
    first, second = bigquery_rest.list_rows(bigquery_table)
    assert dict(first) == {
        "event_id": "a",
        "event_time": datetime(2026, 11, 21, 3, 0, 0, 1, tzinfo=UTC),
        "value": 1.5,
        "attributes": {"unit": "bar"},
        "number": -(2**63),
        "good": False,
        "raw": b"\x00\xff",
        "day": date(2026, 11, 21),
    }
    assert second["attributes"] is None
    assert second["good"] is None


def test_zero_and_empty_are_values_and_not_missing(
    bigquery_rest: Any, bigquery_table: Any, appends: Appends
) -> None:
    answer = appends.append([proto_row("", event_time=0, value=0.0, number=0)])
    assert not answer.error.code
    [row] = bigquery_rest.list_rows(bigquery_table)
    assert (row["event_id"], row["value"], row["number"]) == ("", 0.0, 0)
    assert row["event_time"] == datetime(1970, 1, 1, tzinfo=UTC)


def test_the_default_stream_appends_without_offsets(
    bigquery_rest: Any, bigquery_table: Any, by_default: Appends
) -> None:
    for name in ("a", "b"):
        answer = by_default.append([proto_row(name)])
        assert "append_result" in answer
        assert "offset" not in answer.append_result
    assert event_ids(bigquery_rest, bigquery_table) == ["a", "b"]
    assert by_default.append([proto_row("c")], 2).error.code == code_pb2.INVALID_ARGUMENT


def test_the_short_name_of_the_default_stream_is_known(
    bigquery_rest: Any, bigquery_table: Any, bigquery_write: Any
) -> None:
    with Appends(bigquery_write, f"{path_of(bigquery_table)}/_default") as connection:
        assert not connection.append([proto_row("a")]).error.code
    assert event_ids(bigquery_rest, bigquery_table) == ["a"]


@pytest.mark.parametrize(
    "changes",
    [
        {"event_id": None},
        {"event_time": None},
        {"value": None},
        {"attributes": "{not json"},
        {"attributes": ""},
        {"event_time": 253_402_300_800_000_000},
        {"event_time": -62_135_596_800_000_001},
        {"day": 2**31 - 1},
    ],
)
def test_one_bad_row_is_named_and_keeps_all_out(
    bigquery_rest: Any, bigquery_table: Any, appends: Appends, changes: dict[str, Any]
) -> None:
    answer = appends.append([proto_row("a"), proto_row("b", **changes), proto_row("c")], 0)
    assert answer.error.code == code_pb2.INVALID_ARGUMENT
    [error] = answer.row_errors
    assert (error.index, error.code) == (1, types.RowError.RowErrorCode.FIELDS_ERROR)
    assert error.message
    assert event_ids(bigquery_rest, bigquery_table) == []


def test_every_bad_row_is_named(appends: Appends) -> None:
    bad = proto_row("x", value=None)
    answer = appends.append([bad, proto_row("a"), bad], 0)
    assert [error.index for error in answer.row_errors] == [0, 2]


def test_bytes_that_are_no_row_are_a_row_error(appends: Appends) -> None:
    broken = b"\x0a\xff"
    not_utf8 = proto_row("").replace(b"\x0a\x00", b"\x0a\x02\xff\xfe")
    no_json = proto_row("a", attributes="{}").replace(b"{}", b"\xff\xfe")
    answer = appends.append([broken, not_utf8, no_json], 0)
    assert [error.index for error in answer.row_errors] == [0, 1, 2]


def test_after_a_row_error_the_offset_is_free_on_the_same_connection(
    bigquery_rest: Any, bigquery_table: Any, appends: Appends
) -> None:
    appends.append([proto_row("a"), proto_row("b", value=None)], 0)
    assert appends.append([proto_row("a")], 0).append_result.offset == 0
    assert event_ids(bigquery_rest, bigquery_table) == ["a"]


def test_what_is_not_a_number_is_refused_as_it_cannot_be_kept_here(
    appends: Appends, bigquery_inside: Inside
) -> None:
    assert len(appends.append([proto_row("a", value=float("nan"))]).row_errors) == 1


# --- offsets --------------------------------------------------------------------------------------


def test_rows_go_to_the_offset_that_is_the_streams_end(
    bigquery_rest: Any, bigquery_table: Any, appends: Appends
) -> None:
    assert appends.append([proto_row("a"), proto_row("b")], 0).append_result.offset == 0
    assert appends.append([proto_row("c")], 2).append_result.offset == 2
    assert appends.append([proto_row("d")]).append_result.offset == 3
    assert event_ids(bigquery_rest, bigquery_table) == ["a", "b", "c", "d"]


def test_an_offset_that_is_taken_already_exists(
    bigquery_rest: Any, bigquery_table: Any, appends: Appends
) -> None:
    appends.append([proto_row("a"), proto_row("b")], 0)
    for offset in (0, 1):
        answer = appends.append([proto_row("c")], offset)
        assert answer.error.code == code_pb2.ALREADY_EXISTS
        assert storage_code(answer) == "OFFSET_ALREADY_EXISTS"
    assert event_ids(bigquery_rest, bigquery_table) == ["a", "b"]


def test_an_offset_beyond_the_end_is_out_of_range(
    bigquery_rest: Any, bigquery_table: Any, appends: Appends
) -> None:
    answer = appends.append([proto_row("a")], 1)
    assert answer.error.code == code_pb2.OUT_OF_RANGE
    assert storage_code(answer) == "OFFSET_OUT_OF_RANGE"
    assert event_ids(bigquery_rest, bigquery_table) == []


def test_a_repetition_is_told_by_its_offset_on_another_connection_too(
    bigquery_write: Any, stream: str, appends: Appends
) -> None:
    appends.append([proto_row("a")], 0)
    with Appends(bigquery_write, stream) as other:
        assert other.append([proto_row("a")], 0).error.code == code_pb2.ALREADY_EXISTS
        assert other.append([proto_row("b")], 1).append_result.offset == 1


def test_streams_of_one_table_have_offsets_of_their_own(
    bigquery_write: Any, bigquery_table: Any, appends: Appends
) -> None:
    appends.append([proto_row("a")], 0)
    with Appends(bigquery_write, create(bigquery_write, bigquery_table)) as other:
        assert other.append([proto_row("b")], 0).append_result.offset == 0


# --- requests and schemas -------------------------------------------------------------------------


def test_the_first_request_has_to_name_the_stream(bigquery_write: Any) -> None:
    with Appends(bigquery_write, "") as connection, pytest.raises(InvalidArgument):
        connection.append([proto_row("a")])


def test_the_first_request_has_to_carry_the_schema(bigquery_write: Any, stream: str) -> None:
    with Appends(bigquery_write, stream) as connection:
        answer = connection.send(append_request([proto_row("a")], stream))
        assert answer.error.code == code_pb2.INVALID_ARGUMENT


def test_another_table_on_the_same_connection_needs_the_schema_again(
    bigquery_rest: Any, bigquery_table: Any, by_default: Appends
) -> None:
    other = new_table(bigquery_rest)
    name = f"{path_of(other)}/streams/_default"
    by_default.append([proto_row("a")])
    without = by_default.send(append_request([proto_row("b")], name))
    assert without.error.code == code_pb2.INVALID_ARGUMENT
    by_default.send(append_request([proto_row("c")], name, schema=schema_of()))
    assert event_ids(bigquery_rest, bigquery_table) == ["a"]
    assert event_ids(bigquery_rest, other) == ["c"]


def test_a_request_without_rows_is_refused(appends: Appends) -> None:
    assert appends.append([]).error.code == code_pb2.INVALID_ARGUMENT


def test_a_request_of_20_megabytes_is_refused_and_one_below_is_taken(
    bigquery_rest: Any, bigquery_table: Any, bigquery_write: Any, stream: str
) -> None:
    with Appends(bigquery_write, stream) as connection:
        try:
            code = connection.append([proto_row("x" * 21_000_000)], 0).error.code
        except ResourceExhausted:
            code = code_pb2.RESOURCE_EXHAUSTED
    assert code in (code_pb2.INVALID_ARGUMENT, code_pb2.RESOURCE_EXHAUSTED)
    with Appends(bigquery_write, stream) as connection:
        rows = [proto_row("x" * 1_000_000) for _ in range(19)]
        assert connection.append(rows, 0).append_result.offset == 0


def test_a_field_that_the_table_has_not_is_a_schema_mismatch_of_the_whole_request(
    bigquery_rest: Any, bigquery_table: Any, bigquery_write: Any, stream: str
) -> None:
    schema = schema_of({**WRITTEN, "elevation": _Proto.TYPE_DOUBLE})
    with Appends(bigquery_write, stream) as connection:
        answer = connection.send(append_request([proto_row("a")], stream, 0, schema))
    assert answer.error.code == code_pb2.INVALID_ARGUMENT
    assert storage_code(answer) == "SCHEMA_MISMATCH_EXTRA_FIELDS"
    assert list(answer.row_errors) == []
    assert event_ids(bigquery_rest, bigquery_table) == []


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("value", _Proto.TYPE_STRING),
        ("event_time", _Proto.TYPE_DOUBLE),
        ("attributes", _Proto.TYPE_BYTES),
        ("number", _Proto.TYPE_BOOL),
    ],
)
def test_a_field_of_another_type_is_refused_with_the_whole_request(
    bigquery_write: Any, stream: str, column: str, kind: int
) -> None:
    schema = schema_of({**WRITTEN, column: kind})
    with Appends(bigquery_write, stream) as connection:
        answer = connection.send(append_request([proto_row("a")], stream, 0, schema))
    assert answer.error.code == code_pb2.INVALID_ARGUMENT
    assert column in answer.error.message
    assert list(answer.row_errors) == []


def test_a_repeated_field_is_refused(bigquery_write: Any, stream: str) -> None:
    schema = schema_of()
    schema.field[0].label = _Proto.LABEL_REPEATED
    with Appends(bigquery_write, stream) as connection:
        answer = connection.send(append_request([proto_row("a")], stream, 0, schema))
    assert answer.error.code == code_pb2.INVALID_ARGUMENT


def test_a_schema_that_is_no_descriptor_is_refused(bigquery_write: Any, stream: str) -> None:
    schema = schema_of()
    schema.field[1].number = schema.field[0].number
    with Appends(bigquery_write, stream) as connection:
        answer = connection.send(append_request([proto_row("a")], stream, 0, schema))
    assert answer.error.code == code_pb2.INVALID_ARGUMENT


def test_a_writer_may_leave_nullable_columns_out_of_its_schema(
    bigquery_rest: Any, bigquery_table: Any, bigquery_write: Any, stream: str
) -> None:
    few = {name: WRITTEN[name] for name in ("value", "event_time", "event_id")}
    row = message_class(schema_of(few))(event_id="a", event_time=0, value=2.5).SerializeToString()
    with Appends(bigquery_write, stream) as connection:
        answer = connection.send(append_request([row], stream, 0, schema_of(few)))
    assert not answer.error.code
    [found] = bigquery_rest.list_rows(bigquery_table)
    assert (found["event_id"], found["value"], found["number"]) == ("a", 2.5, None)


def test_a_column_added_while_streaming_is_told_and_can_then_be_written(
    bigquery_rest: Any, bigquery_table: Any, stream: str, appends: Appends, bigquery_inside: Inside
) -> None:
    # The service itself tells within minutes; the local one with the next append.
    assert "updated_schema" not in appends.append([proto_row("a")])
    bigquery_table.schema = [*COLUMNS, bigquery.SchemaField("unit", "STRING")]
    bigquery_rest.update_table(bigquery_table, ["schema"])
    told = appends.append([proto_row("b")])
    assert [column.name for column in told.updated_schema.fields][-1] == "unit"
    assert "updated_schema" not in appends.append([proto_row("c")])
    wider = schema_of({**WRITTEN, "unit": _Proto.TYPE_STRING})
    row = proto_row("d") + message_class(wider)(unit="bar").SerializeToString()
    assert not appends.send(append_request([row], stream, schema=wider)).error.code
    units = [row["unit"] for row in bigquery_rest.list_rows(bigquery_table)]
    assert units == [None, None, None, "bar"]


def test_a_column_removed_while_streaming_is_a_schema_mismatch(
    bigquery_rest: Any, bigquery_table: Any, appends: Appends, bigquery_inside: Inside
) -> None:
    appends.append([proto_row("a")])
    bigquery_table.schema = COLUMNS[:-1]
    bigquery_rest.update_table(bigquery_table, ["schema"])
    answer = appends.append([proto_row("b")])
    assert storage_code(answer) == "SCHEMA_MISMATCH_EXTRA_FIELDS"
    assert event_ids(bigquery_rest, bigquery_table) == ["a"]


def test_a_stream_of_a_deleted_table_is_gone(
    bigquery_rest: Any, bigquery_table: Any, bigquery_write: Any, stream: str
) -> None:
    bigquery_rest.delete_table(bigquery_table)
    with pytest.raises(NotFound):
        bigquery_write.get_write_stream(name=stream, retry=None)


def test_a_type_changed_behind_the_writers_back_is_refused(
    bigquery_table: Any, appends: Appends, bigquery_inside: Inside
) -> None:
    appends.append([proto_row("a")])
    columns = [dict(column.to_api_repr()) for column in COLUMNS]
    columns[2]["type"] = "STRING"
    id_ = f"{PROJECT}.{bigquery_table.dataset_id}.{bigquery_table.table_id}"
    bigquery_inside.tables.set_schema(id_, {"fields": columns})
    answer = appends.append([proto_row("b")])
    assert answer.error.code == code_pb2.INVALID_ARGUMENT
    assert "value" in answer.error.message
