"""What `check` finds at a real broker: what it shows, what it lets through, what it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from bridge.cli import broker_findings
from bridge.cli.findings import Finding
from bridge.cli.probe import OWN_TOPIC, Heard
from bridge.settings import DEFAULT_FILTER, Settings, load
from tests.support.fake_broker import CONNECT, PUBLISH, Connection, FakeBroker
from tests.support.mosquitto import Mosquitto
from tests.support.poll import eventually

TOPIC = "FCTS/FAE/MOR/SolvExtract/SX1-FLOW"
# As the container's broker has it: reading the readings and the counters, and no writing.
NARROW = f"topic read {DEFAULT_FILTER}\ntopic read $SYS/broker/#\ntopic write {TOPIC}\n"


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with Mosquitto("sys_interval 1") as broker:
        yield broker


def settings(port: int, **more: str) -> Settings:
    return load({"MQTT_BROKER": "127.0.0.1", "MQTT_PORT": str(port), **more})


def found(port: int, taken: int | None = None) -> dict[str, Finding]:
    findings = broker_findings.broker_findings(settings(port), taken)
    return {finding.what: finding for finding in findings}


def restricted(folder: Path, rules: str) -> Mosquitto:
    file = folder / "rules"
    file.write_text(rules)
    file.chmod(0o600)
    return Mosquitto(f"sys_interval 1\nacl_file {file}")


def send(port: int, topic: str, retain: bool = False, payload: bytes = b"x") -> None:
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def test_an_open_broker_shows_its_version_and_its_counters_which_are_of_all_clients(
    broker: Mosquitto,
) -> None:
    eventually(lambda: "broker queue" in found(broker.port), "the counters are published")
    there = found(broker.port)
    assert there["broker"].result == "ok"
    assert there["broker version"].detail.startswith("mosquitto version 2.")
    assert "dropped 0 messages" in there["broker queue"].detail
    assert "all of its clients together" in there["broker queue"].detail


def test_without_a_message_reading_cannot_be_told_unless_the_daemon_has_taken_some(
    broker: Mosquitto,
) -> None:
    silent = found(broker.port)["reading"]
    assert silent.result == "warning"
    assert f"topic read {DEFAULT_FILTER}" in silent.fix
    vouched = found(broker.port, taken=9)["reading"]
    assert vouched.result == "ok"
    assert "taken 9 messages" in vouched.detail


def test_a_message_that_is_delivered_shows_that_reading_is_allowed(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bridge.cli import probe

    monkeypatch.setattr(probe, "LISTEN_SECONDS", 20.0)
    listen = probe._Probe._on_unsubscribe

    def send_now(self: Any, *arguments: Any) -> None:
        listen(self, *arguments)
        send(broker.port, TOPIC)

    monkeypatch.setattr(probe._Probe, "_on_unsubscribe", send_now)
    assert found(broker.port)["reading"].result == "ok"


def test_retained_messages_are_counted_and_said_to_be_ignored(broker: Mosquitto) -> None:
    send(broker.port, TOPIC, retain=True)
    try:
        there = found(broker.port)
    finally:
        send(broker.port, TOPIC, retain=True, payload=b"")
    assert "keeps 1 retained messages" in there["retained"].detail
    assert there["reading"].result == "ok"
    assert "retained" not in found(broker.port)


def test_more_retained_messages_than_are_counted_hide_nothing_else(
    broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bridge.cli import probe

    monkeypatch.setattr(probe, "ENOUGH", 2)
    monkeypatch.setattr(broker_findings, "ENOUGH", 2)
    topics = [f"FCTS/FAE/MOR/SolvExtract/T{number}" for number in range(5)]
    for topic in topics:
        send(broker.port, topic, retain=True)
    try:
        there = found(broker.port)
    finally:
        for topic in topics:
            send(broker.port, topic, retain=True, payload=b"")
    assert "keeps 2 or more retained messages" in there["retained"].detail
    assert there["broker version"].result == "ok"
    assert "came back" in there["writing"].detail


def test_it_writes_once_and_never_under_the_sensors_topics(broker: Mosquitto) -> None:
    heard: list[str] = []
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _c, _u, message: heard.append(message.topic)
    client.connect("127.0.0.1", broker.port)
    client.subscribe("#")
    client.loop_start()
    found(broker.port)
    eventually(lambda: bool(heard), "it is heard")
    client.disconnect()
    client.loop_stop()
    (topic,) = heard
    assert topic.startswith(f"{OWN_TOPIC}/")


def test_a_user_who_may_only_read_is_told_so_and_nothing_is_wrong_with_it(tmp_path: Path) -> None:
    with restricted(tmp_path, NARROW) as broker:
        eventually(lambda: "broker queue" in found(broker.port), "the counters are published")
        there = found(broker.port)
    assert "may not write" in there["writing"].detail
    assert {finding.result for what, finding in there.items() if what != "reading"} == {"ok"}


def test_a_user_who_may_not_see_the_counters_is_told_the_rule_to_add(tmp_path: Path) -> None:
    with restricted(tmp_path, f"topic read {DEFAULT_FILTER}\n") as broker:
        hidden = found(broker.port)
    assert hidden["broker version"].result == "warning"
    assert "topic read $SYS/broker/#" in hidden["broker version"].fix
    assert "broker queue" not in hidden


def test_a_broker_that_knows_only_mqtt_3_is_asked_in_its_own_version() -> None:
    def old(connection: Connection) -> None:
        if connection.five:
            connection.connack(code=132)
            return
        connection.connack()
        connection.suback([1])
        connection.suback([0] * 5, count=2)
        connection.suback([0], count=3)
        connection.unsuback()

    with FakeBroker(old) as broker:
        there = found(broker.port)
        first, second = broker.next(), broker.next()
    assert there["broker"].result == "ok"
    assert (first.wait_for(CONNECT).body[6], second.wait_for(CONNECT).body[6]) == (5, 4)
    (sent,) = second.of(PUBLISH)
    assert OWN_TOPIC.encode() in sent.body


@pytest.mark.parametrize(
    ("counters", "what", "result", "word"),
    [
        ({"version": "mosquitto version 1.6.12"}, "broker version", "warning", "2.0.11"),
        ({"version": "mosquitto version 2.1.2"}, "broker version", "ok", "2.1.2"),
        ({"version": "EMQX 5"}, "broker version", "ok", "EMQX 5"),
        ({"dropped": "17"}, "broker queue", "warning", "max_queued_messages"),
        ({"dropped": "0"}, "broker queue", "ok", "dropped 0 messages"),
    ],
)
def test_an_old_version_and_dropped_messages_are_warned_of_with_the_fix(
    counters: dict[str, str],
    what: str,
    result: str,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker_findings, "probe", lambda _: Heard(None, counters=counters))
    finding = found(1883)[what]
    assert finding.result == result
    assert word in finding.detail + finding.fix
