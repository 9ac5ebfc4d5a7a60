"""The first line of a run: what runs where."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from bridge.settings import Settings

log = logging.getLogger(__name__)


ALONE = (
    "the journal is on this machine's disk alone, for JOURNAL_HANDOFF_BUCKET is unset: what is "
    "unsettled when the disk goes is lost. App Engine makes a new one at every start of an instance"
)


def announce(settings: Settings, destinations: Mapping[str, str]) -> None:
    """Log it. Nothing secret is in it: no password, no token, no user name."""
    log.info("starting", extra={"fields": _fields(settings, destinations)})
    if not settings.local and settings.journal_handoff_bucket is None:
        log.log(logging.WARNING if settings.gae_instance else logging.INFO, ALONE)


def _fields(settings: Settings, destinations: Mapping[str, str]) -> dict[str, object]:
    scheme = "mqtts" if settings.mqtt_tls else "mqtt"
    fields: dict[str, object] = {
        "environment": settings.app_env,
        "broker": f"{scheme}://{settings.mqtt_broker}:{settings.mqtt_port}",
        "client_id": settings.client_id,
        "topic_filter": settings.mqtt_topic,
        "journal": str(settings.journal_path),
        "http": f"{settings.listen_host}:{settings.port}",
    }
    fields.update({f"sink_{name}": where for name, where in destinations.items()})
    if settings.mqtt_shared_group:
        fields["shared_group"] = settings.mqtt_shared_group
    if not settings.local and settings.journal_handoff_bucket:
        fields["handoff_bucket"] = settings.journal_handoff_bucket
    if not settings.local and settings.pubsub_dead_letter_topic:
        fields["dead_letter_topic"] = settings.pubsub_dead_letter_topic
    return fields
