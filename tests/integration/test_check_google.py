"""What `check` finds in Pub/Sub and BigQuery: rights, regions, partitions, with the command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.cloud import bigquery

from bridge.cli.bigquery_findings import bigquery_findings
from bridge.cli.findings import Finding
from bridge.cli.pubsub_findings import pubsub_findings
from bridge.settings import Settings, load
from bridge.sinks import connect
from bridge.sinks.schema import COLUMNS
from localgcp.faults import Fault
from localgcp.server import LocalServices

PROJECT = "plant-project"
DATASET = f"{PROJECT}.plant"


@pytest.fixture(scope="module")
def everything() -> Iterator[LocalServices]:
    with LocalServices() as services:
        connect.bigquery(configured(services)).create_dataset(DATASET)
        yield services


@pytest.fixture
def services(everything: LocalServices) -> Iterator[LocalServices]:
    yield everything
    everything.faults.clear()


def configured(services: LocalServices, **more: str) -> Settings:
    return load(
        {
            "APP_ENV": "DEV",
            "GCP_PROJECT_ID": PROJECT,
            "PUBSUB_TOPIC": "kpi-events",
            "BIGQUERY_DATASET": "plant",
            "BIGQUERY_TABLE": "readings",
            **services.environment(),
            **more,
        }
    )


def table(services: LocalServices, name: str, **properties: Any) -> dict[str, Finding]:
    """What is found of a new table, by kind."""
    settings = configured(services, BIGQUERY_TABLE=name)
    schema = properties.pop("schema", [bigquery.SchemaField(*column) for column in COLUMNS])
    made = bigquery.Table(f"{DATASET}.{name}", schema=schema)
    made.time_partitioning = bigquery.TimePartitioning(
        field="event_time", expiration_ms=properties.pop("expiration_ms", None)
    )
    made.clustering_fields = ["site_code", "pi_tag"]
    for key, value in properties.items():
        setattr(made, key, value)
    connect.bigquery(settings).create_table(made)
    return {one.what: one for one in bigquery_findings(settings)}


def test_a_right_that_is_missing_on_the_table_is_named_with_the_command(
    services: LocalServices,
) -> None:
    services.faults.withhold("bigquery.tables.updateData", "bigquery.tables.getData")
    found = table(services, "closed")["table"]
    assert found.result == "failed"
    assert "lacks bigquery.tables.updateData, bigquery.tables.getData" in found.detail
    assert found.fix == (
        "bq add-iam-policy-binding --member=serviceAccount:SERVICE_ACCOUNT "
        "--role=roles/bigquery.dataEditor --table=true plant-project:plant.closed"
    )


def test_without_the_right_to_run_queries_look_ups_fail_but_not_with_insert_all(
    services: LocalServices,
) -> None:
    services.faults.add(Fault(call="bigquery.jobs.insert", status="403", times=None))
    found = table(services, "unasked")
    assert found["look-ups"].result == "failed"
    assert "gcloud projects add-iam-policy-binding plant-project" in found["look-ups"].fix
    assert "roles/bigquery.jobUser" in found["look-ups"].fix
    inserting = configured(services, BIGQUERY_TABLE="unasked", BIGQUERY_WRITE_METHOD="insert_all")
    assert {one.result for one in bigquery_findings(inserting)} == {"ok"}


def test_the_question_whether_queries_may_be_run_leaves_no_job_behind(
    services: LocalServices,
) -> None:
    settings = configured(services)
    config = bigquery.QueryJobConfig(dry_run=True)
    job = connect.bigquery(settings).query("SELECT 1 AS one", job_config=config, retry=None)
    assert job.total_bytes_processed == 0
    with pytest.raises(Exception, match="Not found"):
        connect.bigquery(settings).get_job("None", retry=None)


def test_partitions_that_expire_are_warned_of(services: LocalServices) -> None:
    found = table(services, "fleeting", expiration_ms=90 * 86_400_000)["table"]
    assert found.result == "warning"
    assert "rows vanish 90 days after their event_time" in found.detail
    assert "bq update --time_partitioning_expiration 0 plant-project:plant.fleeting" in found.fix


def test_a_partition_filter_that_queries_must_have_is_no_hindrance(
    services: LocalServices,
) -> None:
    found = table(services, "filtered", require_partition_filter=True)
    assert found["table"].result == "ok"


def test_a_missing_column_is_named_with_the_statement_that_adds_it(
    services: LocalServices,
) -> None:
    fields = [bigquery.SchemaField(*column) for column in COLUMNS if column.name != "value"]
    found = table(services, "short", schema=fields)["table"]
    assert found.fix == (
        "bq query --use_legacy_sql=false "
        "'ALTER TABLE `plant-project.plant.short` ADD COLUMN value FLOAT64'"
    )


def test_a_column_that_must_not_be_required_is_named_with_the_statement_that_mends_it(
    services: LocalServices,
) -> None:
    fields = [bigquery.SchemaField(*column) for column in COLUMNS]
    extra = bigquery.SchemaField("shift", "STRING", "REQUIRED")
    found = table(services, "strict", schema=[*fields, extra])["table"]
    assert "ALTER COLUMN shift DROP NOT NULL" in found.fix


def topic(services: LocalServices, name: str, **properties: Any) -> dict[str, Finding]:
    settings = configured(services, PUBSUB_TOPIC=name, **properties.pop("variables", {}))
    publisher = connect.publisher(settings)
    publisher.create_topic(
        request={
            "name": f"projects/{PROJECT}/topics/{name}",
            "message_retention_duration": {"seconds": properties.pop("retention", 604_800)},
            **properties,
        },
        retry=None,
    )
    return {one.what: one for one in pubsub_findings(settings)}


def test_a_topic_that_may_not_be_published_to_fails_with_the_command(
    services: LocalServices,
) -> None:
    services.faults.withhold("pubsub.topics.publish")
    found = topic(services, "closed-topic")["topic"]
    assert found.result == "failed"
    assert found.fix == (
        "gcloud pubsub topics add-iam-policy-binding closed-topic --project=plant-project "
        "--member=serviceAccount:SERVICE_ACCOUNT --role=roles/pubsub.publisher"
    )


def test_an_endpoint_outside_the_regions_of_the_topic_is_warned_of(
    services: LocalServices,
) -> None:
    found = topic(
        services,
        "german-topic",
        message_storage_policy={"allowed_persistence_regions": ["europe-west3"]},
        variables={"PUBSUB_ENDPOINT": "us-central1-pubsub.googleapis.com"},
    )["Pub/Sub endpoint"]
    assert found.result == "warning"
    assert found.fix == "set PUBSUB_ENDPOINT=europe-west3-pubsub.googleapis.com"


def test_a_subscription_that_expires_is_warned_of(services: LocalServices) -> None:
    topic(services, "read-topic")
    settings = configured(services, PUBSUB_TOPIC="read-topic", PUBSUB_SUBSCRIPTION="reader")
    connect.subscriber(settings).create_subscription(
        request={
            "name": f"projects/{PROJECT}/subscriptions/reader",
            "topic": f"projects/{PROJECT}/topics/read-topic",
            "enable_message_ordering": True,
            "expiration_policy": {"ttl": {"seconds": 31 * 86_400}},
        },
        retry=None,
    )
    found = {one.what: one for one in pubsub_findings(settings)}["subscription"]
    assert found.result == "warning"
    assert "deleted after 31 days without a reader" in found.detail
    assert "--expiration-period=never" in found.fix
