"""One connection to the Storage Write API: a request goes out, its answer comes in, in order.

A connection is used for one append at a time. Any failure ends it; the next append opens another.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Sequence
from typing import Any

import grpc
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import status_pb2
from grpc_status import rpc_status

from bridge.reading import Entry
from bridge.sinks.schema import COLUMNS

TRACE_ID = "fcts-bridge"
Request, Response = types.AppendRowsRequest.pb(), types.AppendRowsResponse.pb()
StorageCode = types.StorageError.StorageErrorCode
_StorageError = types.StorageError.pb()

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "STRING": _Field.TYPE_STRING,
    "JSON": _Field.TYPE_STRING,
    "TIMESTAMP": _Field.TYPE_INT64,  # microseconds since 1970
    "FLOAT": _Field.TYPE_DOUBLE,
}


def _row_descriptor() -> Any:
    message = descriptor_pb2.DescriptorProto(name="Row")
    for number, column in enumerate(COLUMNS, 1):
        message.field.add(
            name=column.name,
            number=number,
            type=_TYPES[column.type],
            label=_Field.LABEL_OPTIONAL,
        )
    return message


def _row_class(message: Any) -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="fcts_bridge_row.proto", package="fcts_bridge", syntax="proto2", message_type=[message]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("fcts_bridge.Row"))


_DESCRIPTOR = _row_descriptor()
_Row = _row_class(_DESCRIPTOR)


def serialized_rows(batch: Sequence[Entry]) -> list[bytes]:
    """The batch as protobuf rows, in order."""
    return [_serialized(entry) for entry in batch]


def _serialized(entry: Entry) -> bytes:
    reading = entry.reading
    row = _Row(
        event_id=reading.event_id.hex(),
        site_code=reading.site,
        pi_tag=reading.pi_tag,
        sensor_id=reading.sensor_id,
        event_time=reading.event_us,
        value=reading.value,
        received_at=reading.received_us,
        mqtt_topic=reading.topic,
        attributes=reading.attributes,
    )
    data: bytes = row.SerializeToString()
    return data


class NoAnswer(Exception):
    """The connection ended, or the time did, without an answer: the append may have been applied
    or not. `reason`: a short, stable word."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Refusal(Exception):
    """An answer that is no success.

    code: the name of its google.rpc.Code; storage_code: its StorageErrorCode, 0 without one;
    row_errors: the rows it names, as RowError messages.
    """

    def __init__(self, status: Any, row_errors: Sequence[Any] = ()) -> None:
        super().__init__(status.message)
        self.code = _code(status.code)
        self.detail = str(status.message)
        self.row_errors = row_errors
        self.storage_code = _storage_code(status)


class AppendStream:
    """Opened for one write stream; opening does not block. `append` belongs to one thread;
    `close` may be called from any, and makes an `append` that waits end."""

    def __init__(self, channel: Any, stream: str, answer_seconds: float) -> None:
        self._stream = stream
        self._answer_seconds = answer_seconds
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._first = True
        self.over = False
        open_call = channel.stream_stream(
            "/google.cloud.bigquery.storage.v1.BigQueryWrite/AppendRows",
            request_serializer=Request.SerializeToString,
            response_deserializer=Response.FromString,
        )
        self._call = open_call(
            iter(self._requests.get, None),
            metadata=(("x-goog-request-params", f"write_stream={stream}"),),
        )
        threading.Thread(target=self._listen, name="bigquery-answers", daemon=True).start()

    def append(self, offset: int, rows: Sequence[bytes]) -> None:
        """Send one append and wait for its answer, up to `answer_seconds`. Raises Refusal for an
        answer that is no success (the one that ends the connection included), NoAnswer."""
        self._requests.put(self._request(offset, rows))
        try:
            answer = self._answers.get(timeout=self._answer_seconds)
        except queue.Empty:
            late = f"no answer within {self._answer_seconds:g} s"
            raise NoAnswer("deadline_exceeded", late) from None
        if isinstance(answer, Exception):
            raise answer
        if answer.HasField("error"):
            raise Refusal(answer.error, answer.row_errors)

    def _request(self, offset: int, rows: Sequence[bytes]) -> Any:
        request = Request(trace_id=TRACE_ID)
        request.offset.value = offset
        request.proto_rows.rows.serialized_rows.extend(rows)
        if self._first:
            request.write_stream = self._stream
            request.proto_rows.writer_schema.proto_descriptor.CopyFrom(_DESCRIPTOR)
            self._first = False
        return request

    def _listen(self) -> None:
        end: Exception = NoAnswer("connection_closed", "the service closed the connection")
        try:
            for answer in self._call:
                self._answers.put(answer)
        except grpc.RpcError as error:
            end = Refusal(_status(error))
        # An idle connection is closed by the service: told before the next append is sent on it.
        self.over = True
        self._answers.put(end)

    def close(self) -> None:
        """Idempotent."""
        self._requests.put(None)
        with contextlib.suppress(grpc.RpcError):
            self._call.cancel()


def _status(error: Any) -> Any:
    """The google.rpc.Status that ended a call."""
    status = rpc_status.from_call(error)
    if status is not None:
        return status
    code = error.code()
    return status_pb2.Status(code=code.value[0], message=error.details() or str(code))


def _code(number: int) -> str:
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return str(code.name)
    return "UNKNOWN"


def _storage_code(status: Any) -> int:
    for detail in status.details:
        error = _StorageError()
        if detail.Is(error.DESCRIPTOR):
            detail.Unpack(error)
            return int(error.code)
    return 0
