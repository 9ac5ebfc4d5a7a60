"""BigQuery by the Storage Write API: each reading exactly once.

One application-created, committed stream; each append at an offset that was written into the
journal together with the ordered list of its entries (the intent) before it is sent. Until there
is a definite answer the same list goes to the same offset of the same stream, so that the service
tells a repetition by its offset. What the answers mean:

    appended, ALREADY_EXISTS on a repetition   it is there: accepted
    row errors                                 nothing was appended: these rows are refused, and
                                               the offset is free for the others
    finalized                                  its final row count decides
    stream gone; ALREADY_EXISTS or             the ids are looked up in the table
      OUT_OF_RANGE that cannot be ours
    anything else                              not known: again

Only a decided append lets the stream be left behind.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud.bigquery_storage_v1 import types
from google.rpc import status_pb2
from grpc_status import rpc_status

from bridge.errors import ContentRefused, Held, SinkError, Transient
from bridge.journal import AppendIntent
from bridge.policy import BatchPolicy
from bridge.reading import Entry, Reading
from bridge.settings import Settings
from bridge.sinks import connect
from bridge.sinks.append_stream import AnswerLate, AppendStream, serialized_rows
from bridge.sinks.base import Outcome
from bridge.sinks.bigquery_table import Table
from bridge.sinks.codes import REMEDIES, sink_error

log = logging.getLogger(__name__)

# A request may have 10 MB; emulators on gRPC's defaults take 4 MB.
POLICY = BatchPolicy(max_entries=5_000, max_bytes=3_500_000)
CALL_SECONDS = 15.0

_StorageError = types.StorageError.pb()
_Codes = types.StorageError.StorageErrorCode
_STREAM_OVER = frozenset(
    {_Codes.STREAM_FINALIZED, _Codes.INVALID_STREAM_STATE, _Codes.STREAM_ALREADY_COMMITTED}
)


class AppendLog(Protocol):
    """Where the intent of the last append is kept, on disk."""

    def load(self) -> AppendIntent | None:
        """The last one recorded."""

    def record(self, intent: AppendIntent) -> None:
        """On disk when it returns. Raises JournalError."""


class _Refusal(Exception):
    """An answer that is no success: its code's name, and what the service says beside."""

    def __init__(self, status: Any, row_errors: Sequence[Any] = ()) -> None:
        super().__init__(status.message)
        self.code = grpc_code(status.code)
        self.detail = str(status.message)
        self.row_errors = row_errors
        self.storage_code = _storage_code(status)


