"""The daemon's parts, made from the settings. Nothing here runs or connects yet."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from random import Random

from bridge.broker_session import BrokerSession, Notes
from bridge.clock import Clock
from bridge.delivery import Delivery
from bridge.forwarder import Forwarder
from bridge.handoff import Handoff
from bridge.handoff.bucket import Bucket
from bridge.intake import Intake
from bridge.journal import AppendIntent, Journal
from bridge.journal.journal import Limits as JournalLimits
from bridge.parsing.timestamps import MICROS
from bridge.policy import RetryPolicy
from bridge.reading import Limits
from bridge.secrets import broker_password
from bridge.settings import Settings
from bridge.sinks.base import Sink
from bridge.subscriber import Subscriber
from bridge.times import from_us

RETRY = RetryPolicy()


def journal_limits(settings: Settings) -> JournalLimits:
    return JournalLimits(
        max_bytes=settings.journal_max_bytes,
        dead_letter_max_bytes=settings.dead_letter_max_bytes,
        retention_us=int(settings.journal_retention_minutes * 60 * MICROS),
        forwarding=_forwards(settings),
        ledger_days=settings.ledger_retention_days,
    )


def reading_limits(settings: Settings) -> Limits:
    return Limits(
        max_payload_bytes=settings.max_payload_bytes,
        max_age_us=int(settings.timestamp_max_age_days * 86_400 * MICROS),
        max_future_us=int(settings.timestamp_max_future_seconds * MICROS),
    )


def destinations(settings: Settings) -> dict[str, str]:
    """Where each sink of this environment leads: what the journal remembers."""
    if settings.local:
        return {"log": "log"}
    project = settings.gcp_project_id
    return {
        "pubsub": f"projects/{project}/topics/{settings.pubsub_topic}",
        "bigquery": (
            f"{project}.{settings.bigquery_dataset}.{settings.bigquery_table}"
            f" by {settings.bigquery_write_method}"
        ),
    }


def subscriber(settings: Settings, journal: Journal, clock: Clock, random: Random) -> Subscriber:
    notes = Notes(
        known=lambda: journal.session,
        remember=journal.remember_session,
        last_seq=lambda: journal.last_seq,
        acknowledged=journal.acknowledged,
    )
    intake = Intake(journal, reading_limits(settings))
    session = BrokerSession(settings, notes)
    return Subscriber(settings, intake, session, clock, random, broker_password(settings))


def handoff(settings: Settings, journal: Journal, clock: Clock) -> Handoff | None:
    """For a journal that is open and active. Raises ConfigurationError."""
    if settings.local or settings.journal_handoff_bucket is None:
        return None
    from bridge.sinks import connect

    bucket = Bucket(settings.journal_handoff_bucket, connect.storage(settings))
    name = f"{from_us(clock.now_us()):%Y%m%dT%H%M%SZ}-{secrets.token_hex(8)}"
    return Handoff(bucket, journal, destinations(settings), name, clock)


def deliveries(
    settings: Settings, journal: Journal, passed_on: Handoff | None, clock: Clock, random: Random
) -> list[Delivery]:
    sinks = _sinks(settings, journal, passed_on, clock)
    return [Delivery(sink, journal, RETRY, clock, random) for sink in sinks]


def forwarder(settings: Settings, journal: Journal, random: Random) -> Forwarder | None:
    if not _forwards(settings):
        return None
    from bridge.sinks.pubsub import LetterPublisher

    return Forwarder(LetterPublisher(settings), journal, RETRY, random)


def _forwards(settings: Settings) -> bool:
    return not settings.local and settings.pubsub_dead_letter_topic is not None


def _sinks(
    settings: Settings, journal: Journal, passed_on: Handoff | None, clock: Clock
) -> list[Sink]:
    """The registry: a new sink is one more line. Imported here, for LOCAL must not import any
    of Google's libraries."""
    if settings.local:
        from bridge.sinks.log import LogSink

        return [LogSink()]
    from bridge.sinks.pubsub import PubSubSink

    return [PubSubSink(settings, clock), _bigquery(settings, journal, passed_on)]


def _bigquery(settings: Settings, journal: Journal, passed_on: Handoff | None) -> Sink:
    if settings.bigquery_write_method == "insert_all":
        from bridge.sinks.bigquery_insert import InsertAllSink

        return InsertAllSink(settings)
    from bridge.sinks.bigquery import StorageWriteSink

    created = passed_on.stream_created if passed_on else _nobody_to_tell
    appends = JournalAppendLog(journal, created)
    return StorageWriteSink(settings, appends, lambda: journal.verify_up_to)


def _nobody_to_tell(_stream: str) -> None:
    """Nobody else could ever append for this journal."""


class JournalAppendLog:
    """The journal as the place of BigQuery's append intents. `created`: is told of each new
    write stream, and may refuse it."""

    def __init__(self, journal: Journal, created: Callable[[str], None] = _nobody_to_tell) -> None:
        self._journal = journal
        self.stream_created = created

    def load(self) -> AppendIntent | None:
        return self._journal.append_intent("bigquery")

    def record(self, intent: AppendIntent) -> None:
        self._journal.record_append("bigquery", intent)

    def foreign_streams(self) -> list[str]:
        return self._journal.foreign_streams()

    def foreign_streams_ended(self) -> None:
        self._journal.foreign_streams_ended()
