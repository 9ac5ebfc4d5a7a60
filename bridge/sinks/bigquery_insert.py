"""BigQuery by `insertAll`: exactly once as far as Google's de-duplication by insertId reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from bridge.errors import Held, Transient
from bridge.policy import BatchPolicy
from bridge.reading import Entry, Reading
from bridge.settings import Settings
from bridge.sinks.base import Outcome
from bridge.sinks.bigquery_table import ERRORS, Table, rest_error
from bridge.sinks.codes import REMEDIES
from bridge.sinks.worker import Worker
from bridge.times import iso_us

# 500 rows a request are what Google recommends; 10 MB are the limit. The client escapes what is
# not printable ASCII: at the worst, one byte becomes six.
POLICY = BatchPolicy(max_entries=500, max_bytes=1_500_000)
DEADLINE_SECONDS = 15.0  # of each call


class InsertAllSink:
    """All of its calls run in one thread of its own, one batch at a time: the sink has one lane."""

    name = "bigquery"
    policy = POLICY
    ordered_copies = False

    def __init__(self, settings: Settings, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._settings = settings
        self._deadline_seconds = deadline_seconds
        self._table: Table | None = None
        self._worker = Worker("bigquery")

    def open(self) -> None:
        if self._table is None:
            self._table = Table(self._settings, self._deadline_seconds)
        self._table.require_schema()

    def lane(self, reading: Reading) -> str:
        return ""

    def write(self, batch: Sequence[Entry]) -> Future[Outcome]:
        return self._worker.do(lambda: self._insert(batch))

    def _insert(self, batch: Sequence[Entry]) -> Outcome:
        assert self._table is not None, "open() comes first"
        try:
            errors = self._table.client.insert_rows_json(
                self._table.id,
                [_row(entry.reading) for entry in batch],
                row_ids=[entry.reading.event_id.hex() for entry in batch],
                # All or nothing: a batch of which a part went in could not be repeated as it is
                # once insertIds are forgotten. The bad rows are named, the others go again.
                skip_invalid_rows=False,
                retry=None,
                timeout=self._deadline_seconds,
            )
        except ERRORS as error:
            raise rest_error(error, self._table.id) from error
        return _outcome(batch, errors)

    def ready_in(self, lane: str) -> float:
        return 0.0

    def usage(self) -> Mapping[str, float]:
        return {}

    def close(self) -> None:
        self._worker.close()
        if self._table is not None:
            self._table.close()


def _row(reading: Reading) -> dict[str, Any]:
    row: dict[str, Any] = {
        "event_id": reading.event_id.hex(),
        "site_code": reading.site,
        "pi_tag": reading.pi_tag,
        "sensor_id": reading.sensor_id,
        "event_time": iso_us(reading.event_us),
        "value": reading.value,
        "received_at": iso_us(reading.received_us),
        "mqtt_topic": reading.topic,
    }
    if reading.attributes is not None:
        row["attributes"] = reading.attributes
    return row


def _outcome(batch: Sequence[Entry], errors: Sequence[dict[str, Any]]) -> Outcome:
    """Read the per-row errors inside an HTTP 200: `invalid` refuses a row; every other reason
    (`stopped`, `backendError`, `timeout`, …) leaves it to be tried again. Raises Held where the
    table lacks a column, Transient where nothing was inserted and nothing refused."""
    refused: dict[int, str] = {}
    kept: dict[int, str] = {}
    mismatch = ""
    for error in errors:
        seq = batch[int(error["index"])].seq
        detail = "; ".join(_words(item) for item in error["errors"])
        if any(_lacks_column(item) for item in error["errors"]):
            mismatch = mismatch or detail
            kept[seq] = detail
        elif any(item.get("reason") == "invalid" for item in error["errors"]):
            refused[seq] = detail
        else:
            kept[seq] = detail
    accepted = [e.seq for e in batch if e.seq not in refused and e.seq not in kept]
    if not accepted and mismatch:
        raise Held("schema_mismatch", mismatch, REMEDIES["schema_mismatch"])
    if not accepted and not refused:
        raise Transient("rows_not_inserted", next(iter(kept.values())))
    return Outcome(accepted, refused)


def _lacks_column(item: dict[str, Any]) -> bool:
    """The table's fault and not the row's, though it comes as `invalid` with each row that has
    a value for the column."""
    return "no such field" in str(item.get("message", "")).lower()


def _words(item: dict[str, Any]) -> str:
    place = f" ({item['location']})" if item.get("location") else ""
    return f"{item.get('reason', 'unknown')}{place}: {item.get('message', '')}"
