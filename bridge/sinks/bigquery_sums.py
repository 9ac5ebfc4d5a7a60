"""What BigQuery says of the rows that an audit is about: counts and sums of ids by site and day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

from google.cloud import bigquery

from bridge.settings import Settings
from bridge.sinks.bigquery_table import Table
from bridge.times import iso_us

DEADLINE_SECONDS = 600.0
_DAY_US = 86_400_000_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
# A sum of 32-bit numbers fits INT64 up to two thousand million rows. SAFE_CAST: an id that is none
# spoils the sum of its line, and not the query.
_WORDS = ", ".join(
    f"SUM(SAFE_CAST(CONCAT('0x', SUBSTR(event_id, {start}{length})) AS INT64)) AS word{number}"
    for number, (start, length) in enumerate([(1, ", 8"), (9, ", 8"), (17, ", 8"), (25, "")])
)


class Rows(NamedTuple):
    """Of one line: how many rows, how many different ids they have, and the sum of the ids of all
    rows modulo 2^128."""

    rows: int
    ids: int
    checksum: int


class Span(NamedTuple):
    """Which rows are asked for: event times on the days from `first` to `last` (days since 1970),
    received from `since_us` to `until_us`, of these sites or (empty) of all."""

    first: int
    last: int
    since_us: int
    until_us: int
    sites: Sequence[str] = ()


class TableSums:
    """Blocking calls. Raises SinkError."""

    def __init__(self, settings: Settings) -> None:
        self._table = Table(settings, DEADLINE_SECONDS)
        self.id = self._table.id

    def sums(self, span: Span, without: Sequence[bytes]) -> dict[tuple[str, int], Rows]:
        """Per site and day, leaving out the ids of `without`. One query over the days' partitions
        and four columns."""
        rows = self._ask(
            f"SELECT site_code, DATE(event_time) AS day, COUNT(*) AS row_count, "
            f"COUNT(DISTINCT event_id) AS id_count, {_WORDS} FROM `{self.id}` "
            "WHERE {where} GROUP BY site_code, day",
            span,
            without,
        )
        return {
            (row["site_code"], row["day"].toordinal() - _EPOCH_DAY): Rows(
                row["row_count"], row["id_count"], _checksum(row)
            )
            for row in rows
        }

    def doubled(self, span: Span, limit: int) -> list[str]:
        """Up to `limit` ids that are there more than once."""
        rows = self._ask(
            f"SELECT event_id FROM `{self.id}` WHERE {{where}} "
            f"GROUP BY event_id HAVING COUNT(*) > 1 ORDER BY event_id LIMIT {limit}",
            span,
        )
        return [row["event_id"] for row in rows]

    def ids(self, span: Span, limit: int) -> list[str]:
        """Up to `limit` ids."""
        query = f"SELECT DISTINCT event_id FROM `{self.id}` WHERE {{where}} LIMIT {limit}"
        return [row["event_id"] for row in self._ask(query, span)]

    def _ask(self, query: str, span: Span, without: Sequence[bytes] = ()) -> list[Any]:
        conditions = [
            "event_time >= @first",
            "event_time < @after",
            "received_at BETWEEN @since AND @until",
        ]
        parameters: list[Any] = [
            _moment("first", span.first * _DAY_US),
            _moment("after", (span.last + 1) * _DAY_US),
            _moment("since", span.since_us),
            _moment("until", span.until_us),
        ]
        # Only where there are any: the client makes NULL of an empty array.
        if span.sites:
            conditions.append("site_code IN UNNEST(@sites)")
            parameters.append(_texts("sites", span.sites))
        if without:
            conditions.append("event_id NOT IN UNNEST(@without)")
            parameters.append(_texts("without", [event_id.hex() for event_id in without]))
        return self._table.ask(query.format(where=" AND ".join(conditions)), parameters)

    def close(self) -> None:
        self._table.close()


def _checksum(row: Any) -> int:
    words = [int(row[f"word{number}"] or 0) for number in range(4)]
    return sum(word << (96 - 32 * number) for number, word in enumerate(words)) % (1 << 128)


def _moment(name: str, micros: int) -> Any:
    return bigquery.ScalarQueryParameter(name, "TIMESTAMP", iso_us(micros))


def _texts(name: str, values: Sequence[str]) -> Any:
    return bigquery.ArrayQueryParameter(name, "STRING", list(values))