class StorageWriteSink:
    """All of its calls run in one thread of its own, one batch at a time: the sink has one lane."""

    name = "bigquery"
    policy = POLICY

    def __init__(self, settings: Settings, appends: AppendLog, verify_up_to: int = 0) -> None:
        self._settings = settings
        self._appends = appends
        self._verify_up_to = verify_up_to
        self._verified: frozenset[int] = frozenset()
        self._table: Table | None = None
        self._client: Any = None
        self._connection: AppendStream | None = None
        self._intent: AppendIntent | None = None
        # Where the next append goes. None: the last one is not decided. ("", 0): a new stream.
        self._place: tuple[str, int] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bigquery")

    def open(self) -> None:
        if self._table is None:
            self._table = Table(self._settings)
        self._table.require_schema()
        if self._client is None:
            self._client = connect.writer(self._settings)
            self._intent = self._appends.load()
            self._place = ("", 0) if self._intent is None else None

    def lane(self, reading: Reading) -> str:
        return ""

    def write(self, batch: Sequence[Entry]) -> Future[Outcome]:
        return self._thread.submit(self._write, batch)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._disconnect()
        if self._table is not None:
            self._table.close()
        if self._client is not None:
            self._client.transport.close()

    # --- one batch, in the sink's thread ----------------------------------------------------------

    def _write(self, batch: Sequence[Entry]) -> Outcome:
        seqs = tuple(entry.seq for entry in batch)
        repeated = self._place is None and self._intent is not None and self._intent.seqs == seqs
        if not repeated:
            found = self._salvaged(batch)
            if found is not None:
                return found
            self._record(seqs)
        assert self._intent is not None
        self._place = None
        try:
            return self._accepted(self._send(self._intent, batch))
        except _Refusal as refusal:
            return self._judge(refusal, self._intent, batch, repeated)

    def _record(self, seqs: tuple[int, ...]) -> None:
        """Write down where this list goes before it goes there."""
        if self._place is None:
            # The first append of this run, and its list is another than the last recorded one:
            # the delivery begins with an undecided list, so that one was accepted.
            assert self._intent is not None
            self._place = (self._intent.stream, self._intent.offset + len(self._intent.seqs))
        stream, offset = self._place
        if not stream:
            stream = self._create_stream()
        intent = AppendIntent(stream, offset, seqs)
        self._appends.record(intent)
        self._intent = intent

    def _accepted(self, intent: AppendIntent) -> Outcome:
        self._place = (intent.stream, intent.offset + len(intent.seqs))
        return Outcome(intent.seqs, {})

    def _judge(
        self, refusal: _Refusal, intent: AppendIntent, batch: Sequence[Entry], repeated: bool
    ) -> Outcome:
        """What an answer that is no success decides, if anything."""
        if refusal.row_errors:
            return self._rows_refused(refusal, intent)
        if refusal.code == "ALREADY_EXISTS":
            # Without a repetition somebody else would have written there: look, do not believe.
            return self._accepted(intent) if repeated else self._look_up(batch)
        if refusal.code == "OUT_OF_RANGE":
            return self._look_up(batch)
        if refusal.storage_code in _STREAM_OVER:
            return self._by_row_count(intent, batch)
        if refusal.code == "NOT_FOUND" and refusal.storage_code != _Codes.TABLE_NOT_FOUND:
            return self._by_row_count(intent, batch)
        raise self._sink_error(refusal.code, refusal.detail)

    def _rows_refused(self, refusal: _Refusal, intent: AppendIntent) -> Outcome:
        self._place = (intent.stream, intent.offset)
        refused = {intent.seqs[error.index]: error.message for error in refusal.row_errors}
        return Outcome((), refused)

    def _by_row_count(self, intent: AppendIntent, batch: Sequence[Entry]) -> Outcome:
        """The stream takes no more: its final number of rows tells whether ours are in."""
        try:
            answer = self._client.finalize_write_stream(
                name=intent.stream, retry=None, timeout=CALL_SECONDS
            )
        except GoogleAPICallError as error:
            if error.grpc_status_code is grpc.StatusCode.NOT_FOUND:
                return self._look_up(batch)
            raise self._call_error(error) from error
        rows = int(answer.row_count)
        log.warning(
            "the write stream is over; going on with a new one",
            extra={"fields": {"stream": intent.stream, "rows": rows, "offset": intent.offset}},
        )
        if rows >= intent.offset + len(intent.seqs):
            self._place = ("", 0)
            return Outcome(intent.seqs, {})
        return self._again_elsewhere(batch)

    def _look_up(self, batch: Sequence[Entry]) -> Outcome:
        """The stream cannot tell any more: the table can."""
        found = self._present(batch)
        log.warning(
            "looked the undecided readings up in the table",
            extra={"fields": {"readings": len(batch), "present": len(found)}},
        )
        if found:
            self._place = ("", 0)
            return Outcome(found, {})
        return self._again_elsewhere(batch)

    def _again_elsewhere(self, batch: Sequence[Entry]) -> Outcome:
        """Decided: nothing of the batch is there. Once more, on a new stream."""
        self._place = ("", 0)
        self._disconnect()
        self._record(tuple(entry.seq for entry in batch))
        assert self._intent is not None
        self._place = None
        try:
            return self._accepted(self._send(self._intent, batch))
        except _Refusal as refusal:
            if refusal.row_errors:
                return self._rows_refused(refusal, self._intent)
            raise self._sink_error(refusal.code, refusal.detail) from refusal

    def _salvaged(self, batch: Sequence[Entry]) -> Outcome | None:
        """Of entries taken over from a damaged journal nobody knows whether they were sent."""
        unsure = [
            entry
            for entry in batch
            if entry.seq <= self._verify_up_to and entry.seq not in self._verified
        ]
        if not unsure:
            return None
        found = self._present(unsure)
        self._verified = frozenset(entry.seq for entry in unsure)
        return Outcome(found, {}) if found else None

    def _present(self, entries: Sequence[Entry]) -> list[int]:
        assert self._table is not None
        ids = self._table.ids_present(entries)
        return [entry.seq for entry in entries if entry.reading.event_id.hex() in ids]

    # --- calls ------------------------------------------------------------------------------------

    def _create_stream(self) -> str:
        assert self._table is not None
        try:
            stream = self._client.create_write_stream(
                parent=self._table.path,
                write_stream=types.WriteStream(type_=types.WriteStream.Type.COMMITTED),
                retry=None,
                timeout=CALL_SECONDS,
            )
        except GoogleAPICallError as error:
            raise self._call_error(error) from error
        except GoogleAuthError as error:
            raise Transient("credentials", str(error)) from error
        return str(stream.name)

    def _send(self, intent: AppendIntent, batch: Sequence[Entry]) -> AppendIntent:
        """Answers the intent once it is appended. Raises _Refusal for a definite answer that is
        no success, Transient when there is none."""
        if self._connection is None:
            self._connection = AppendStream(self._client.transport.grpc_channel, intent.stream)
        try:
            answer = self._connection.append(intent.offset, serialized_rows(batch))
        except AnswerLate as error:
            self._disconnect()
            raise Transient("deadline_exceeded", str(error)) from error
        except grpc.RpcError as error:
            self._disconnect()
            raise self._connection_error(error) from error
        if answer.HasField("error"):
            self._disconnect()
            raise _Refusal(answer.error, answer.row_errors)
        return intent

    def _connection_error(self, error: Any) -> Exception:
        status = rpc_status.from_call(error)
        if status is None:
            status = status_pb2.Status(
                code=error.code().value[0], message=error.details() or str(error.code())
            )
        return _Refusal(status)

    def _call_error(self, error: GoogleAPICallError) -> SinkError:
        code = error.grpc_status_code
        return self._sink_error(code.name if code else "UNKNOWN", str(error.message))

    def _sink_error(self, code: str, detail: str) -> SinkError:
        assert self._table is not None
        error = sink_error(code, detail, self._table.id)
        if isinstance(error, ContentRefused):
            # Without a row named it is about the request as a whole: the schema.
            return Held("schema_mismatch", detail, REMEDIES["schema_mismatch"])
        return error

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def grpc_code(number: int) -> str:
    """The name of a google.rpc.Code."""
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
