"""BigQuery by `insertAll`: exactly once as far as Google's de-duplication by insertId reaches."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from bridge.errors import Held, Transient
from bridge.policy import BatchPolicy
from bridge.reading import Entry, Reading
from bridge.settings import Settings
from bridge.sinks.base import Outcome
from bridge.sinks.bigquery_table import ERRORS, TIMEOUT_SECONDS, Table, rest_error
from bridge.sinks.codes import REMEDIES
from bridge.times import iso_us

# 500 rows a request are what Google recommends; 10 MB are the limit.
POLICY = BatchPolicy(max_entries=500, max_bytes=5_000_000)


class InsertAllSink:
    name = "bigquery"
    policy = POLICY

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._table: Table | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bigquery")

    def open(self) -> None:
        if self._table is None:
            self._table = Table(self._settings)
        self._table.require_schema()

    def lane(self, reading: Reading) -> str:
        return ""

    def write(self, batch: Sequence[Entry]) -> Future[Outcome]:
        return self._thread.submit(self._insert, batch)

    def _insert(self, batch: Sequence[Entry]) -> Outcome:
        assert self._table is not None, "open() comes first"
        try:
            errors = self._table.client.insert_rows_json(
                self._table.id,
                [_row(entry.reading) for entry in batch],
                row_ids=[entry.reading.event_id.hex() for entry in batch],
                # Good rows go in whatever their neighbours are; the bad ones are named.
                skip_invalid_rows=True,
                retry=None,
                timeout=TIMEOUT_SECONDS,
            )
        except ERRORS as error:
            raise rest_error(error, self._table.id) from error
        return _outcome(batch, errors)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
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
    """Read the per-row errors inside an HTTP 200: `invalid` refuses a row, every other reason
    (`stopped`, `backendError`, `timeout`, …) leaves it to be tried again."""
    refused: dict[int, str] = {}
    kept: dict[int, str] = {}
    for error in errors:
        seq = batch[int(error["index"])].seq
        detail = "; ".join(_words(item) for item in error["errors"])
        mismatch = any(
            "no such field" in str(item.get("message", "")).lower() for item in error["errors"]
        )
        invalid = any(item.get("reason") == "invalid" for item in error["errors"])
        (refused if invalid and not mismatch else kept)[seq] = detail
        if mismatch:
            kept[seq] = f"schema: {detail}"
    accepted = [e.seq for e in batch if e.seq not in refused and e.seq not in kept]
    if not accepted and not refused:
        raise _nothing_done(next(iter(kept.values())))
    return Outcome(accepted, refused)


def _nothing_done(detail: str) -> Exception:
    if detail.startswith("schema: "):
        return Held("schema_mismatch", detail, REMEDIES["schema_mismatch"])
    return Transient("rows_not_inserted", detail)


def _words(item: dict[str, Any]) -> str:
    place = f" ({item['location']})" if item.get("location") else ""
    return f"{item.get('reason', 'unknown')}{place}: {item.get('message', '')}"
