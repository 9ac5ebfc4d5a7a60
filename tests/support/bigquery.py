"""A BigQuery to run tests against, and Google's own clients for it."""

from __future__ import annotations

import queue
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import grpc
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import (
    BigQueryWriteGrpcTransport,
)
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from localgcp.schema import EPOCH

PROJECT = "contract-project"
COLUMNS = [
    bigquery.SchemaField("event_id", "STRING", "REQUIRED"),
    bigquery.SchemaField("event_time", "TIMESTAMP", "REQUIRED"),
    bigquery.SchemaField("value", "FLOAT64", "REQUIRED"),
    bigquery.SchemaField("attributes", "JSON"),
    bigquery.SchemaField("number", "INT64"),
    bigquery.SchemaField("good", "BOOL"),
    bigquery.SchemaField("raw", "BYTES"),
    bigquery.SchemaField("day", "DATE"),
]
_Proto = descriptor_pb2.FieldDescriptorProto
WRITTEN = {
    "event_id": _Proto.TYPE_STRING,
    "event_time": _Proto.TYPE_INT64,
    "value": _Proto.TYPE_DOUBLE,
    "attributes": _Proto.TYPE_STRING,
    "number": _Proto.TYPE_INT64,
    "good": _Proto.TYPE_BOOL,
    "raw": _Proto.TYPE_BYTES,
    "day": _Proto.TYPE_INT32,
}
ANSWER_SECONDS = 15.0


@dataclass(frozen=True)
class Service:
    """Where it listens: `http://host:port` and `host:port`."""

    rest: str
    grpc: str


def rest_client(service: Service) -> Any:
    return bigquery.Client(
        project=PROJECT,
        credentials=AnonymousCredentials(),
        client_options=ClientOptions(api_endpoint=service.rest),
    )


def write_client(service: Service) -> Any:
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    channel = grpc.insecure_channel(service.grpc, options=unlimited)
    return BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel))


def new_table(client: Any, columns: Any = COLUMNS) -> Any:
    """A table with a name of its own, partitioned and clustered, in a dataset of its own."""
    name = f"d{uuid.uuid4().hex}"
    client.create_dataset(name, retry=None)
    table = bigquery.Table(f"{PROJECT}.{name}.readings", schema=columns)
    table.time_partitioning = bigquery.TimePartitioning(field="event_time")
    table.clustering_fields = ["event_id"]
    return client.create_table(table, retry=None)


def micros(text: str) -> int:
    """Microseconds since 1970 of an ISO time."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


def json_row(event_id: str, /, **changes: Any) -> dict[str, Any]:
    """A row for insertAll that fits."""
    row = {"event_id": event_id, "event_time": "2026-11-21T03:00:00.000001Z", "value": 1.5}
    return {key: value for key, value in {**row, **changes}.items() if value is not None}


def schema_of(fields: Mapping[str, int] = WRITTEN) -> Any:
    """A writer's schema with these fields, in this order."""
    descriptor = descriptor_pb2.DescriptorProto(name="Row")
    for number, (name, kind) in enumerate(fields.items(), 1):
        descriptor.field.add(name=name, number=number, type=kind, label=_Proto.LABEL_OPTIONAL)
    return descriptor


def message_class(descriptor: Any) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="row.proto", package="t", syntax="proto2")
    file.message_type.add().CopyFrom(descriptor)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Row"))


_Row = message_class(schema_of())


def proto_row(event_id: str, /, **changes: Any) -> bytes:
    """A serialized row that fits; a change to None leaves the field away."""
    row = {"event_id": event_id, "event_time": micros("2026-11-21T03:00:00+00:00"), "value": 1.5}
    given = {key: value for key, value in {**row, **changes}.items() if value is not None}
    data: bytes = _Row(**given).SerializeToString()
    return data


def append_request(
    rows: list[bytes], stream: str = "", offset: int | None = None, schema: Any = None
) -> Any:
    """An AppendRowsRequest. Without `stream` and `schema` it is one that follows another."""
    request = types.AppendRowsRequest.pb()(write_stream=stream)
    if schema is not None:
        request.proto_rows.writer_schema.proto_descriptor.CopyFrom(schema)
    if offset is not None:
        request.offset.value = offset
    request.proto_rows.rows.serialized_rows.extend(rows)
    return types.AppendRowsRequest.wrap(request)


def storage_code(answer: Any) -> str:
    """The name of the StorageError in an answer's error; "" without one."""
    for detail in answer.error.details:
        error = types.StorageError.pb()()
        if detail.Unpack(error):
            return str(types.StorageError.StorageErrorCode(error.code).name)
    return ""


class Appends:
    """One AppendRows connection: a request, its answer. Raises what the client library raises;
    StopIteration where the service ended the call without an answer."""

    def __init__(self, client: Any, stream: str) -> None:
        self._stream = stream
        self._client = client
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: Any = None

    def __enter__(self) -> Appends:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)

    def append(self, rows: list[bytes], offset: int | None = None) -> Any:
        """Append rows, with stream and schema in the first request only."""
        if self._answers is None:
            return self.send(append_request(rows, self._stream, offset, schema_of()))
        return self.send(append_request(rows, offset=offset))

    def send(self, request: Any) -> Any:
        self._requests.put(request)
        if self._answers is None:
            self._answers = iter(
                self._client.append_rows(self._sent(), retry=None, timeout=ANSWER_SECONDS)
            )
        return next(self._answers)

    def _sent(self) -> Iterator[Any]:
        return iter(self._requests.get, None)
