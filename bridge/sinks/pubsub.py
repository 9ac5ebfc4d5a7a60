"""Pub/Sub: one request a lane (site) at a time, many sites in parallel.

The generated client's channel is used with the raw protobuf classes: per message that costs a
tenth of what the high-level publisher does, and it has no batching, retrying or pausing of keys
of its own to disagree with the delivery's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import grpc
import orjson
from google.pubsub_v1 import PublishRequest, PublishResponse, PubsubMessage

from bridge.clock import Clock
from bridge.errors import SinkError, Transient
from bridge.journal.letters import DeadLetter
from bridge.policy import BatchPolicy
from bridge.reading import Entry, Reading
from bridge.settings import Settings
from bridge.sinks import connect
from bridge.sinks.base import Outcome
from bridge.sinks.codes import sink_error
from bridge.sinks.key_limit import KeyLimit
from bridge.sinks.letter_json import letter_json
from bridge.times import iso_us

# Quotas of a publish request: 1,000 messages, 10 MB. (cloud.google.com/pubsub/quotas) The bytes are
# bounded by what an ordering key may take in a second or two.
POLICY = BatchPolicy(max_entries=1_000, max_bytes=2_000_000)
DEADLINE_SECONDS = 10.0

Done = Callable[[str | SinkError], None]

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
            request_serializer=None,  # bytes already: their number counts
            response_deserializer=_Response.FromString,
        )
        self._metadata = (("x-goog-request-params", f"topic={self.topic}"),)

    def publish(self, messages: list[Any], done: Done) -> int:
        """Begin one request. `done` is called once, in any thread, with the last message's id
        or with what went wrong. Answers how many bytes the request has."""
        request: bytes = _Request(topic=self.topic, messages=messages).SerializeToString()
        try:
            call = self._call.future(
                request,
                timeout=self._deadline_seconds,
                metadata=self._metadata,
            )
        except ValueError:  # the channel's word for being closed
            done(_closed())
            return 0
        call.add_done_callback(lambda answer: done(self._result(answer, len(messages))))
        return len(request)

    def _result(self, answer: Any, count: int) -> str | SinkError:
        try:
            ids = answer.result().message_ids
        except grpc.RpcError:
            return sink_error(answer.code().name, answer.details() or "", self.topic)
        except grpc.FutureCancelledError:
            return _closed()
        if len(ids) == count:
            return str(ids[-1])
        return Transient("unexpected_answer", f"{len(ids)} message ids for {count} messages")

    def close(self) -> None:
        """Open requests end with an error. Idempotent."""
        self._client.transport.close()


class PubSubSink:
    """KPI events, in order per site."""

    name = "pubsub"
    policy = POLICY
    ordered_copies = True

    def __init__(
        self, settings: Settings, clock: Clock, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        self._settings = settings
        self._deadline_seconds = deadline_seconds
        self._limit = KeyLimit(clock)
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

        def done(answer: str | SinkError) -> None:
            if isinstance(answer, SinkError):
                outcome.set_exception(answer)
            else:
                outcome.set_result(Outcome([entry.seq for entry in batch], {}, answer))

        size = self._publisher.publish([_message(entry.reading) for entry in batch], done)
        self._limit.spend(batch[0].reading.site, size)
        return outcome

    def ready_in(self, lane: str) -> float:
        return self._limit.ready_in(lane)

    def usage(self) -> Mapping[str, float]:
        return self._limit.usage()

    def close(self) -> None:
        if self._publisher is not None:
            self._publisher.close()


class LetterPublisher:
    """The dead-letter topic: no order, at least once."""

    def __init__(self, settings: Settings) -> None:
        self._publisher = Publisher(settings, settings.pubsub_dead_letter_topic or "")

    def publish(self, letters: Sequence[DeadLetter]) -> None:
        """Blocks until the service has confirmed all of them; raises SinkError."""
        answered: Future[str | SinkError] = Future()
        messages = [_Message(data=letter_json(letter)) for letter in letters]
        self._publisher.publish(messages, answered.set_result)
        answer = answered.result()
        if isinstance(answer, SinkError):
            raise answer

    def close(self) -> None:
        self._publisher.close()


def _closed() -> Transient:
    return Transient("cancelled", "the publisher was closed")


def _message(reading: Reading) -> Any:
    event_id = reading.event_id.hex()
    event_time = iso_us(reading.event_us)
    data = event_json(reading, event_id, event_time)
    message = _Message(data=data, ordering_key=reading.site)
    # One by one: protobuf takes three times as long for a mapping that it is given whole.
    attributes = message.attributes
    attributes["event_id"] = event_id
    attributes["event_type"] = "kpi.reading"
    attributes["schema_version"] = "1"
    attributes["site_code"] = reading.site
    attributes["pi_tag"] = reading.pi_tag
    attributes["event_time"] = event_time
    return message


def replayed_message(reading: Reading) -> Any:
    """An event that is sent once more. Without a key: it must hold nothing up that is in order."""
    message = _message(reading)
    message.ClearField("ordering_key")
    message.attributes["replay"] = "true"
    return message


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
