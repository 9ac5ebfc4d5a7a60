"""What `check` finds in Pub/Sub and BigQuery."""

from __future__ import annotations

import secrets

from bridge.cli.findings import Finding
from bridge.handoff.bucket import Bucket, BucketError, Conflict
from bridge.handoff.record import HEADS
from bridge.settings import Settings
from bridge.sinks import connect
from bridge.sinks.bigquery_admin import BigQueryAdmin
from bridge.sinks.pubsub_admin import PubSubAdmin
from bridge.sinks.schema import CLUSTER_COLUMNS, PARTITION_COLUMN, problems

PROVISION = "run `provision`, or correct the name"


def pubsub_findings(settings: Settings) -> list[Finding]:
    """Topic, dead-letter topic and subscription. Raises AdminError, ConfigurationError."""
    admin = PubSubAdmin(settings)
    try:
        findings = _topic(admin, "topic", settings.pubsub_topic or "")
        if settings.pubsub_dead_letter_topic:
            findings += _topic(admin, "dead-letter topic", settings.pubsub_dead_letter_topic)
        if settings.pubsub_subscription:
            findings.append(_subscription(admin, settings))
    finally:
        admin.close()
    return findings


def _topic(admin: PubSubAdmin, what: str, name: str) -> list[Finding]:
    found = admin.topic(name)
    if found is None:
        return [Finding(what, "failed", f"{name} does not exist", PROVISION)]
    if not found.subscriptions and not found.retention_seconds:
        detail = f"{name} has neither subscription nor retention: Pub/Sub throws events away"
        return [Finding(what, "failed", detail, "add a subscription, or give it retention")]
    if admin.may_publish(name) is False:
        fix = "grant the service account roles/pubsub.publisher on it"
        return [Finding(what, "failed", f"{name} may not be published to", fix)]
    days = found.retention_seconds / 86_400
    readers = len(found.subscriptions)
    return [Finding(what, "ok", f"{name} has {readers} subscriptions, {days:g} days' retention")]


def _subscription(admin: PubSubAdmin, settings: Settings) -> Finding:
    name = settings.pubsub_subscription or ""
    found = admin.subscription(name)
    if found is None:
        return Finding("subscription", "failed", f"{name} does not exist", PROVISION)
    if found.topic != settings.pubsub_topic:
        detail = f"{name} belongs to topic {found.topic}"
        return Finding("subscription", "failed", detail, "name another, or another topic")
    if not found.ordered:
        fix = "delete it and run `provision`: ordering cannot be added later"
        return Finding("subscription", "failed", f"{name} is without message ordering", fix)
    return Finding("subscription", "ok", f"{name} delivers in order")


def bucket_findings(settings: Settings) -> list[Finding]:
    """Whether the journal can be handed over, where it is to be. Raises ConfigurationError."""
    name = settings.journal_handoff_bucket
    if name is None:
        return []
    path = f"check/{secrets.token_hex(8)}"
    try:
        bucket = Bucket(name, connect.storage(settings))
        bucket.delete(path, bucket.put(path, b"", 0))
        bucket.names(HEADS)
    except (BucketError, Conflict) as error:
        problem, _, fix = str(error).partition(" Remedy: ")
        return [Finding("handoff bucket", "failed", problem, fix or "look at the network")]
    return [Finding("handoff bucket", "ok", f"{name} can be listed, written and deleted in")]


def bigquery_findings(settings: Settings) -> list[Finding]:
    """Dataset, table, its columns and partitions. Raises AdminError, ConfigurationError."""
    admin = BigQueryAdmin(settings)
    try:
        if not admin.dataset_exists():
            detail = f"{admin.dataset_id} does not exist"
            return [Finding("dataset", "failed", detail, PROVISION)]
        return [Finding("dataset", "ok", f"{admin.dataset_id} exists"), *_table(admin)]
    finally:
        admin.close()


def _table(admin: BigQueryAdmin) -> list[Finding]:
    found = admin.table()
    if found is None:
        return [Finding("table", "failed", f"{admin.table_id} does not exist", PROVISION)]
    findings = [
        Finding("table", "failed", wrong, "alter the table, or name another")
        for wrong in problems(list(found.columns))
    ]
    if admin.may_write() is False:
        fix = "grant the service account roles/bigquery.dataEditor on it"
        findings.append(Finding("table", "failed", f"{admin.table_id} may not be written", fix))
    if found.partition != f"{PARTITION_COLUMN} by DAY" or found.cluster != CLUSTER_COLUMNS:
        detail = f"{admin.table_id} is not partitioned by day and clustered by site and tag"
        findings.append(
            Finding("table", "warning", detail, "queries cost more; `provision` makes one that is")
        )
    return findings or [Finding("table", "ok", f"{admin.table_id} fits")]
