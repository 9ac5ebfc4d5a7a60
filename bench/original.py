"""The original design, as plainly as it is usually written: one reading after the other.

In `on_message`: parse, check, publish one message to Pub/Sub, insert one row into BigQuery with
`insert_rows_json`. paho acknowledges when the callback returns. It is not slowed down beyond that:
it does not wait for Pub/Sub's answer (an error is logged when it comes), and QoS 1 loses nothing
while it runs.

    python -m bench.original        # configured as the bridge is, by the environment

Prints "subscribed".
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import Future
from typing import Any

import click
import paho.mqtt.client as mqtt
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, pubsub_v1
from paho.mqtt.enums import CallbackAPIVersion

from bridge import settings

log = logging.getLogger("original")
REQUIRED = ("site_code", "sensor_id", "timestamp", "value")


class Original:
    """The script's state: its clients, and where they write to."""

    def __init__(self) -> None:
        own = settings.load()
        self._broker = (own.mqtt_broker, own.mqtt_port)
        self._filter = own.mqtt_topic
        self._publisher = pubsub_v1.PublisherClient(
            publisher_options=pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
        )
        self._topic = self._publisher.topic_path(own.gcp_project_id, own.pubsub_topic)
        self._bigquery = bigquery.Client(own.gcp_project_id, AnonymousCredentials())
        self._table = f"{own.gcp_project_id}.{own.bigquery_dataset}.{own.bigquery_table}"

    def run(self) -> None:
        """Blocks for ever."""
        host, port = self._broker
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="original")
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: click.echo("subscribed")
        client.on_message = self._on_message
        client.connect(host, port)
        client.loop_forever()

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe(self._filter, qos=1)

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        levels = message.topic.split("/")
        try:
            reading = json.loads(message.payload)
        except ValueError:
            log.error("not JSON: %s", message.topic)
            return
        if len(levels) != 5 or any(name not in reading for name in REQUIRED):
            log.error("not a reading: %s", message.topic)
            return
        self._publish(levels[4], reading)
        self._insert(levels[4], message.topic, reading)

    def _publish(self, tag: str, reading: dict[str, Any]) -> None:
        event = {
            "event_type": "kpi.reading",
            "site_code": reading["site_code"],
            "kpi": tag,
            "sensor_id": reading["sensor_id"],
            "event_time": reading["timestamp"],
            "value": reading["value"],
        }
        future = self._publisher.publish(
            self._topic, json.dumps(event).encode(), ordering_key=reading["site_code"]
        )
        future.add_done_callback(_noted)

    def _insert(self, tag: str, topic: str, reading: dict[str, Any]) -> None:
        row = {
            "event_id": f"{reading['sensor_id']}-{reading['timestamp']}",
            "site_code": reading["site_code"],
            "pi_tag": tag,
            "sensor_id": reading["sensor_id"],
            "event_time": reading["timestamp"],
            "value": reading["value"],
            "received_at": reading["timestamp"],
            "mqtt_topic": topic,
        }
        if errors := self._bigquery.insert_rows_json(self._table, [row]):
            log.error("BigQuery refused a row: %s", errors)


def _noted(published: Future[str]) -> None:
    if error := published.exception():
        log.error("Pub/Sub refused an event: %s", error)


if __name__ == "__main__":
    Original().run()
