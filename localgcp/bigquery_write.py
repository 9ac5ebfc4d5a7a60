"""The Storage Write API over gRPC: default and committed streams, offsets, finalize, row errors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from google.rpc import code_pb2

from localgcp import grpc_faults
from localgcp.faults import Faults
from localgcp.schema import Misfit, check_stored
from localgcp.tables import NotFound, OffsetError, StreamOver, Table, Tables

SERVICE = "google.cloud.bigquery.storage.v1.BigQueryWrite"
MAX_REQUEST = 20_000_000
# Calls that hang by a fault keep a worker each.
WORKERS = 32

_Codes = types.StorageError.StorageErrorCode
_Request, _Response = types.AppendRowsRequest.pb(), types.AppendRowsResponse.pb()
_StorageError = types.StorageError.pb()
_Stream = types.WriteStream.pb()
_RowError = types.RowError.pb()
_Proto = descriptor_pb2.FieldDescriptorProto
_STRINGS = frozenset({_Proto.TYPE_STRING})
_FITS = {
    "STRING": _STRINGS,
    "JSON": _STRINGS,
    "DATE": frozenset({_Proto.TYPE_INT32, _Proto.TYPE_INT64}),
    "BYTES": frozenset({_Proto.TYPE_BYTES}),
    "FLOAT": frozenset({_Proto.TYPE_DOUBLE, _Proto.TYPE_FLOAT}),
    "BOOLEAN": frozenset({_Proto.TYPE_BOOL}),
    "INTEGER": frozenset({_Proto.TYPE_INT64, _Proto.TYPE_INT32, _Proto.TYPE_UINT32}),
    "TIMESTAMP": frozenset({_Proto.TYPE_INT64}),
}


class Refused(Exception):
    """An answer that is no success: a google.rpc code, and a StorageError code if it has one."""

    def __init__(self, code: int, message: str, storage: int = 0, rows: tuple[Any, ...] = ()):
        super().__init__(message)
        self.code, self.storage, self.rows = code, storage, rows


class Writer:
    """One connection's writer schema, made into a message class."""

    def __init__(self, descriptor: Any, table: Table) -> None:
        self.descriptor = descriptor
        self.columns_of = table.fields
        self._columns = {field.name.lower(): field for field in table.fields}
        self._require_fit()
        file = descriptor_pb2.FileDescriptorProto(name="w.proto", package="w", syntax="proto2")
        file.message_type.add().CopyFrom(descriptor)
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        self._row = message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"w.{descriptor.name}")
        )
        written = {item.name.lower(): item.name for item in descriptor.field}
        self._order = [(field, written.get(field.name.lower())) for field in table.fields]

    def _require_fit(self) -> None:
        for item in self.descriptor.field:
            column = self._columns.get(item.name.lower())
            if column is None:
                raise Refused(
                    code_pb2.INVALID_ARGUMENT,
                    f"Input schema has more fields than BigQuery schema, extra fields: {item.name}",
                    _Codes.SCHEMA_MISMATCH_EXTRA_FIELDS,
                )
            if item.type not in _FITS[column.type]:
                raise Refused(
                    code_pb2.INVALID_ARGUMENT,
                    f"The proto field mismatched with BigQuery field at {item.name}",
                )

    def rows(self, table: Table, serialized: Any) -> list[tuple[Any, ...]]:
        """All rows in stored form, or Refused with each bad one named."""
        rows, errors = [], []
        for index, data in enumerate(serialized):
            try:
                row = self._stored(data)
                if table.refused and (why := table.refuses(self._named(row))):
                    raise Misfit(why)
                rows.append(row)
            except Misfit as error:
                errors.append(
                    _RowError(index=index, code=_RowError.FIELDS_ERROR, message=str(error))
                )
        if errors:
            message = "Errors found while processing rows. Please refer to the row_errors field"
            raise Refused(code_pb2.INVALID_ARGUMENT, message, rows=tuple(errors))
        return rows

    def _stored(self, data: bytes) -> tuple[Any, ...]:
        try:
            row = self._row.FromString(data)
        except Exception as error:  # noqa: BLE001 - whatever protobuf says of foreign bytes
            raise Misfit(f"not a row of the writer schema: {error}") from None
        return tuple(
            check_stored(field, getattr(row, name) if name and row.HasField(name) else None)
            for field, name in self._order
        )

    def _named(self, row: tuple[Any, ...]) -> dict[str, Any]:
        return {field.name: value for (field, _), value in zip(self._order, row, strict=True)}


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
                ("grpc.max_receive_message_length", MAX_REQUEST + 1024),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._server.add_generic_rpc_handlers((self._handlers(),))
        self.port = self._server.add_insecure_port(f"{host}:{port}")

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
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

    def _unary(self, call: str, subject: str, context: Any, serve: Any) -> Any:
        try:
            return grpc_faults.apply(self._faults, call, subject, context, serve)
        except NotFound as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))

    def _create(self, request: Any, context: Any) -> Any:
        def serve() -> Any:
            kind = request.write_stream.type_
            if kind != _Stream.COMMITTED:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "only COMMITTED is served here")
            name = self._tables.create_stream(table_id(request.parent))
            return _Stream(name=name, type_=kind)

        return self._unary("storage.CreateWriteStream", request.parent, context, serve)

    def _get(self, request: Any, context: Any) -> Any:
        def serve() -> Any:
            self._tables.stream(request.name)
            return _Stream(name=request.name, type_=_Stream.COMMITTED)

        return self._unary("storage.GetWriteStream", request.name, context, serve)

    def _finalize(self, request: Any, context: Any) -> Any:
        def serve() -> Any:
            rows = self._tables.finalize(request.name)
            return types.FinalizeWriteStreamResponse.pb()(row_count=rows)

        return self._unary("storage.FinalizeWriteStream", request.name, context, serve)

    # --- appends ----------------------------------------------------------------------------------

    def _append_rows(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        stream = ""
        writer: Writer | None = None
        for request in requests:
            stream = request.write_stream or stream
            if not stream:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "write_stream is not set")
            taken = self._faults.take("storage.AppendRows", stream)
            if taken is not None and taken[1].kind == "delay":
                time.sleep(taken[1].seconds)
                taken = None
            if taken is not None and taken[1].kind != "answer_lost":
                if taken[1].kind == "close_stream":
                    return
                if taken[1].kind == "hang":
                    grpc_faults.hang(self._faults, taken[0], context)
                grpc_faults.refuse(context, taken[1])
            try:
                writer, answer = self._append(stream, writer, request)
            except Refused as refused:
                answer = _refusal(stream, refused)
            if taken is not None:
                grpc_faults.refuse(context, taken[1])
            yield answer

    def _append(self, stream: str, writer: Writer | None, request: Any) -> tuple[Writer, Any]:
        table = self._table_of(stream)
        if request.ByteSize() > MAX_REQUEST:
            raise Refused(code_pb2.INVALID_ARGUMENT, "the request is larger than 20 MB")
        if request.proto_rows.HasField("writer_schema"):
            writer = Writer(request.proto_rows.writer_schema.proto_descriptor, table)
        if writer is None:
            raise Refused(code_pb2.INVALID_ARGUMENT, "the first request has no writer schema")
        if writer.columns_of is not table.fields:
            writer = Writer(writer.descriptor, table)
        offset = request.offset.value if request.HasField("offset") else None
        self._require_place(stream, offset)
        rows = writer.rows(table, request.proto_rows.rows.serialized_rows)
        at = self._write(stream, table, offset, rows)
        answer = _Response(write_stream=stream)
        if at is None:
            answer.append_result.SetInParent()
        else:
            answer.append_result.offset.value = at
        return writer, answer

    def _table_of(self, stream: str) -> Table:
        parent, _, name = stream.partition("/streams/")
        try:
            if not name and not stream.endswith("/_default"):
                raise NotFound(f"no such stream: {stream}")
            if name in ("_default", ""):
                return self._tables.table(
                    table_id(parent.removesuffix("/_default")), for_writing=True
                )
            id_, _, _ = self._tables.stream(stream)
        except NotFound as error:
            raise Refused(code_pb2.NOT_FOUND, str(error), _Codes.STREAM_NOT_FOUND) from None
        try:
            return self._tables.table(id_, for_writing=True)
        except NotFound as error:
            raise Refused(code_pb2.NOT_FOUND, str(error), _Codes.TABLE_NOT_FOUND) from None

    def _require_place(self, stream: str, offset: int | None) -> None:
        """The service looks at the offset before it looks at the rows."""
        if _is_default(stream):
            if offset is not None:
                raise Refused(code_pb2.INVALID_ARGUMENT, "the default stream takes no offsets")
            return
        _, end, finalized = self._tables.stream(stream)
        if finalized:
            raise _over(stream)
        if offset is not None and offset != end:
            raise _misplaced(offset, end)

    def _write(
        self, stream: str, table: Table, offset: int | None, rows: list[tuple[Any, ...]]
    ) -> int | None:
        if _is_default(stream):
            self._tables.append(table, rows)
            return None
        try:
            return self._tables.append_at(stream, table, offset, rows)
        except StreamOver:
            raise _over(stream) from None
        except OffsetError as error:
            raise _misplaced(error.offset, error.end) from None


def table_id(parent: str) -> str:
    """`projects/P/datasets/D/tables/T` as `P.D.T`. Raises NotFound."""
    parts = parent.split("/")
    if len(parts) != 6 or parts[::2] != ["projects", "datasets", "tables"]:
        raise NotFound(f"not a table's name: {parent}")
    return ".".join(parts[1::2])


def _is_default(stream: str) -> bool:
    return stream.endswith("/_default")


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
