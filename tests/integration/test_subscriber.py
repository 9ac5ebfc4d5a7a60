"""The subscriber with a real Mosquitto."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bridge.journal.journal import Limits
from tests.support.journals import rows
from tests.support.mosquitto import Mosquitto
from tests.support.poll import eventually
from tests.support.subscribing import Subscribing, mqtt_settings

TOPIC = "FCTS/FAE/MOR/SolvExtract/SX1-FLOW"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture(scope="module")
def shared() -> Iterator[Mosquitto]:
    with Mosquitto("sys_interval 1") as made:
        yield made


@pytest.fixture
def broker(shared: Mosquitto) -> Iterator[Mosquitto]:
    """One for the whole file; each test is given it without sessions and retained messages."""
    yield shared
    for name in ("bridge", "second"):
        with Sender(shared.port, client_id=name, clean=True):
            pass


class Sender:
    """A client that publishes; leaving waits until the broker has taken everything."""

    def __init__(self, port: int, client_id: str = "sender", clean: bool = True) -> None:
        self._client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv311,
            clean_session=clean,
        )
        self._client.max_inflight_messages_set(1000)
        self._port = port

    def __enter__(self) -> Sender:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        eventually(self._client.is_connected, "the sender is connected")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def send(self, payload: bytes, topic: str = TOPIC, qos: int = 1, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos, retain).wait_for_publish(10)


def reading(value: float, site: str = "MOR") -> bytes:
    members = {"site_code": site, "sensor_id": "FT-1", "timestamp": 1.79e9, "value": value}
    return json.dumps(members).encode()


def subscribing(
    path: Path, broker: Mosquitto, limits: Limits | None = None, **changes: Any
) -> Subscribing:
    settings = mqtt_settings(broker.port, timestamp_max_future_seconds=3e8, **changes)
    return Subscribing(path, settings, limits)


def send(broker: Mosquitto, first: int, count: int, **options: Any) -> None:
    with Sender(broker.port) as sender:
        for number in range(first, first + count):
            sender.send(reading(number), **options)


# --- the session ----------------------------------------------------------------------------------


def test_the_session_is_kept_over_a_stop_and_what_came_meanwhile_follows_in_order(
    path: Path, broker: Mosquitto
) -> None:
    with subscribing(path, broker) as bench:
        bench.wait_subscribed()
        send(broker, 0, 5)
        bench.wait_taken(5)
    send(broker, 5, 20)
    with subscribing(path, broker) as bench:
        bench.wait_taken(20)
        assert bench.values == [float(number) for number in range(25)]
        assert bench.subscriber.sessions_lost == 0
        assert bench.duplicates == 0


def test_a_session_outlives_its_expiry_no_longer_than_that(path: Path, broker: Mosquitto) -> None:
    with subscribing(path, broker, mqtt_session_expiry_seconds=0) as bench:
        bench.wait_subscribed()
    send(broker, 0, 5)
    with subscribing(path, broker) as bench:
        bench.wait_subscribed()
        send(broker, 5, 1)
        bench.wait_taken(1)
        assert bench.values == [5.0]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_publishers_of_each_quality_of_service_are_heard(
    path: Path, broker: Mosquitto, qos: int
) -> None:
    with subscribing(path, broker) as bench:
        bench.wait_subscribed()
        send(broker, 0, 20, qos=qos)
        bench.wait_taken(20)
        assert bench.values == [float(number) for number in range(20)]
        assert bench.duplicates == 0


def test_retained_copies_are_not_taken_but_live_messages_published_with_retain_are(
    path: Path, broker: Mosquitto
) -> None:
    with Sender(broker.port) as sender:
        sender.send(reading(1), retain=True)
    try:
        with subscribing(path, broker) as bench:
            bench.wait_subscribed()
            send(broker, 2, 1, retain=True)
            bench.wait_taken(1)
        with Sender(broker.port) as sender:  # while it is away, and the broker queues
            sender.send(reading(3), retain=True)
        with subscribing(path, broker) as bench:
            bench.wait_taken(1)
            send(broker, 4, 1)
            bench.wait_taken(2)
            assert bench.values == [2.0, 3.0, 4.0]
            assert bench.subscriber.retained_ignored == 0
    finally:
        with Sender(broker.port) as sender:
            sender.send(b"", retain=True)


def test_a_changed_filter_leaves_the_former_one_behind(path: Path, broker: Mosquitto) -> None:
    with subscribing(path, broker, mqtt_topic="FCTS/FAE/OLD/SolvExtract/+") as bench:
        bench.wait_subscribed()
    with subscribing(path, broker, mqtt_shared_group="twins") as bench:
        bench.wait_subscribed()
        eventually(lambda: "$share" in (bench.journal.session or ""), "the old one is left")
        with Sender(broker.port) as sender:
            sender.send(reading(1, "OLD"), "FCTS/FAE/OLD/SolvExtract/T")
            sender.send(reading(2))
        bench.wait_taken(2)
        assert bench.values == [1.0, 2.0]
        assert bench.duplicates == 0  # not both by the one and by the other


def test_bridges_of_one_group_share_what_comes(path: Path, broker: Mosquitto) -> None:
    other = path.with_name("other.db")
    with (
        subscribing(path, broker, mqtt_shared_group="twins") as one,
        subscribing(other, broker, mqtt_shared_group="twins", mqtt_client_id="second") as two,
    ):
        one.wait_subscribed()
        two.wait_subscribed()
        send(broker, 0, 50)
        eventually(
            lambda: one.subscriber.taken + two.subscriber.taken >= 50, "they take all between them"
        )
        assert sorted(one.values + two.values) == [float(number) for number in range(50)]
        assert one.values
        assert two.values


def test_the_brokers_count_of_dropped_messages_is_read(path: Path, broker: Mosquitto) -> None:
    with subscribing(path, broker) as bench:
        eventually(lambda: bench.subscriber.broker_dropped is not None, "the count is read")
        assert bench.subscriber.taken == 0


def test_two_clients_with_one_id_are_not_at_each_others_throat(
    path: Path, broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    other = path.with_name("other.db")
    with subscribing(path, broker) as one, subscribing(other, broker) as two:
        eventually(
            lambda: "Another client" in (one.subscriber.problem or two.subscriber.problem or ""),
            "one of them says it",
        )
        send(broker, 0, 50)
        eventually(
            lambda: len(set(one.values + two.values)) == 50, "nothing is lost between them", 30
        )
    assert broker.log.count("already connected, closing old connection") < 20


# --- what is judged -------------------------------------------------------------------------------


def test_empty_payloads_strange_topics_and_payloads_at_the_limit(
    path: Path, broker: Mosquitto
) -> None:
    at_limit = reading(1)[:-1] + b" " * (65_536 - len(reading(1))) + b"}"
    with subscribing(path, broker, mqtt_topic="#") as bench:
        bench.wait_subscribed()
        with Sender(broker.port) as sender:
            sender.send(b"")
            sender.send(at_limit)
            sender.send(at_limit + b" ")
            sender.send(reading(2, "Ж😀"), "FCTS/FAE/Ж😀/SolvExtract/T")
            sender.send(reading(3), "FCTS//MOR/SolvExtract/T")
            sender.send(b"x" * 9_000_000)
        bench.wait_taken(6)
        assert bench.values == [1.0, 2.0]
        reasons = [reason for (reason,) in rows(path, "SELECT reason FROM dead_letters")]
        assert reasons == [
            "payload_not_json",
            "payload_too_large",
            "topic_malformed",
            "payload_too_large",
        ]


# --- no room for dead letters ---------------------------------------------------------------------


def test_refused_messages_wait_with_the_broker_until_there_is_room_and_are_then_stored(
    path: Path, broker: Mosquitto
) -> None:
    bad = [b"bad %d" % number for number in range(10)]
    with subscribing(path, broker, Limits(dead_letter_max_bytes=1_600)) as bench:
        bench.wait_subscribed()
        with Sender(broker.port) as sender:
            for number, payload in enumerate(bad):
                sender.send(payload)
                sender.send(reading(number))
        eventually(lambda: len(bench.values) == 10, "the readings behind them go on")
        kept = stored(path)
        assert 0 < len(kept) < 10
        seen = set(kept)
        while len(seen) < 10:  # an operator makes room as often as it takes
            purge(path)
            wait_for_others(path, seen)
            seen.update(stored(path))
        assert seen == set(bad)
        assert len(bench.values) == 10
        eventually(lambda: bench.journal.sites()["MOR"].rejected == 10, "each is counted once")


def wait_for_others(path: Path, seen: set[bytes]) -> None:
    eventually(lambda: not seen.issuperset(stored(path)), "others are stored")


def stored(path: Path) -> list[bytes]:
    return [bytes(payload) for (payload,) in rows(path, "SELECT payload FROM dead_letters")]  # type: ignore[call-overload]


def purge(path: Path) -> None:
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    db.execute("DELETE FROM dead_letters")
    db.close()
