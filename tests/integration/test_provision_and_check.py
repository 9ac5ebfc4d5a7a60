"""`provision` and `check` against a real broker and the local Google services."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from google.cloud.bigquery import SchemaField, Table

from bridge.sinks import connect
from chaos.bridge_process import ROOT
from localgcp.faults import Fault
from localgcp.server import LocalServices
from tests.support.fake_broker import CONNECT, Connection, FakeBroker
from tests.support.mosquitto import Mosquitto
from tests.support.plant import Plant, numbered, settle

TABLE = "plant-project.plant.readings"


class Empty(Plant):
    """A plant in whose cloud there is nothing yet."""

    def provision(self) -> None:
        self.environment |= {
            "PUBSUB_SUBSCRIPTION": "kpi-subscription",
            "PUBSUB_DEAD_LETTER_TOPIC": "dead-letters",
            "PORT": "1",  # where no bridge answers
        }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Empty]:
    # The counters soon: until then Mosquitto publishes but some of them.
    with Mosquitto("sys_interval 1") as broker, LocalServices() as services:
        made = Empty(tmp_path, broker, services)
        yield made
        made.kill_bridges()


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
    found = results(site, APP_ENV="LOCAL")
    broker = {"broker", "broker version", "broker queue", "reading", "writing"}
    assert set(found) == {"configuration", "daemon", "journal", "disk", "outage"} | broker


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
    site.services.tables.delete_table(TABLE)
    site.services.tables.create_table(TABLE, {"schema": {"fields": fields[1:]}})
    done = command(site, "check")
    assert done.returncode == 1
    assert "column event_id is missing" in done.stdout
    assert "column value is STRING" in done.stdout


def test_a_broker_that_is_not_there_fails_within_bounds(site: Empty) -> None:
    found = results(site, MQTT_PORT="1", APP_ENV="LOCAL")
    assert found["broker"]["result"] == "failed"
    assert "MQTT_BROKER" in found["broker"]["fix"]


def test_without_a_regional_endpoint_check_warns_outside_emulators(site: Empty) -> None:
    from bridge.cli.pubsub_findings import endpoint_findings

    assert endpoint_findings(site.settings(), None) == []
    real = site.settings(PUBSUB_EMULATOR_HOST="")
    (finding,) = endpoint_findings(real, None)
    assert finding.result == "warning"
    assert "PUBSUB_ENDPOINT" in finding.detail


def steps(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """By the kind of resource."""
    return {step["resource"].split()[0]: step for step in json.loads(done.stdout)}


def unordered(site: Empty) -> None:
    """A subscription as somebody makes it who does not know about ordering."""
    settings = site.settings()
    topic = "projects/plant-project/topics/kpi-events"
    connect.publisher(settings).create_topic(name=topic, retry=None)
    connect.subscriber(settings).create_subscription(
        name="projects/plant-project/subscriptions/kpi-subscription", topic=topic, retry=None
    )


def test_two_that_provision_at_once_share_the_work(site: Empty) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: command(site, "provision", "--format", "json"), range(2)))
    assert [done.returncode for done in runs] == [0, 0]
    both = [json.loads(done.stdout) for done in runs]
    for one, other in zip(*both, strict=True):
        assert sorted((one["result"], other["result"])) == ["created", "exists"], one["resource"]


def test_whoever_may_not_create_is_told_what_exists_already(site: Empty) -> None:
    command(site, "provision")
    for call, status in (
        ("pubsub.Create*", "PERMISSION_DENIED"),
        ("bigquery.datasets.insert", "403"),
        ("bigquery.tables.insert", "403"),
    ):
        site.services.faults.add(Fault(call=call, status=status, times=None))
    done = command(site, "provision", "--format", "json")
    assert done.returncode == 0
    assert [step["result"] for step in json.loads(done.stdout)] == ["exists"] * 5


def test_what_was_created_though_the_answer_was_lost_is_there(site: Empty) -> None:
    site.services.faults.add(Fault(call="pubsub.CreateTopic", kind="answer_lost"))
    done = command(site, "provision", "--format", "json", PUBSUB_DEAD_LETTER_TOPIC="")
    assert done.returncode == 0
    assert steps(done)["topic"]["result"] == "exists"


def test_a_thing_that_exists_and_cannot_be_looked_at_is_no_failure_to_create(site: Empty) -> None:
    command(site, "provision")
    site.services.faults.add(Fault(call="bigquery.tables.get", status="403", times=None))
    done = command(site, "provision", "--format", "json")
    assert done.returncode == 0
    assert steps(done)["table"]["result"] == "exists"
    assert "could not be looked at" in steps(done)["table"]["note"]


def test_the_dataset_is_made_where_the_option_says(site: Empty) -> None:
    command(site, "provision", "--location", "europe-west3")
    assert site.services.tables.dataset("plant-project.plant")["location"] == "europe-west3"


def test_a_subscription_without_ordering_is_said_and_left_as_it_is(site: Empty) -> None:
    unordered(site)
    done = command(site, "provision", "--format", "json")
    assert done.returncode == 0
    assert steps(done)["subscription"]["result"] == "exists"
    assert "without message ordering" in steps(done)["subscription"]["note"]
    kept = connect.subscriber(site.settings()).get_subscription(
        subscription="projects/plant-project/subscriptions/kpi-subscription", retry=None
    )
    assert not kept.enable_message_ordering
    found = results(site)["subscription"]
    assert found["result"] == "failed"
    assert "without message ordering" in found["detail"]


def test_a_table_that_does_not_fit_is_said_and_left_as_it_is(site: Empty) -> None:
    bigquery = connect.bigquery(site.settings())
    bigquery.create_dataset("plant")
    bigquery.create_table(Table(TABLE, schema=[SchemaField("event_id", "STRING", "REQUIRED")]))
    done = command(site, "provision", "--format", "json")
    assert done.returncode == 0
    assert "column value is missing: add it as FLOAT" in steps(done)["table"]["note"]
    assert len(bigquery.get_table(TABLE).schema) == 1


def test_a_subscription_of_another_topic_is_named_with_it(site: Empty) -> None:
    command(site, "provision")
    command(site, "provision", PUBSUB_TOPIC="other-topic", PUBSUB_SUBSCRIPTION="")
    found = results(site, PUBSUB_TOPIC="other-topic")["subscription"]
    assert found["result"] == "failed"
    assert "belongs to topic kpi-events" in found["detail"]


def test_without_credentials_the_other_parts_are_still_checked(site: Empty) -> None:
    command(site, "provision")
    found = results(
        site,
        PUBSUB_EMULATOR_HOST="",
        PUBSUB_ENDPOINT="us-central1-pubsub.googleapis.com",
        GOOGLE_APPLICATION_CREDENTIALS=str(site.directory / "none.json"),
    )
    assert found["broker"]["result"] == found["table"]["result"] == "ok"
    assert found["Pub/Sub"]["result"] == "failed"
    assert "no Google credentials" in found["Pub/Sub"]["detail"]
    assert "service account" in found["Pub/Sub"]["fix"]


def test_a_right_that_is_missing_names_the_role_to_grant(site: Empty) -> None:
    command(site, "provision")
    site.services.faults.add(
        Fault(call="pubsub.GetTopic", status="PERMISSION_DENIED", message="denied", times=None)
    )
    site.services.faults.add(
        Fault(call="bigquery.tables.get", status="403", message="denied", times=None)
    )
    found = results(site)
    assert "roles/pubsub" in found["Pub/Sub"]["fix"]
    assert "roles/bigquery" in found["BigQuery"]["fix"]


def test_a_service_that_does_not_tell_of_rights_is_no_finding(site: Empty) -> None:
    command(site, "provision")
    site.services.faults.add(
        Fault(call="bigquery.tables.testIamPermissions", status="501", times=None)
    )
    assert results(site)["table"]["result"] == "ok"


@pytest.mark.slow
def test_services_that_never_answer_are_given_up_within_bounds(site: Empty) -> None:
    site.services.faults.add(Fault(call="*", kind="hang", times=None))
    done = command(site, "check")  # which itself is given 60 s
    assert done.returncode == 1
    assert "failed   Pub/Sub" in done.stdout
    assert "failed   BigQuery" in done.stdout


def test_each_finding_is_one_line_whatever_a_service_says(site: Empty) -> None:
    message = "first\nsecond\x1b[31m"
    site.services.faults.add(Fault(call="pubsub.GetTopic", status="INTERNAL", message=message))
    (line,) = [line for line in command(site, "check").stdout.splitlines() if "Pub/Sub:" in line]
    assert "first second\\x1b[31m" in line


def test_a_broker_that_refuses_the_connection_fails_with_its_reason(tmp_path: Path) -> None:
    with Mosquitto("allow_anonymous false") as broker, LocalServices() as services:
        found = results(Empty(tmp_path, broker, services), APP_ENV="LOCAL")["broker"]
    assert found["result"] == "failed"
    assert "Not authorized" in found["detail"]
    assert "MQTT_USERNAME" in found["fix"]


def test_a_broker_that_refuses_the_subscription_fails(site: Empty) -> None:
    def refuse(connection: Connection) -> None:
        connection.connack()
        connection.suback(codes=[0x87])

    with FakeBroker(refuse) as broker:
        found = results(site, APP_ENV="LOCAL", MQTT_PORT=str(broker.port))["broker"]
    assert found["result"] == "failed"
    assert "the subscription is refused: Not authorized" in found["detail"]


def test_beside_a_running_bridge_check_shows_what_it_says_of_itself_and_disturbs_nothing(
    site: Empty,
) -> None:
    command(site, "provision")
    bridge = site.bridge()
    bridge.start()
    site.publish(numbered(5))
    settle(bridge, 5)
    found = results(site, PORT=str(bridge.port))
    assert {finding["result"] for finding in found.values()} == {"ok"}
    assert "takes readings" in found["daemon"]["detail"]
    assert "5 messages taken" in found["session"]["detail"]
    assert "the running daemon has taken 5 messages" in found["reading"]["detail"]
    assert {"sink pubsub", "sink bigquery"} <= set(found)
    assert "the connection to the broker ended" not in bridge.log
    assert bridge.ledger()["totals"]["received"] == 5
    assert bridge.terminate() == 0


def test_check_takes_neither_the_daemons_session_nor_its_journal(site: Empty) -> None:
    def accept(connection: Connection) -> None:
        connection.accept()
        connection.suback([0] * 5, count=2)
        connection.suback([0], count=3)
        connection.unsuback()

    with FakeBroker(accept) as broker:
        changes = {"APP_ENV": "LOCAL", "MQTT_PORT": str(broker.port), "MQTT_CLIENT_ID": "daemon"}
        assert results(site, **changes)["broker"]["result"] == "ok"
        body = broker.next().wait_for(CONNECT).body
    assert b"daemon" not in body
    assert b"fcts-check-" in body
    assert body[7] & 2, "clean start"
    assert not Path(site.environment["JOURNAL_PATH"]).parent.exists()
