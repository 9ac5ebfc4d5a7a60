"""The first line of a run: what runs where."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from bridge.settings import Settings

log = logging.getLogger(__name__)


def announce(settings: Settings, destinations: Mapping[str, str]) -> None:
    """Log it. Nothing secret is in it: no password, no token, no user name."""
    log.info("starting", extra={"fields": _fields(settings, destinations)})
    if not settings.local and settings.journal_handoff_bucket is None:
        _alone(settings.gae_instance is not None)


def _alone(on_app_engine: bool) -> None:
    if on_app_engine:
        log.warning(
            "the journal is on this instance's disk alone: App Engine makes a new disk at every "
            "start, and what is unsettled then is lost. Set JOURNAL_HANDOFF_BUCKET"
        )
    else:
        log.info("the journal is on this machine's disk alone: what is unsettled goes with it")


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
