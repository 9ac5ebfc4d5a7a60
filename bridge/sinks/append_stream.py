"""One connection to the Storage Write API: a request goes out, its answer comes in, in order.

A connection is used for one append at a time. Any failure ends it; the next append opens another.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bridge.reading import Entry
from bridge.sinks.schema import COLUMNS

ANSWER_SECONDS = 15.0
TRACE_ID = "fcts-bridge"
Request, Response = types.AppendRowsRequest.pb(), types.AppendRowsResponse.pb()

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


class AnswerLate(Exception):
    """No answer within the deadline; the append may have been applied or not."""


class AppendStream:
    """Opened for one write stream. `append` blocks up to ANSWER_SECONDS; `close` may be called
    from any thread and makes a blocked `append` end."""

    def __init__(self, channel: Any, stream: str) -> None:
        self._stream = stream
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._first = True
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

    def append(self, offset: int, rows: Sequence[bytes]) -> Any:
        """Send one append and wait for its answer. Raises grpc.RpcError when the connection
        ended, AnswerLate when no answer came."""
        self._requests.put(self._request(offset, rows))
        try:
            answer = self._answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise AnswerLate(f"no answer within {ANSWER_SECONDS:g} s") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

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
        try:
            for answer in self._answer_iterator():
                self._answers.put(answer)
            self._answers.put(AnswerLate("the service closed the connection"))
        except grpc.RpcError as error:
            self._answers.put(error)

    def _answer_iterator(self) -> Iterator[Any]:
        yield from self._call

    def close(self) -> None:
        """Idempotent."""
        self._requests.put(None)
        with contextlib.suppress(grpc.RpcError):
            self._call.cancel()
