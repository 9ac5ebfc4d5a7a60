"""`provision` and `check` against a real broker and the local Google services."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.sinks import connect
from localgcp.faults import Fault
from localgcp.server import LocalServices
from tests.support.mosquitto import Mosquitto
from tests.support.plant import ROOT, Plant

TABLE = "plant-project.plant.readings"


class Empty(Plant):
    """A plant in whose cloud there is nothing yet."""

    def provision(self) -> None:
        self.environment |= {
            "PUBSUB_SUBSCRIPTION": "kpi-subscription",
            "PUBSUB_DEAD_LETTER_TOPIC": "dead-letters",
        }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Empty]:
    with Mosquitto() as broker, LocalServices() as services:
        yield Empty(tmp_path, broker, services)


def command(site: Plant, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "mqtt_subscriber.py"), *arguments],
        env={**site.environment, **changes},
        capture_output=True,
        text=True,
        timeout=60,
    )


def results(site: Plant, **changes: str) -> dict[str, dict[str, Any]]:
    done = command(site, "check", "--format", "json", **changes)
    return {finding["what"]: finding for finding in json.loads(done.stdout)}


def test_provision_creates_what_is_missing_once_and_check_is_content_then(site: Empty) -> None:
    assert command(site, "check").returncode == 1
    first = json.loads(command(site, "provision", "--format", "json").stdout)
    assert [step["result"] for step in first] == ["created"] * 5
    again = json.loads(command(site, "provision", "--format", "json").stdout)
    assert [step["result"] for step in again] == ["exists"] * 5
    assert [step["note"] for step in again] == [""] * 5
    done = command(site, "check")
    assert done.returncode == 0, done.stdout


def test_what_provision_makes_is_what_the_bridge_needs(site: Empty) -> None:
    command(site, "provision")
    settings = site.settings()
    topic = connect.publisher(settings).get_topic(
        topic="projects/plant-project/topics/kpi-events", retry=None
    )
    assert topic.message_retention_duration.days == 7
    subscription = connect.subscriber(settings).get_subscription(
        subscription="projects/plant-project/subscriptions/kpi-subscription", retry=None
    )
    assert subscription.enable_message_ordering
    table = connect.bigquery(settings).get_table(TABLE)
    assert (table.time_partitioning.field, table.time_partitioning.type_) == ("event_time", "DAY")
    assert table.clustering_fields == ["site_code", "pi_tag"]
    assert [(f.name, f.field_type, f.mode) for f in table.schema] == [
        ("event_id", "STRING", "REQUIRED"),
        ("site_code", "STRING", "REQUIRED"),
        ("pi_tag", "STRING", "REQUIRED"),
        ("sensor_id", "STRING", "REQUIRED"),
        ("event_time", "TIMESTAMP", "REQUIRED"),
        ("value", "FLOAT", "REQUIRED"),
        ("received_at", "TIMESTAMP", "REQUIRED"),
        ("mqtt_topic", "STRING", "REQUIRED"),
        ("attributes", "JSON", "NULLABLE"),
    ]


def test_provision_says_what_it_could_not_create_and_exits_with_70(site: Empty) -> None:
    site.services.faults.add(
        Fault(call="pubsub.CreateTopic", status="PERMISSION_DENIED", message="no", times=None)
    )
    done = command(site, "provision")
    assert done.returncode == 70
    assert "roles/pubsub" in done.stdout
    assert "created  table" in done.stdout


def test_in_local_there_is_nothing_to_provision_and_check_looks_at_broker_and_journal(
    site: Empty,
) -> None:
    assert "nothing to provision" in command(site, "provision", APP_ENV="LOCAL").stdout
    assert set(results(site, APP_ENV="LOCAL")) == {"configuration", "broker", "journal", "disk"}


def test_check_names_each_missing_thing_with_its_fix(site: Empty) -> None:
    found = results(site)
    failed = {what for what, finding in found.items() if finding["result"] == "failed"}
    assert failed == {"topic", "dead-letter topic", "subscription", "dataset"}
    assert all("provision" in found[what]["fix"] for what in failed)


def test_a_topic_with_neither_subscription_nor_retention_fails(site: Empty) -> None:
    command(site, "provision")
    publisher = connect.publisher(site.settings())
    publisher.create_topic(name="projects/plant-project/topics/leaky", retry=None)
    found = results(site, PUBSUB_TOPIC="leaky", PUBSUB_SUBSCRIPTION="")
    assert found["topic"]["result"] == "failed"
    assert "throws events away" in found["topic"]["detail"]


def test_a_missing_and_a_differently_typed_column_fail_and_a_further_one_does_not(
    site: Empty,
) -> None:
    command(site, "provision")
    fields = [
        {"name": name, "type": kind, "mode": mode}
        for name, kind, mode in (
            ("event_id", "STRING", "REQUIRED"),
            ("site_code", "STRING", "REQUIRED"),
            ("pi_tag", "STRING", "REQUIRED"),
            ("sensor_id", "STRING", "REQUIRED"),
            ("event_time", "TIMESTAMP", "REQUIRED"),
            ("value", "FLOAT", "REQUIRED"),
            ("received_at", "TIMESTAMP", "REQUIRED"),
            ("mqtt_topic", "STRING", "REQUIRED"),
            ("attributes", "JSON", "NULLABLE"),
            ("comment", "STRING", "NULLABLE"),
        )
    ]
    site.services.tables.set_schema(TABLE, {"fields": fields})
    assert command(site, "check").returncode == 0
    fields[5]["type"] = "STRING"
    site.services.tables.set_schema(TABLE, {"fields": fields[1:]})
    done = command(site, "check")
    assert done.returncode == 1
    assert "column event_id is missing" in done.stdout
    assert "column value is STRING" in done.stdout


def test_a_broker_that_is_not_there_fails_within_bounds(site: Empty) -> None:
    found = results(site, MQTT_PORT="1", APP_ENV="LOCAL")
    assert found["broker"]["result"] == "failed"
    assert "MQTT_BROKER" in found["broker"]["fix"]


def test_without_a_regional_endpoint_check_warns_outside_emulators(site: Empty) -> None:
    from bridge.cli.findings import require_endpoint

    assert require_endpoint(site.settings()) == []
    real = site.settings(PUBSUB_EMULATOR_HOST="")
    (finding,) = require_endpoint(real)
    assert finding.result == "warning"
    assert "PUBSUB_ENDPOINT" in finding.detail
