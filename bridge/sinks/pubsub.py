"""Pub/Sub: one request a lane (site) at a time, many sites in parallel.

The generated client's channel is used with the raw protobuf classes: per message that costs a
tenth of what the high-level publisher does, and it has no batching, retrying or pausing of keys
of its own to disagree with the delivery's.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import grpc
import orjson
from google.pubsub_v1 import PublishRequest, PublishResponse, PubsubMessage

from bridge.errors import Transient
from bridge.journal.letters import DeadLetter
from bridge.policy import BatchPolicy
from bridge.reading import Entry, Reading
from bridge.settings import Settings
from bridge.sinks import connect
from bridge.sinks.base import Outcome
from bridge.sinks.codes import sink_error
from bridge.sinks.letter_json import letter_json
from bridge.times import iso_us

# Quotas of a publish request: 1,000 messages, 10 MB. (cloud.google.com/pubsub/quotas)
POLICY = BatchPolicy(max_entries=1_000, max_bytes=9_000_000)
DEADLINE_SECONDS = 10.0

_Request, _Response, _Message = PublishRequest.pb(), PublishResponse.pb(), PubsubMessage.pb()


def topic_path(project: str, topic: str) -> str:
    return f"projects/{project}/topics/{topic}"


class Publisher:
    """Publishes to one topic. `publish` does not block; safe from any thread."""

    def __init__(
        self, settings: Settings, topic: str, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        self.topic = topic_path(settings.gcp_project_id or "", topic)
        self._deadline_seconds = deadline_seconds
        self._client = connect.publisher(settings)
        self._call = self._client.transport.grpc_channel.unary_unary(
            "/google.pubsub.v1.Publisher/Publish",
            request_serializer=_Request.SerializeToString,
            response_deserializer=_Response.FromString,
        )
        self._metadata = (("x-goog-request-params", f"topic={self.topic}"),)

    def publish(self, messages: list[Any], done: Future[str]) -> None:
        """Begin one request; `done` ends with the last message's id, or with a SinkError."""
        try:
            call = self._call.future(
                _Request(topic=self.topic, messages=messages),
                timeout=self._deadline_seconds,
                metadata=self._metadata,
            )
        except ValueError:  # the channel's word for being closed
            done.set_exception(_closed())
            return
        call.add_done_callback(lambda answer: self._answered(answer, len(messages), done))

    def _answered(self, answer: Any, count: int, done: Future[str]) -> None:
        try:
            ids = answer.result().message_ids
        except grpc.RpcError:
            done.set_exception(sink_error(answer.code().name, answer.details() or "", self.topic))
        except grpc.FutureCancelledError:
            done.set_exception(_closed())
        else:
            if len(ids) == count:
                done.set_result(ids[-1] if ids else "")
            else:
                detail = f"{len(ids)} message ids for {count} messages"
                done.set_exception(Transient("unexpected_answer", detail))

    def close(self) -> None:
        """Open requests end with an error. Idempotent."""
        self._client.transport.close()


class PubSubSink:
    """KPI events, in order per site."""

    name = "pubsub"
    policy = POLICY
    ordered_copies = True

    def __init__(self, settings: Settings, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._settings = settings
        self._deadline_seconds = deadline_seconds
        self._publisher: Publisher | None = None

    def open(self) -> None:
        # Nothing is asked of the service: the right to publish does not include the right to
        # look at the topic.
        if self._publisher is None:
            topic = self._settings.pubsub_topic or ""
            self._publisher = Publisher(self._settings, topic, self._deadline_seconds)

    def lane(self, reading: Reading) -> str:
        return reading.site

    def write(self, batch: Sequence[Entry]) -> Future[Outcome]:
        assert self._publisher is not None, "open() comes first"
        outcome: Future[Outcome] = Future()
        published: Future[str] = Future()
        published.add_done_callback(lambda done: _pass_on(done, batch, outcome))
        self._publisher.publish([_message(entry.reading) for entry in batch], published)
        return outcome

    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.close()


class LetterPublisher:
    """The dead-letter topic: no order, at least once."""

    def __init__(self, settings: Settings) -> None:
        self._publisher = Publisher(settings, settings.pubsub_dead_letter_topic or "")

    def publish(self, letters: Sequence[DeadLetter]) -> None:
        """Blocks until the service has confirmed all of them; raises SinkError."""
        done: Future[str] = Future()
        messages = [_Message(data=letter_json(letter)) for letter in letters]
        self._publisher.publish(messages, done)
        done.result()

    def close(self) -> None:
        self._publisher.close()


def _closed() -> Transient:
    return Transient("cancelled", "the publisher was closed")


def _pass_on(published: Future[str], batch: Sequence[Entry], outcome: Future[Outcome]) -> None:
    error = published.exception()
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(Outcome([entry.seq for entry in batch], {}, published.result()))


def _message(reading: Reading) -> Any:
    event_id = reading.event_id.hex()
    event_time = iso_us(reading.event_us)
    return _Message(
        data=event_json(reading, event_id, event_time),
        attributes={
            "event_id": event_id,
            "event_type": "kpi.reading",
            "schema_version": "1",
            "site_code": reading.site,
            "pi_tag": reading.pi_tag,
            "event_time": event_time,
        },
        ordering_key=reading.site,
    )


def event_json(reading: Reading, event_id: str, event_time: str) -> bytes:
    """The KPI event of a reading, UTF-8 JSON."""
    return orjson.dumps(
        {
            "event_id": event_id,
            "event_type": "kpi.reading",
            "schema_version": 1,
            "site_code": reading.site,
            "process": "SolvExtract",
            "kpi": reading.pi_tag,
            "sensor_id": reading.sensor_id,
            "event_time": event_time,
            "value": reading.value,
            "received_at": iso_us(reading.received_us),
            "attributes": _fragment(reading.attributes),
        }
    )


def _fragment(attributes: str | None) -> orjson.Fragment:
    return orjson.Fragment(b"{}" if attributes is None else attributes.encode())
