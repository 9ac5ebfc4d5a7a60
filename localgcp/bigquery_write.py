"""The Storage Write API over gRPC: default and committed streams, offsets, finalize, row errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import any_pb2
from google.rpc import code_pb2

from localgcp import grpc_faults
from localgcp.faults import Faults
from localgcp.tables import NotFound, OffsetError, StreamOver, Table, Tables
from localgcp.write_rows import Refused, Stored, Writer

SERVICE = "google.cloud.bigquery.storage.v1.BigQueryWrite"
MAX_REQUEST = 20_000_000
# Every connection keeps a worker, and so does a call that hangs by a fault.
WORKERS = 64

_Codes = types.StorageError.StorageErrorCode
_Request, _Response = types.AppendRowsRequest.pb(), types.AppendRowsResponse.pb()
_StorageError = types.StorageError.pb()
_Stream = types.WriteStream.pb()
_View = types.WriteStreamView
_Schema = types.TableSchema.pb()
_Column = types.TableFieldSchema.pb()
_COLUMN_TYPES = {"FLOAT": _Column.DOUBLE, "INTEGER": _Column.INT64, "BOOLEAN": _Column.BOOL}


class StorageWriteServer:
    """Serves one `Tables`. Use as a context manager, or start and stop."""

    def __init__(
        self, tables: Tables, faults: Faults, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._tables = tables
        self._faults = faults
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="storage-write"),
            options=[
                # More than is allowed, so that too much is refused in words.
                ("grpc.max_receive_message_length", 2 * MAX_REQUEST),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._server.add_generic_rpc_handlers((self._handlers(),))
        self.port = self._server.add_insecure_port(f"{host}:{port}")

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        """Close every connection; returns when nothing is served any more."""
        self._server.stop(0).wait()

    def __enter__(self) -> StorageWriteServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _handlers(self) -> grpc.GenericRpcHandler:
        def unary(method: Any, request: Any, response: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                method, request.pb().FromString, response.pb().SerializeToString
            )

        methods = {
            "CreateWriteStream": unary(
                self._create, types.CreateWriteStreamRequest, types.WriteStream
            ),
            "GetWriteStream": unary(self._get, types.GetWriteStreamRequest, types.WriteStream),
            "FinalizeWriteStream": unary(
                self._finalize, types.FinalizeWriteStreamRequest, types.FinalizeWriteStreamResponse
            ),
            "AppendRows": grpc.stream_stream_rpc_method_handler(
                self._append_rows, _Request.FromString, _Response.SerializeToString
            ),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    # --- unary calls ------------------------------------------------------------------------------

    def _unary(self, call: str, subject: str, context: Any, serve: Callable[[], Any]) -> Any:
        def refused_or_served() -> Any:
            try:
                return serve()
            except NotFound as error:
                return context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            except ValueError as error:
                return context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

        return grpc_faults.apply(self._faults, call, subject, context, refused_or_served)

    def _create(self, request: Any, context: Any) -> Any:
        def serve() -> Any:
            kind = request.write_stream.type_
            if kind != _Stream.COMMITTED:
                raise ValueError("write streams other than COMMITTED are not supported here")
            id_ = table_id(request.parent)
            table = self._tables.table(id_, for_writing=True)
            return _stream(self._tables.create_stream(id_), table)

        return self._unary("storage.CreateWriteStream", request.parent, context, serve)

    def _get(self, request: Any, context: Any) -> Any:
        def serve() -> Any:
            table = self._tables.table(self._table_id_of(request.name))
            return _stream(request.name, table if request.view == _View.FULL else None)

        return self._unary("storage.GetWriteStream", request.name, context, serve)

    def _table_id_of(self, stream: str) -> str:
        return _default_table(stream) or self._tables.stream(stream)[0]

    def _finalize(self, request: Any, context: Any) -> Any:
        def serve() -> Any:
            if _default_table(request.name):
                raise ValueError("the default stream cannot be finalized")
            rows = self._tables.finalize(request.name)
            return types.FinalizeWriteStreamResponse.pb()(row_count=rows)

        return self._unary("storage.FinalizeWriteStream", request.name, context, serve)

    # --- appends ----------------------------------------------------------------------------------

    def _append_rows(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        connection = _Connection(self._tables)
        for request in requests:
            connection.turn_to(request)
            if not connection.stream:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "write_stream is not set")
            taken = self._faults.take("storage.AppendRows", connection.stream)
            if taken is None:
                yield connection.answer(request)
                continue
            number, fault = taken
            if fault.kind == "close_stream":
                return
            if fault.kind == "hang":
                grpc_faults.hang(self._faults, number, context)
            elif fault.kind == "delay":
                time.sleep(fault.seconds)
            if fault.kind in ("delay", "answer_lost"):
                answer = connection.answer(request)
            if fault.kind != "delay":
                grpc_faults.refuse(context, fault)
            yield answer


class _Connection:
    """What one AppendRows call remembers: its stream, its writer's schema, and the table's
    schema as the writer last heard of it."""

    def __init__(self, tables: Tables) -> None:
        self.stream = ""
        self._tables = tables
        self._writer: Writer | None = None
        self._told: list[Any] | None = None

    def turn_to(self, request: Any) -> None:
        """Later requests may omit the stream: it stays the same."""
        self.stream = request.write_stream or self.stream

    def answer(self, request: Any) -> Any:
        """Append, or say why not."""
        try:
            # One lock for schema, offset and rows, so that they speak of the same moment.
            with self._tables.lock:
                return self._append(request)
        except Refused as refused:
            return _refusal(self.stream, refused)

    def _append(self, request: Any) -> Any:
        table = self._table()
        if request.ByteSize() >= MAX_REQUEST:
            raise _invalid("AppendRows request too large: the limit is 20 MB")
        writer = self._writer_for(request, table)
        serialized = request.proto_rows.rows.serialized_rows
        if not serialized:
            raise _invalid("Rows must be specified")
        offset = request.offset.value if request.HasField("offset") else None
        self._require_place(offset)
        answer = _Response(write_stream=self.stream)
        self._write(table, offset, writer.rows(serialized), answer.append_result)
        if self._told is not table.fields:
            answer.updated_schema.CopyFrom(_schema(table))
            self._told = table.fields
        return answer

    def _writer_for(self, request: Any, table: Table) -> Writer:
        if request.proto_rows.HasField("writer_schema"):
            self._writer = Writer(request.proto_rows.writer_schema.proto_descriptor, table)
            self._told = table.fields
        elif self._writer is None or self._writer.table is not table:
            raise _invalid("a writer schema must come with the first request for a table")
        elif self._writer.fields is not table.fields:
            self._writer = Writer(self._writer.descriptor, table)
        return self._writer

    def _table(self) -> Table:
        try:
            id_ = _default_table(self.stream) or self._tables.stream(self.stream)[0]
        except NotFound as error:
            raise Refused(code_pb2.NOT_FOUND, str(error), _Codes.STREAM_NOT_FOUND) from None
        try:
            return self._tables.table(id_, for_writing=True)
        except NotFound as error:
            raise Refused(code_pb2.NOT_FOUND, str(error), _Codes.TABLE_NOT_FOUND) from None

    def _require_place(self, offset: int | None) -> None:
        """Before the rows are looked at: a repetition is told by its offset, whatever it holds."""
        if _default_table(self.stream):
            if offset is not None:
                raise _invalid("the default stream takes no offsets")
            return
        try:
            self._tables.require_end(self.stream, offset)
        except StreamOver:
            raise _over(self.stream) from None
        except OffsetError as error:
            raise _misplaced(error.offset, error.end) from None

    def _write(self, table: Table, offset: int | None, rows: list[Stored], result: Any) -> None:
        result.SetInParent()
        if _default_table(self.stream):
            self._tables.append(table, rows)
        else:
            # Cannot be elsewhere than at its end: the lock is held since `_require_place`.
            result.offset.value = self._tables.append_at(self.stream, table, offset, rows)


# --- names and resources --------------------------------------------------------------------------


def table_id(parent: str) -> str:
    """`projects/P/datasets/D/tables/T` as `P.D.T`. Raises NotFound."""
    parts = parent.split("/")
    if len(parts) != 6 or parts[::2] != ["projects", "datasets", "tables"]:
        raise NotFound(f"not a table's name: {parent}")
    return ".".join(parts[1::2])


def _default_table(stream: str) -> str:
    """The id of the table whose default stream this is; "" for another stream."""
    for ending in ("/streams/_default", "/_default"):
        if stream.endswith(ending):
            return table_id(stream.removesuffix(ending))
    return ""


def _stream(name: str, table: Table | None) -> Any:
    stream = _Stream(name=name, type_=_Stream.COMMITTED, write_mode=_Stream.INSERT)
    if table is not None:
        stream.table_schema.CopyFrom(_schema(table))
    return stream


def _schema(table: Table) -> Any:
    columns = [
        _Column(
            name=field.name,
            type_=_COLUMN_TYPES.get(field.type) or _Column.Type.Value(field.type),
            mode=_Column.Mode.Value(field.mode),
        )
        for field in table.fields
    ]
    return _Schema(fields=columns)


# --- refusals -------------------------------------------------------------------------------------


def _invalid(message: str) -> Refused:
    return Refused(code_pb2.INVALID_ARGUMENT, message)


def _over(stream: str) -> Refused:
    return Refused(
        code_pb2.INVALID_ARGUMENT, f"stream {stream} is finalized", _Codes.STREAM_FINALIZED
    )


def _misplaced(offset: int, end: int) -> Refused:
    if offset < end:
        return Refused(
            code_pb2.ALREADY_EXISTS,
            f"The offset is within stream, expected offset {end}, received {offset}",
            _Codes.OFFSET_ALREADY_EXISTS,
        )
    return Refused(
        code_pb2.OUT_OF_RANGE,
        f"The offset is beyond stream, expected offset {end}, received {offset}",
        _Codes.OFFSET_OUT_OF_RANGE,
    )


def _refusal(stream: str, refused: Refused) -> Any:
    answer = _Response(write_stream=stream)
    answer.error.code = refused.code
    answer.error.message = str(refused)
    answer.row_errors.extend(refused.rows)
    if refused.storage:
        detail = any_pb2.Any()
        detail.Pack(_StorageError(code=refused.storage, entity=stream, error_message=str(refused)))
        answer.error.details.append(detail)
    return answer
