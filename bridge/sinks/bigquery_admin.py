"""What `provision` and `check` ask of BigQuery. Blocking calls with explicit deadlines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests
from google.api_core.exceptions import BadRequest, Conflict, Forbidden, GoogleAPICallError, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery

from bridge.settings import Settings
from bridge.sinks import connect
from bridge.sinks.admin import AdminError, member
from bridge.sinks.schema import CLUSTER_COLUMNS, COLUMNS, PARTITION_COLUMN, Column

CALL_SECONDS = 15.0
# To write rows, to see the columns, and to look up what is in doubt.
RIGHTS = ("bigquery.tables.updateData", "bigquery.tables.get", "bigquery.tables.getData")
_ERRORS = (GoogleAPICallError, GoogleAuthError, requests.RequestException, OSError)


@dataclass(frozen=True)
class TableFacts:
    """One table that exists. `partition`: column and kind of partitions, empty when there are
    none; `partition_seconds`: after which one is deleted; `expires`: when all of it is."""

    columns: tuple[Column, ...]
    partition: str
    cluster: tuple[str, ...]
    partition_seconds: float | None = None
    expires: str | None = None


class BigQueryAdmin:
    """The settings' dataset and table. Raises AdminError, ConfigurationError."""

    def __init__(self, settings: Settings) -> None:
        self._client: Any = connect.bigquery(settings)
        self.dataset_id = f"{settings.gcp_project_id}.{settings.bigquery_dataset}"
        self.table_id = f"{self.dataset_id}.{settings.bigquery_table}"
        # As the `bq` command wants it.
        self.bq_table = (
            f"{settings.gcp_project_id}:{settings.bigquery_dataset}.{settings.bigquery_table}"
        )

    def dataset_exists(self) -> bool:
        what = f"dataset {self.dataset_id}"
        return self._get(what, lambda: self._client.get_dataset(self.dataset_id, **_bounds()))

    def create_dataset(self, location: str | None) -> bool:
        """False where there is one."""
        dataset = bigquery.Dataset(self.dataset_id)
        if location is not None:
            dataset.location = location
        return _create(
            f"dataset {self.dataset_id}", lambda: self._client.create_dataset(dataset, **_bounds())
        )

    def table(self) -> TableFacts | None:
        """None where there is none."""
        try:
            found = self._client.get_table(self.table_id, **_bounds())
        except NotFound:
            return None
        except _ERRORS as error:
            raise AdminError.of(f"table {self.table_id}", error) from error
        columns = tuple(Column(f.name, f.field_type, f.mode) for f in found.schema)
        partition = found.time_partitioning
        described = f"{partition.field} by {partition.type_}" if partition else ""
        kept_ms = partition.expiration_ms if partition else None
        return TableFacts(
            columns,
            described,
            tuple(found.clustering_fields or ()),
            None if kept_ms is None else int(kept_ms) / 1000,
            f"{found.expires:%Y-%m-%d %H:%M} UTC" if found.expires else None,
        )

    def create_table(self) -> bool:
        """By day of the event time, clustered. False where there is one."""
        table = bigquery.Table(
            self.table_id, schema=[bigquery.SchemaField(*column) for column in COLUMNS]
        )
        table.time_partitioning = bigquery.TimePartitioning(
            type_=bigquery.TimePartitioningType.DAY, field=PARTITION_COLUMN
        )
        table.clustering_fields = list(CLUSTER_COLUMNS)
        return _create(
            f"table {self.table_id}", lambda: self._client.create_table(table, **_bounds())
        )

    def missing_rights(self) -> list[str]:
        """Of what the bridge needs on the table; none where the service does not tell."""
        try:
            answer = self._client.test_iam_permissions(self.table_id, list(RIGHTS), **_bounds())
        except _ERRORS:
            return []
        return [right for right in RIGHTS if right not in answer.get("permissions", [])]

    def query_problem(self) -> str | None:
        """Why the table cannot be asked for ids; None when it can. Costs nothing: a dry run."""
        query = (
            f"SELECT event_id FROM `{self.table_id}` WHERE event_id IN UNNEST(['']) "
            "AND event_time BETWEEN TIMESTAMP '2000-01-01' AND TIMESTAMP '2000-01-02'"
        )
        config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)
        try:
            self._client.query(query, job_config=config, job_retry=None, **_bounds())
        except Forbidden as error:
            return str(error.message)
        except BadRequest:  # a column that is not there: said of the columns
            return None
        except _ERRORS as error:
            raise AdminError.of(f"table {self.table_id}", error) from error
        return None

    @property
    def member(self) -> str:
        """As whom the bridge acts. To be asked after a call."""
        return member(getattr(self._client, "_credentials", None))

    def close(self) -> None:
        self._client.close()

    @staticmethod
    def _get(what: str, get: Callable[[], Any]) -> bool:
        try:
            get()
        except NotFound:
            return False
        except _ERRORS as error:
            raise AdminError.of(what, error) from error
        return True


def _bounds() -> dict[str, Any]:
    return {"retry": None, "timeout": CALL_SECONDS}


def _create(what: str, create: Callable[[], Any]) -> bool:
    try:
        create()
    except Conflict:
        return False
    except _ERRORS as error:
        raise AdminError.of(what, error) from error
    return True
