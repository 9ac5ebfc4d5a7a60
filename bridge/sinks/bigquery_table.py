"""The destination table over REST: its schema, which ids it has, rows in its JSON form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import requests
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud import bigquery

from bridge.errors import ConfigurationError, ContentRefused, Held, SinkError, Transient
from bridge.reading import Entry
from bridge.settings import Settings
from bridge.sinks import connect
from bridge.sinks.codes import REMEDIES, http_error
from bridge.sinks.schema import Column, problems
from bridge.times import iso_us


class Table:
    """Blocking calls, each of `deadline_seconds` and without retries of its own. Raises
    SinkError."""

    def __init__(self, settings: Settings, deadline_seconds: float) -> None:
        self._deadline_seconds = deadline_seconds
        self.id = f"{settings.gcp_project_id}.{settings.bigquery_dataset}.{settings.bigquery_table}"
        self.path = (
            f"projects/{settings.gcp_project_id}/datasets/{settings.bigquery_dataset}"
            f"/tables/{settings.bigquery_table}"
        )
        self.client: Any = connect.bigquery(settings)

    def require_schema(self) -> None:
        """Raises ConfigurationError where the table's columns do not fit."""
        try:
            table = self.client.get_table(self.id, retry=None, timeout=self._deadline_seconds)
        except ERRORS as error:
            raise rest_error(error, self.id) from error
        found = [Column(field.name, field.field_type, field.mode) for field in table.schema]
        if wrong := problems(found):
            raise ConfigurationError(
                f"BIGQUERY_TABLE={self.id!r}: the table does not fit: {'; '.join(wrong)}. "
                "Remedy: mend these columns, or name another table (`provision` makes one)."
            )

    def ids_present(self, entries: Sequence[Entry]) -> set[str]:
        """Which of these entries' event ids the table holds already."""
        times = [entry.reading.event_us for entry in entries]
        parameters = [
            bigquery.ArrayQueryParameter(
                "ids", "STRING", [entry.reading.event_id.hex() for entry in entries]
            ),
            bigquery.ScalarQueryParameter("first", "TIMESTAMP", iso_us(min(times))),
            bigquery.ScalarQueryParameter("last", "TIMESTAMP", iso_us(max(times))),
        ]
        # The time range keeps it to the partitions that can hold them.
        query = (
            f"SELECT event_id FROM `{self.id}` WHERE event_id IN UNNEST(@ids) "
            "AND event_time BETWEEN @first AND @last"
        )
        return {row["event_id"] for row in self.ask(query, parameters)}

    def ask(self, query: str, parameters: Sequence[Any]) -> list[Any]:
        """The rows that a query answers with."""
        bounds: dict[str, Any] = {
            "retry": None,
            "job_retry": None,
            "timeout": self._deadline_seconds,
        }
        config = bigquery.QueryJobConfig(query_parameters=parameters)
        try:
            return list(self.client.query(query, job_config=config, **bounds).result(**bounds))
        except ERRORS as error:
            raise _definite(rest_error(error, self.id)) from error

    def close(self) -> None:
        self.client.close()


# Whatever the REST client raises: service errors, credentials, connections, timeouts.
ERRORS = (GoogleAPICallError, GoogleAuthError, requests.RequestException, OSError, TimeoutError)


def rest_error(error: Exception, what: str) -> SinkError:
    """The bridge's error for whatever the REST client raised."""
    if isinstance(error, GoogleAPICallError):
        reasons = [str(item.get("reason", "")) for item in error.errors if isinstance(item, dict)]
        return http_error(int(error.code or 0), reasons, str(error.message), what)
    if isinstance(error, GoogleAuthError):
        return auth_error(error)
    return Transient("unavailable", str(error))


def auth_error(error: GoogleAuthError) -> SinkError:
    """No token was to be had: a metadata server that is slow, or credentials that are void."""
    if error.retryable or isinstance(error, TransportError):
        return Transient("credentials", str(error))
    return Held("unauthenticated", str(error), REMEDIES["unauthenticated"])


def _definite(error: SinkError) -> SinkError:
    # A query that is refused says nothing about the rows it asks for.
    if isinstance(error, ContentRefused):
        return Transient("query_refused", error.detail)
    return error
