"""The container's programs between sensors and local Google services."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.settings import Settings, load
from chaos.sensors import Load, Sensor
from chaos.services import Services, create_table, create_topic
from chaos.verdict import Arrived, Numbers, Verdict, judge
from tests.support.poll import eventually

SITES = ("MOR", "BAG", "SIE", "CHI")
# DEV, and anybody may send: what is proved with it has nothing to do with who may.
DEV = {
    "APP_ENV": "DEV",
    "GCP_PROJECT_ID": "plant-project",
    "PUBSUB_TOPIC": "kpi-events",
    "BIGQUERY_DATASET": "plant",
    "BIGQUERY_TABLE": "readings",
    "MQTT_SECURITY": "open",
    "MQTT_OPEN_ACCEPTED": "true",
}


class Cloud:
    """Local Pub/Sub and BigQuery with topic and table, as a process of their own."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.environ = {**DEV, **services.environment}
        self.settings: Settings = load(self.environ)
        create_topic(self.settings)
        create_table(self.settings)

    def verdict(self, acknowledged: Numbers) -> Verdict:
        """What was acknowledged to the sensors against what is here."""
        return judge(acknowledged, self._arrived(), {})

    def require_all(self, load: Load) -> None:
        """Everything acknowledged is here, each row once, the events in order. For sensors that
        get no more acknowledgements."""
        verdict = self.verdict(load.acknowledged)
        assert verdict.holds, verdict

    def wait_for_all(self, load: Load) -> None:
        """The same, as soon as it has come."""
        eventually(lambda: self.verdict(load.acknowledged).lost == 0, "all has arrived", 60)
        self.require_all(load)

    def _arrived(self) -> Arrived:
        events: dict[str, list[int]] = {}
        for message in self.services.events(self.settings):
            number = int(json.loads(message["data"])["value"])
            events.setdefault(message["ordering_key"], []).append(number)
        rows: dict[str, list[int]] = {}
        for row in self.services.rows(self.settings):
            rows.setdefault(row["site_code"], []).append(int(row["value"]))
        return Arrived(events, rows)


@contextmanager
def cloud(directory: Path) -> Iterator[Cloud]:
    directory.mkdir()
    services = Services(directory)
    services.start()
    try:
        yield Cloud(services)
    finally:
        services.kill()


def load_on(port: int) -> Load:
    """A sensor for each site, as fast as they get their acknowledgements; what Mosquitto forgets
    when it is killed they send again."""
    return Load([Sensor(port, site, rate=500, cover_seconds=10) for site in SITES])


def wait_for_readings(load: Load, more: int) -> None:
    """Until the sensors have so many more acknowledgements."""
    goal = load.count + more
    eventually(lambda: load.count >= goal, f"{more} more readings are acknowledged", 60)
