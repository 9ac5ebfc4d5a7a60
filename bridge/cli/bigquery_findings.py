"""What `check` finds in BigQuery."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.cli.findings import Finding, lasting
from bridge.cli.pubsub_findings import PROVISION
from bridge.settings import Settings
from bridge.sinks.bigquery_admin import BigQueryAdmin, TableFacts
from bridge.sinks.schema import CLUSTER_COLUMNS, PARTITION_COLUMN, differences

ANOTHER = "name another table in BIGQUERY_TABLE, and run `provision`"


def bigquery_findings(settings: Settings) -> list[Finding]:
    """Dataset, table, its columns and partitions, and the bridge's rights. Raises AdminError,
    ConfigurationError."""
    admin = BigQueryAdmin(settings)
    try:
        if not admin.dataset_exists():
            detail = f"{admin.dataset_id} does not exist"
            return [Finding("dataset", "failed", detail, PROVISION)]
        return [
            Finding("dataset", "ok", f"{admin.dataset_id} exists"),
            *_table(admin, settings),
        ]
    finally:
        admin.close()


def _table(admin: BigQueryAdmin, settings: Settings) -> list[Finding]:
    found = admin.table()
    if found is None:
        return [Finding("table", "failed", f"{admin.table_id} does not exist", PROVISION)]
    findings = [
        *_columns(admin, found),
        *_rights(admin),
        *_look_ups(admin, settings),
        *_partitions(admin, found),
        *_expiry(admin, found, settings),
    ]
    return findings or [Finding("table", "ok", f"{admin.table_id} fits, and may be written")]


def _columns(admin: BigQueryAdmin, found: TableFacts) -> Iterator[Finding]:
    for difference in differences(list(found.columns)):
        fix = ANOTHER
        if difference.change:
            statement = f"ALTER TABLE `{admin.table_id}` {difference.change}"
            fix = f"bq query --use_legacy_sql=false '{statement}'"
        yield Finding("table", "failed", difference.problem, fix)


def _rights(admin: BigQueryAdmin) -> Iterator[Finding]:
    """To write it, and to read it: for what is in doubt after a lost answer."""
    if missing := admin.missing_rights():
        detail = f"{admin.table_id}: the service account lacks {', '.join(missing)}"
        fix = (
            f"bq add-iam-policy-binding --member={admin.member} "
            f"--role=roles/bigquery.dataEditor --table=true {admin.bq_table}"
        )
        yield Finding("table", "failed", detail, fix)


def _look_ups(admin: BigQueryAdmin, settings: Settings) -> Iterator[Finding]:
    if settings.bigquery_write_method != "storage_write":
        return
    if problem := admin.query_problem():
        detail = f"readings in doubt cannot be looked up: {problem}"
        fix = (
            f"gcloud projects add-iam-policy-binding {settings.gcp_project_id} "
            f"--member={admin.member} --role=roles/bigquery.jobUser --condition=None"
        )
        yield Finding("look-ups", "failed", detail, fix)


def _partitions(admin: BigQueryAdmin, found: TableFacts) -> Iterator[Finding]:
    if found.partition != f"{PARTITION_COLUMN} by DAY" or found.cluster != CLUSTER_COLUMNS:
        detail = (
            f"{admin.table_id} is not partitioned by day of {PARTITION_COLUMN} and clustered by "
            f"{' and '.join(CLUSTER_COLUMNS)}: queries and look-ups cost more, and partitions "
            "cannot be added later"
        )
        yield Finding("table", "warning", detail, ANOTHER)


def _expiry(admin: BigQueryAdmin, found: TableFacts, settings: Settings) -> Iterator[Finding]:
    if found.partition_seconds is not None:
        detail = (
            f"rows vanish {lasting(found.partition_seconds)} after their event_time, and older "
            f"readings at once (accepted up to {settings.timestamp_max_age_days:g} days old)"
        )
        fix = f"bq update --time_partitioning_expiration 0 {admin.bq_table}, if that is not meant"
        yield Finding("table", "warning", detail, fix)
    if found.expires is not None:
        detail = f"the table is deleted at {found.expires}"
        fix = f"bq update --expiration 0 {admin.bq_table}"
        yield Finding("table", "warning", detail, fix)
