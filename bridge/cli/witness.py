"""What Pub/Sub and BigQuery hold, asked with Google's own clients and not of the bridge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from google.api_core.exceptions import DeadlineExceeded, GoogleAPIError

from bridge.cli.demo_proof import Content, Event, Row
from bridge.errors import FatalError
from bridge.settings import Settings
from bridge.sinks import connect

PULL_MESSAGES = 1000
PULL_SECONDS = 5.0
CALL_SECONDS = 30.0


class ServiceSilent(FatalError):
    """One of the local services could not be asked."""


class Witness:
    """Takes what is published out of subscriptions of its own, and reads the table.

    events: all that was taken out of Pub/Sub so far, in that order. dead_letters: the same for
    the dead-letter topic, as their JSON objects. Every call blocks, and raises ServiceSilent.
    A context manager, which closes its connections.
    """

    def __init__(self, settings: Settings, letters_subscription: str) -> None:
        project = settings.gcp_project_id
        self._subscriber = connect.subscriber(settings)
        self._bigquery = connect.bigquery(settings)
        self._table = f"{project}.{settings.bigquery_dataset}.{settings.bigquery_table}"
        self._events = f"projects/{project}/subscriptions/{settings.pubsub_subscription}"
        self._letters = f"projects/{project}/subscriptions/{letters_subscription}"
        self._letters_topic = f"projects/{project}/topics/{settings.pubsub_dead_letter_topic}"
        self.events: list[Event] = []
        self.dead_letters: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._subscriber.transport.close()
        self._bigquery.close()

    def subscribe(self) -> None:
        """Make the subscription of dead letters: only what is published after it is seen."""
        request = {"name": self._letters, "topic": self._letters_topic}
        with _asking("Pub/Sub"):
            self._subscriber.create_subscription(request=request, timeout=CALL_SECONDS)

    def look(self) -> None:
        """Take out everything that Pub/Sub has now."""
        with _asking("Pub/Sub"):
            for message in self._taken_from(self._events):
                self.events.append(_event(message))
            for message in self._taken_from(self._letters):
                self.dead_letters.append(json.loads(message.data))

    def row_count(self) -> int:
        """How many rows the table has now."""
        rows = self._query(f"SELECT COUNT(*) AS number FROM `{self._table}`")
        return int(next(rows)["number"])

    def rows(self) -> list[Row]:
        """Every row of the table."""
        columns = "event_id, site_code, pi_tag, sensor_id, event_time, value"
        return [_row(row) for row in self._query(f"SELECT {columns} FROM `{self._table}`")]

    def _query(self, statement: str) -> Iterator[Any]:
        with _asking("BigQuery"):
            return iter(self._bigquery.query(statement).result(timeout=CALL_SECONDS))

    def _taken_from(self, subscription: str) -> Iterator[Any]:
        while received := self._pull(subscription):
            yield from (one.message for one in received)
            ids = [one.ack_id for one in received]
            self._subscriber.acknowledge(
                request={"subscription": subscription, "ack_ids": ids}, timeout=CALL_SECONDS
            )

    def _pull(self, subscription: str) -> list[Any]:
        request = {
            "subscription": subscription,
            "max_messages": PULL_MESSAGES,
            # Discouraged where one waits for messages; here the answer "none" is wanted at once.
            "return_immediately": True,
        }
        try:
            answer = self._subscriber.pull(request=request, timeout=PULL_SECONDS)
        except DeadlineExceeded:
            return []
        return list(answer.received_messages)


@contextmanager
def _asking(service: str) -> Iterator[None]:
    try:
        yield
    except GoogleAPIError as error:
        raise ServiceSilent(f"{service} could not be asked: {error}") from error


def _event(message: Any) -> Event:
    data = json.loads(message.data)
    content = Content(
        data["site_code"], data["kpi"], data["sensor_id"], data["event_time"], data["value"]
    )
    return Event(message.message_id, data["event_id"], content)


def _row(row: Any) -> Row:
    moment = row["event_time"].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    content = Content(row["site_code"], row["pi_tag"], row["sensor_id"], moment, row["value"])
    return Row(row["event_id"], content)
