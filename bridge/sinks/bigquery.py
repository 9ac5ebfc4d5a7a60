"""BigQuery by the Storage Write API: each reading exactly once.

One application-created, committed stream; each append at an offset that was written into the
journal together with the ordered list of its entries (the intent) before it is sent. Until there
is a definite answer the same list goes to the same offset of the same stream, so that the service
tells a repetition by its offset. What the answers mean:

    appended, ALREADY_EXISTS on a repetition   it is there: accepted
    row errors                                 nothing was appended: these rows are refused, and
                                               the offset is free for the others; on a repetition
                                               the stream is finalized first, for the first copy
                                               may still be on its way to that offset
    finalized                                  its final row count decides
    stream gone; ALREADY_EXISTS or             the ids are looked up in the table
      OUT_OF_RANGE that cannot be ours
    anything else                              not known: again

Only a decided append lets the stream be left behind. Decisions that the service could not repeat
to the next process are written down as well, as an intent

    without entries   the next append goes to this offset
    without a stream  these entries are to be looked up: no offset can be believed
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud.bigquery_storage_v1 import types

from bridge.errors import ContentRefused, Held, SinkError, Transient
from bridge.journal import AppendIntent
from bridge.policy import BatchPolicy
from bridge.reading import Entry, Reading
from bridge.settings import Settings
from bridge.sinks import connect
from bridge.sinks.append_stream import (
    AppendStream,
    NoAnswer,
    Refusal,
    StorageCode,
    serialized_rows,
)
from bridge.sinks.base import Outcome
from bridge.sinks.bigquery_table import Table, auth_error
from bridge.sinks.codes import REMEDIES, sink_error
from bridge.sinks.worker import Worker

log = logging.getLogger(__name__)

# A request may have 10 MB; emulators on gRPC's defaults take 4 MB.
POLICY = BatchPolicy(max_entries=5_000, max_bytes=3_500_000)
DEADLINE_SECONDS = 15.0  # of each call
STREAMS_A_WRITE = 2

_NEW_STREAM = ("", 0)
_STREAM_OVER = frozenset(
    {
        StorageCode.STREAM_FINALIZED,
        StorageCode.INVALID_STREAM_STATE,
        StorageCode.STREAM_ALREADY_COMMITTED,
    }
)


class AppendLog(Protocol):
    """Where the intent of the last append is kept, on disk."""

    def load(self) -> AppendIntent | None:
        """The last one recorded."""

    def record(self, intent: AppendIntent) -> None:
        """On disk when it returns. Raises JournalError."""

    def stream_created(self, stream: str) -> None:
        """To be called before anything is appended on it. Raises Transient: then nothing must."""

    def foreign_streams(self) -> Sequence[str]:
        """Streams on which others may be appending entries of this journal still."""

    def foreign_streams_ended(self) -> None:
        """They are all finalized."""


class StorageWriteSink:
    """All of its calls run in one thread of its own, one batch at a time: the sink has one lane.

    verify_up_to: answers up to which entry the journal, once damaged, may have forgotten that they
    were written: these are looked up first.
    """

    name = "bigquery"
    policy = POLICY
    ordered_copies = False

    def __init__(
        self,
        settings: Settings,
        appends: AppendLog,
        verify_up_to: Callable[[], int] = lambda: 0,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._settings = settings
        self._appends = appends
        self._verify_up_to = verify_up_to
        self._deadline_seconds = deadline_seconds
        self._verified: frozenset[int] = frozenset()
        self._table: Table | None = None
        self._client: Any = None
        self._connection: AppendStream | None = None
        self._intent: AppendIntent | None = None
        self._believed = True  # whether the offset of the last intent tells its fate
        # Where the next append goes. None: the last one is not decided.
        self._place: tuple[str, int] | None = _NEW_STREAM
        self._worker = Worker("bigquery")

    def open(self) -> None:
        if self._table is None:
            self._table = Table(self._settings, self._deadline_seconds)
        self._table.require_schema()
        if self._client is None:
            self._resume(self._appends.load())
            self._client = connect.writer(self._settings)

    def _resume(self, intent: AppendIntent | None) -> None:
        if intent is not None:
            self._intent, self._place = intent, None
            unsure_up_to = self._verify_up_to()
            salvaged = max(intent.seqs, default=unsure_up_to + 1) <= unsure_up_to
            self._believed = bool(intent.stream) and not salvaged

    def lane(self, reading: Reading) -> str:
        return ""

    def write(self, batch: Sequence[Entry]) -> Future[Outcome]:
        return self._worker.do(lambda: self._write(batch))

    def ready_in(self, lane: str) -> float:
        return 0.0

    def usage(self) -> Mapping[str, float]:
        return {}

    def close(self) -> None:
        self._worker.close()
        self._disconnect()
        if self._table is not None:
            self._table.close()
        if self._client is not None:
            self._client.transport.close()

    # --- one batch, in the sink's thread ----------------------------------------------------------

    def _write(self, batch: Sequence[Entry]) -> Outcome:
        for _ in range(STREAMS_A_WRITE):
            outcome = self._tried(batch)
            if outcome is not None:
                return outcome
        raise Transient("stream_over", "every write stream was over before it took anything")

    def _tried(self, batch: Sequence[Entry]) -> Outcome | None:
        """None: decided, nothing of it is there, and it has to go to a new stream."""
        seqs = tuple(entry.seq for entry in batch)
        repeated = self._place is None and self._intent is not None and self._intent.seqs == seqs
        if not repeated:
            if found := self._salvaged(batch):
                return Outcome(found, {})
            self._begin(seqs)
        intent = self._intent
        assert intent is not None
        if not self._believed:
            return self._look_up(intent, batch)
        self._place = None
        try:
            self._send(intent, batch)
        except Refusal as refusal:
            return self._judge(refusal, intent, batch, repeated)
        return self._accepted(intent)

    def _begin(self, seqs: tuple[int, ...]) -> None:
        """Write down where this list goes before it goes there."""
        stream, offset = self._next_place()
        if not stream:
            stream = self._create_stream()
            self._place = (stream, 0)
        self._note(AppendIntent(stream, offset, seqs))
        self._believed = True

    def _next_place(self) -> tuple[str, int]:
        if self._place is not None:
            return self._place
        # The first append of this run, and its list is another than the last recorded one: the
        # delivery begins with an undecided list, so that one was accepted (or looked up).
        assert self._intent is not None
        if not self._believed:
            return _NEW_STREAM
        return self._intent.stream, self._intent.offset + len(self._intent.seqs)

    def _note(self, intent: AppendIntent) -> None:
        self._appends.record(intent)
        self._intent = intent

    def _accepted(self, intent: AppendIntent) -> Outcome:
        self._place = (intent.stream, intent.offset + len(intent.seqs))
        return Outcome(intent.seqs, {})

    def _judge(
        self, refusal: Refusal, intent: AppendIntent, batch: Sequence[Entry], repeated: bool
    ) -> Outcome | None:
        """What an answer that is no success decides, if anything; None as in `_tried`."""
        if refusal.storage_code in _STREAM_OVER:
            return self._by_row_count(intent, batch)
        if refusal.row_errors:
            if repeated:
                return self._by_row_count(intent, batch)
            return self._rows_refused(refusal, intent)
        if refusal.code == "ALREADY_EXISTS" and repeated:
            return self._accepted(intent)
        if refusal.code in ("ALREADY_EXISTS", "OUT_OF_RANGE"):
            # Somebody else wrote there, or what was there is not: look, do not believe.
            return self._look_up(intent, batch)
        if refusal.code == "NOT_FOUND" and refusal.storage_code != StorageCode.TABLE_NOT_FOUND:
            return self._by_row_count(intent, batch)
        raise self._sink_error(refusal.code, refusal.detail)

    def _rows_refused(self, refusal: Refusal, intent: AppendIntent) -> Outcome:
        refused = {intent.seqs[error.index]: error.message for error in refusal.row_errors}
        # Written down, so that after a restart the list is not taken for one that was accepted.
        self._note(AppendIntent(intent.stream, intent.offset, ()))
        self._place = (intent.stream, intent.offset)
        return Outcome((), refused)

    def _by_row_count(self, intent: AppendIntent, batch: Sequence[Entry]) -> Outcome | None:
        """The stream takes no more: its final number of rows tells whether ours are in."""
        try:
            answer = self._called(self._client.finalize_write_stream, name=intent.stream)
        except Held as error:
            if error.reason == "not_found":
                return self._look_up(intent, batch)
            raise
        rows = int(answer.row_count)
        log.warning(
            "the write stream is over: its row count says what is in the table, and a new one is "
            "begun. Nothing is to be done",
            extra={"fields": {"stream": intent.stream, "rows": rows, "offset": intent.offset}},
        )
        self._place = _NEW_STREAM
        if rows >= intent.offset + len(intent.seqs):
            return Outcome(intent.seqs, {})
        return None

    def _look_up(self, intent: AppendIntent, batch: Sequence[Entry]) -> Outcome | None:
        """The stream cannot tell any more: the table can."""
        # Written down first: neither the next try nor the next process may take the offset, at
        # which there may be something else, for an answer.
        self._believed = False
        if intent.stream:
            self._note(AppendIntent("", 0, intent.seqs))
        self.end_foreign_streams()
        found = self._present(batch)
        log.warning(
            "readings in doubt were looked up in the table: those that are not there are written. "
            "Nothing is to be done",
            extra={"fields": {"readings": len(batch), "present": len(found)}},
        )
        self._place = _NEW_STREAM
        return Outcome(found, {}) if found else None

    def _salvaged(self, batch: Sequence[Entry]) -> list[int]:
        """Of the entries that a damaged journal left in doubt, those that are there."""
        unsure_up_to = self._verify_up_to()
        unsure = [
            entry
            for entry in batch
            if entry.seq <= unsure_up_to and entry.seq not in self._verified
        ]
        if not unsure:
            return []
        self.end_foreign_streams()
        found = self._present(unsure)
        self._verified = frozenset(entry.seq for entry in batch)
        return found

    def end_foreign_streams(self) -> None:
        """What others have sent must be decided before it can be looked up. Blocks. Raises
        SinkError."""
        streams = self._appends.foreign_streams()
        for stream in streams:
            try:
                self._called(self._client.finalize_write_stream, name=stream)
            except Held as error:
                if error.reason != "not_found":
                    raise
        if streams:
            self._appends.foreign_streams_ended()

    def _present(self, entries: Sequence[Entry]) -> list[int]:
        assert self._table is not None
        ids = self._table.ids_present(entries)
        return [entry.seq for entry in entries if entry.reading.event_id.hex() in ids]

    # --- calls ------------------------------------------------------------------------------------

    def _create_stream(self) -> str:
        assert self._table is not None
        stream = self._called(
            self._client.create_write_stream,
            parent=self._table.path,
            write_stream=types.WriteStream(type_=types.WriteStream.Type.COMMITTED),
        )
        self._appends.stream_created(str(stream.name))
        return str(stream.name)

    def _called(self, method: Callable[..., Any], **request: Any) -> Any:
        """One unary call, bounded, without retries of its own. Raises SinkError."""
        try:
            return method(**request, retry=None, timeout=self._deadline_seconds)
        except GoogleAPICallError as error:
            code = error.grpc_status_code
            raise self._sink_error(code.name if code else "UNKNOWN", str(error.message)) from error
        except GoogleAuthError as error:
            raise auth_error(error) from error

    def _send(self, intent: AppendIntent, batch: Sequence[Entry]) -> None:
        """Returns once it is appended. Raises Refusal; Transient when there is no answer."""
        connection = self._connected(intent.stream)
        try:
            connection.append(intent.offset, serialized_rows(batch))
        except NoAnswer as error:
            self._disconnect()
            raise Transient(error.reason, str(error)) from error
        except Refusal:
            self._disconnect()
            raise

    def _connected(self, stream: str) -> AppendStream:
        # Every refusal ends the connection, so that one that is there is for this stream.
        if self._connection is not None and not self._connection.over:
            return self._connection
        self._disconnect()
        channel = self._client.transport.grpc_channel
        self._connection = connection = AppendStream(channel, stream, self._deadline_seconds)
        return connection

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
