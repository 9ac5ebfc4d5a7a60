"""Rows of a Storage Write request: the writer's schema against the table's, bytes into tuples."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from google.cloud.bigquery_storage_v1 import types
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from google.rpc import code_pb2

from localgcp.schema import FROM_PROTO, Field, Misfit, absent
from localgcp.tables import Table

_Codes = types.StorageError.StorageErrorCode
_RowError = types.RowError.pb()
_Proto = descriptor_pb2.FieldDescriptorProto
_FITS = {
    "STRING": {_Proto.TYPE_STRING},
    "JSON": {_Proto.TYPE_STRING},
    "DATE": {_Proto.TYPE_INT32, _Proto.TYPE_INT64},
    "BYTES": {_Proto.TYPE_BYTES},
    "FLOAT": {_Proto.TYPE_DOUBLE, _Proto.TYPE_FLOAT},
    "BOOLEAN": {_Proto.TYPE_BOOL},
    "INTEGER": {_Proto.TYPE_INT64, _Proto.TYPE_INT32, _Proto.TYPE_UINT32},
    "TIMESTAMP": {_Proto.TYPE_INT64},
}
Stored = tuple[Any, ...]
Convert = Callable[[Field, Any], Any]


class Refused(Exception):
    """An answer that is no success: a google.rpc code, a StorageError code if it has one, and
    the rows it is about, if any."""

    def __init__(
        self, code: int, message: str, storage: int = 0, rows: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(message)
        self.code, self.storage, self.rows = code, storage, rows


class Writer:
    """One writer's schema for one table, made into a message class. Raises Refused where they do
    not fit. Good for as long as the table keeps its `fields`."""

    def __init__(self, descriptor: Any, table: Table) -> None:
        self.descriptor = descriptor
        self.table = table
        self.fields = table.fields
        self._require_fit()
        self._row = _message_class(descriptor)
        self._plan = self._reading_plan()

    def _require_fit(self) -> None:
        columns = {field.name.lower(): field for field in self.fields}
        extra = [item.name for item in self.descriptor.field if item.name.lower() not in columns]
        if extra:
            raise Refused(
                code_pb2.INVALID_ARGUMENT,
                "Input schema has more fields than BigQuery schema, extra fields: "
                f"'{','.join(extra)}'",
                _Codes.SCHEMA_MISMATCH_EXTRA_FIELDS,
            )
        for item in self.descriptor.field:
            column = columns[item.name.lower()]
            if item.type not in _FITS[column.type] or item.label == _Proto.LABEL_REPEATED:
                raise Refused(
                    code_pb2.INVALID_ARGUMENT,
                    f"The proto field mismatched with BigQuery field at {item.name}, "
                    f"the BigQuery field type is {column.type}",
                )

    def _reading_plan(self) -> list[tuple[Field, str, Convert | None]]:
        """For each column: where the row has it ("": nowhere), and what makes its stored form."""
        written = {item.name.lower(): item.name for item in self.descriptor.field}
        return [
            (field, written.get(field.name.lower(), ""), FROM_PROTO.get(field.type))
            for field in self.fields
        ]

    def rows(self, serialized: Iterable[bytes]) -> list[Stored]:
        """All rows in stored form. Raises Refused with each bad one named."""
        rows, errors = [], []
        for index, data in enumerate(serialized):
            try:
                rows.append(self._stored(data))
            except Misfit as error:
                errors.append(
                    _RowError(index=index, code=_RowError.FIELDS_ERROR, message=str(error))
                )
        if errors:
            raise Refused(
                code_pb2.INVALID_ARGUMENT,
                "Errors found while processing rows. Please refer to the row_errors field "
                "for details. The list may not be complete because of the size limitations.",
                rows=tuple(errors),
            )
        return rows

    def _stored(self, data: bytes) -> Stored:
        try:
            row: Any = self._row.FromString(data)
            stored = tuple([self._value(row, *step) for step in self._plan])
        except DecodeError as error:
            raise Misfit(f"not a row of the writer schema: {error}") from None
        self.table.require_taken(stored)
        return stored

    @staticmethod
    def _value(row: Any, field: Field, name: str, convert: Convert | None) -> Any:
        if not name or not row.HasField(name):
            return absent(field)
        value = getattr(row, name)
        return value if convert is None else convert(field, value)


def _message_class(descriptor: Any) -> type[Any]:
    """Raises Refused for a descriptor that is not complete in itself."""
    # proto2, as the service reads it: there, a field of which nothing came is told from a zero.
    file = descriptor_pb2.FileDescriptorProto(name="w.proto", package="w", syntax="proto2")
    file.message_type.add().CopyFrom(descriptor)
    pool = descriptor_pool.DescriptorPool()
    try:
        pool.Add(file)
        found = pool.FindMessageTypeByName(f"w.{descriptor.name}")
    except (TypeError, KeyError) as error:
        raise Refused(
            code_pb2.INVALID_ARGUMENT, f"Invalid proto schema: {error or 'not complete in itself'}"
        ) from None
    return message_factory.GetMessageClass(found)
