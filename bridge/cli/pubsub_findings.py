"""What `check` finds in Pub/Sub."""

from __future__ import annotations

import re

from bridge.cli.findings import Finding, lasting
from bridge.settings import Settings
from bridge.sinks.pubsub_admin import PubSubAdmin, SubscriptionFacts, TopicFacts

PROVISION = "run `provision`, or correct the name"
DELETED = "_deleted-topic_"  # what Pub/Sub shows as the topic of a subscription that outlives it
REGIONAL = "-pubsub.googleapis.com"


def pubsub_findings(settings: Settings) -> list[Finding]:
    """Topic, dead-letter topic and subscription. Raises AdminError, ConfigurationError."""
    admin = PubSubAdmin(settings)
    try:
        return [
            *_topic(admin, "topic", settings.pubsub_topic or "", settings),
            *_endpoint(admin, settings),
            *_dead_letter_topic(admin, settings),
            *_subscription(admin, settings),
        ]
    finally:
        admin.close()


def _topic(admin: PubSubAdmin, what: str, name: str, settings: Settings) -> list[Finding]:
    project = f"--project={settings.gcp_project_id}"
    found = admin.topic(name)
    if found is None:
        return [Finding(what, "failed", f"{name} does not exist", PROVISION)]
    if not found.subscriptions and not found.retention_seconds:
        detail = f"{name} has neither subscription nor retention: Pub/Sub throws events away"
        fix = f"gcloud pubsub topics update {name} {project} --message-retention-duration=7d"
        return [Finding(what, "failed", detail, fix)]
    if admin.may_publish(name) is False:
        fix = (
            f"gcloud pubsub topics add-iam-policy-binding {name} {project} "
            f"--member={admin.member} --role=roles/pubsub.publisher"
        )
        return [Finding(what, "failed", f"{name} may not be published to", fix)]
    days = found.retention_seconds / 86_400
    readers = len(found.subscriptions)
    return [Finding(what, "ok", f"{name} has {readers} subscriptions, {days:g} days' retention")]


def _dead_letter_topic(admin: PubSubAdmin, settings: Settings) -> list[Finding]:
    name = settings.pubsub_dead_letter_topic
    return _topic(admin, "dead-letter topic", name, settings) if name else []


def _endpoint(admin: PubSubAdmin, settings: Settings) -> list[Finding]:
    return endpoint_findings(settings, admin.topic(settings.pubsub_topic or ""))


def endpoint_findings(settings: Settings, topic: TopicFacts | None) -> list[Finding]:
    """Whether order holds among all publishers: Pub/Sub keeps it within one region alone. topic:
    None where there is none."""
    what, allowed = "Pub/Sub endpoint", topic.regions if topic else ()
    endpoint, example = settings.pubsub_endpoint, f"{(*allowed, 'us-central1')[0]}{REGIONAL}"
    if endpoint is None:
        if settings.pubsub_emulator_host:
            return []
        detail = "PUBSUB_ENDPOINT is not set: publishers in several regions keep no common order"
        fix = f"set PUBSUB_ENDPOINT={example}" + ("" if allowed else " (or your region's)")
        return [Finding(what, "warning", detail, fix)]
    regional = re.fullmatch(rf"([a-z0-9-]+){re.escape(REGIONAL)}", endpoint)
    if regional and allowed and regional[1] not in allowed:
        detail = f"{endpoint} is in a region where the topic may not keep messages (it may in "
        detail += f"{', '.join(allowed)}): each publish crosses regions, or is refused"
        return [Finding(what, "warning", detail, f"set PUBSUB_ENDPOINT={example}")]
    if regional is None and not settings.pubsub_emulator_host:
        detail = f"{endpoint} is no regional endpoint: order may not hold across a restart"
        return [Finding(what, "warning", detail, f"set PUBSUB_ENDPOINT={example}")]
    return [Finding(what, "ok", endpoint)]


def _subscription(admin: PubSubAdmin, settings: Settings) -> list[Finding]:
    name = settings.pubsub_subscription
    if name is None:
        return []
    found = admin.subscription(name)
    if found is None:
        return [Finding("subscription", "failed", f"{name} does not exist", PROVISION)]
    return [_subscription_that_is(name, found, settings)]


def _subscription_that_is(name: str, found: SubscriptionFacts, settings: Settings) -> Finding:
    what, project = "subscription", f"--project={settings.gcp_project_id}"
    remake = f"gcloud pubsub subscriptions delete {name} {project}, then run `provision`"
    if found.topic == DELETED:
        return Finding(what, "failed", f"the topic of {name} was deleted", remake)
    if found.topic != settings.pubsub_topic:
        detail = f"{name} belongs to topic {found.topic}"
        return Finding(what, "failed", detail, f"set PUBSUB_TOPIC={found.topic}, or name another")
    if not found.ordered:
        # It cannot be added later.
        return Finding(what, "failed", f"{name} is without message ordering", remake)
    if found.expires_seconds:
        detail = f"{name} is deleted after {lasting(found.expires_seconds)} without a reader"
        fix = f"gcloud pubsub subscriptions update {name} {project} --expiration-period=never"
        return Finding(what, "warning", detail, fix)
    return Finding(what, "ok", f"{name} delivers in order")
