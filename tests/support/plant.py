"""A whole plant on this machine: broker, local Google services, the bridge as a process."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bridge.cli.publishing import Publisher
from bridge.settings import Settings, load
from chaos.bridge_process import Bridge
from chaos.services import create_table, create_topic
from localgcp.server import LocalServices
from tests.support.mosquitto import Mosquitto
from tests.support.poll import eventually

PROJECT, DATASET, TABLE, TOPIC = "plant-project", "plant", "readings", "kpi-events"
FULL_TOPIC = f"projects/{PROJECT}/topics/{TOPIC}"
SITES = ("MOR", "BAG", "SIE", "CHI", "SAF")


class Arrived(NamedTuple):
    """What the services hold: values by site in order of first occurrence, and in all rows."""

    events: dict[str, list[float]]
    copies: int
    rows: dict[str, list[float]]
    doubled_rows: int


class Plant:
    """Made by `plant()`."""

    def __init__(self, directory: Path, broker: Mosquitto, services: LocalServices) -> None:
        self.directory = directory
        self.broker = broker
        self.services = services
        self._bridges: list[Bridge] = []
        self.environment = {
            "PATH": os.environ.get("PATH", ""),
            "APP_ENV": "DEV",
            "GCP_PROJECT_ID": PROJECT,
            "PUBSUB_TOPIC": TOPIC,
            "BIGQUERY_DATASET": DATASET,
            "BIGQUERY_TABLE": TABLE,
            "MQTT_BROKER": "127.0.0.1",
            "MQTT_PORT": str(broker.port),
            "JOURNAL_PATH": str(directory / "journal" / "journal.db"),
            "LOG_FORMAT": "json",
            **services.environment(),
        }
        self.provision()

    def settings(self, **changes: str) -> Settings:
        return load({**self.environment, **changes})

    def provision(self) -> None:
        """Make topic and table."""
        settings = self.settings()
        create_topic(settings)
        create_table(settings)

    def bridge(self, **changes: str) -> Bridge:
        made = Bridge(self.directory, {**self.environment, **changes})
        self._bridges.append(made)
        return made

    def kill_bridges(self) -> None:
        """Whatever a failed test has left running."""
        for bridge in self._bridges:
            bridge.kill()

    @contextmanager
    def publisher(self) -> Iterator[Publisher]:
        with Publisher(self.settings(), "sensors") as publisher:
            yield publisher

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Send with QoS 1, and wait until the broker has acknowledged all."""
        with self.publisher() as publisher:
            for topic, payload in messages:
                publisher.publish(topic, payload)
            publisher.settle()
            assert publisher.counts().refused == 0, publisher.counts()

    def arrived(self) -> Arrived:
        events: dict[str, list[float]] = defaultdict(list)
        seen: set[str] = set()
        copies = 0
        for message in self.services.pubsub.messages(FULL_TOPIC):
            event = json.loads(message.data)
            assert message.ordering_key == event["site_code"]
            copies += event["event_id"] in seen
            if event["event_id"] not in seen:
                seen.add(event["event_id"])
                events[event["site_code"]].append(event["value"])
        rows: dict[str, list[float]] = defaultdict(list)
        ids = []
        for row in self.services.tables.rows(PROJECT, DATASET, TABLE):
            rows[row["site_code"]].append(row["value"])
            ids.append(row["event_id"])
        return Arrived(dict(events), copies, dict(rows), len(ids) - len(set(ids)))

    def require_all(self, count: int, sites: Sequence[str] = SITES) -> None:
        """The numbered readings 0 to `count` are in both sinks: Pub/Sub in order per site, by
        first occurrence; BigQuery each once."""
        arrived = self.arrived()
        for index, site in enumerate(sites):
            expected = [float(number) for number in range(index, count, len(sites))]
            assert arrived.events.get(site, []) == expected
            assert sorted(arrived.rows.get(site, [])) == expected
        assert arrived.doubled_rows == 0


@contextmanager
def plant(directory: Path, broker_lines: str = "") -> Iterator[Plant]:
    """Everything but the bridge, ready."""
    with Mosquitto(broker_lines) as broker, LocalServices() as services:
        made = Plant(directory, broker, services)
        try:
            yield made
        finally:
            made.kill_bridges()


def numbered(
    count: int, sites: Sequence[str] = SITES, first: int = 0
) -> Iterator[tuple[str, bytes]]:
    """Messages of readings whose values are their numbers, the sites in turn."""
    now = int(time.time() * 1000)
    for number in range(first, first + count):
        site = sites[number % len(sites)]
        payload = {
            "site_code": site,
            "sensor_id": f"FT-{number % 50}",
            "timestamp": now + number,
            "value": number,
        }
        topic = f"FCTS/FAE/{site}/SolvExtract/SX1-FLOW-{number % 50}"
        yield topic, json.dumps(payload).encode()


def settle(bridge: Bridge, accepted: int, seconds: float = 60) -> None:
    """Wait until the bridge has accepted and settled this many."""
    eventually(lambda: bridge.settled(accepted), f"{accepted} readings are settled", seconds)
