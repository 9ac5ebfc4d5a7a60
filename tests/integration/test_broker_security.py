"""The container's Mosquitto and HAProxy with real sensors: who is let in, and what is delivered.

Mosquitto grants every subscription and acknowledges what it refuses, so what counts is only what
reaches the bridge: the reading in question is followed by a good one, and once that has come, the
other would have come before it.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from container.settings import MADE_OF, Security
from tests.support.poll import eventually
from tests.support.security import SITE, SPACED_SITE, Material, material
from tests.support.sensor import Credentials, Door, Refused, Sensor, Transport
from tests.support.subscribing import Subscribing
from tests.support.way_in import WayIn

MOST_BYTES = 80_000
numbers = itertools.count()


def topic(site: str) -> str:
    return f"FCTS/FAE/{site}/SolvExtract/FLOW"


def reading(site: str, number: int, padding: int = 0) -> bytes:
    members = {"site_code": site, "sensor_id": "S1", "timestamp": time.time(), "value": number}
    return json.dumps({**members, "padding": "x" * padding}).encode()


@dataclass
class Plant:
    """The container's programs, the bridge's subscriber, and what sensors need."""

    way_in: WayIn
    bridge: Subscribing
    material: Material
    security: Security

    def door(self, transport: Transport) -> Door:
        return self.way_in.door(transport, self.material.authority)

    def send(self, door: Door, who: Credentials, site: str, padding: int = 0) -> int:
        """The number of the reading that was sent. Raises Refused."""
        number = next(numbers)
        with Sensor(door, who) as sensor:
            sensor.publish(topic(site), reading(site, number, padding))
        return number

    @property
    def rejected(self) -> int:
        return sum(site.rejected for site in self.bridge.journal.sites().values())

    def arrived(self) -> list[float]:
        """What the bridge has, up to a good reading that is sent now."""
        last = self.send(self.door("tcp"), self.material.good, SITE)
        eventually(lambda: last in self.bridge.values, "the good reading arrives")
        return self.bridge.values


@pytest.fixture(scope="module", params=MADE_OF)
def plant(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Plant]:
    directory = tmp_path_factory.mktemp(request.param)
    made = material(request.param, directory)
    environ = {"MQTT_WEBSOCKETS": "true", "MQTT_MAX_PACKET_BYTES": str(MOST_BYTES)}
    with (
        WayIn(directory, {**made.environ, **environ}) as way_in,
        Subscribing(directory / "journal.db", way_in.bridge_settings()) as bridge,
    ):
        bridge.wait_subscribed()
        yield Plant(way_in, bridge, made, request.param)


@pytest.fixture(params=["tcp", "websockets"])
def door(request: pytest.FixtureRequest, plant: Plant) -> Door:
    return plant.door(request.param)


def test_a_good_sensors_reading_reaches_the_bridge(plant: Plant, door: Door) -> None:
    number = plant.send(door, plant.material.good, SITE)
    assert number in plant.arrived()


def test_a_site_may_have_a_name_with_spaces_and_accents(plant: Plant, door: Door) -> None:
    number = plant.send(door, plant.material.spaced, SPACED_SITE)
    assert number in plant.arrived()


@pytest.mark.parametrize("plant", ["password", "tls", "mtls"], indirect=True)
def test_a_reading_for_another_site_reaches_nobody(plant: Plant, door: Door) -> None:
    foreign = plant.send(door, plant.material.good, SPACED_SITE)
    elsewhere = plant.send(door, plant.material.good, f"{SITE}/X")
    assert not {foreign, elsewhere} & set(plant.arrived())


def test_who_is_not_known_is_refused(plant: Plant, door: Door) -> None:
    let_in = []
    for wrong, who in plant.material.bad.items():
        with suppress(Refused):
            plant.send(door, who, SITE)
            let_in.append(wrong)
    assert let_in == []


def test_a_packet_that_is_too_large_ends_the_connection_and_reaches_nobody(plant: Plant) -> None:
    rejected = plant.rejected
    with pytest.raises(Refused):
        plant.send(plant.door("tcp"), plant.material.good, SITE, padding=MOST_BYTES)
    plant.arrived()
    assert plant.rejected == rejected


def test_a_packet_that_is_too_large_is_a_dead_letter_over_websockets(plant: Plant) -> None:
    # Debian 12's Mosquitto does not look at the size there.
    rejected = plant.rejected
    plant.send(plant.door("websockets"), plant.material.good, SITE, padding=MOST_BYTES)
    plant.arrived()
    assert plant.rejected == rejected + 1


def test_a_sensor_hears_nothing(plant: Plant, door: Door) -> None:
    with Sensor(door, plant.material.good) as sensor:
        for subscribed in ("#", "$SYS/#", topic(SITE), f"$share/group/{topic('+')}"):
            sensor.subscribe(subscribed)
        number = plant.send(door, plant.material.good, SITE)
        assert number in plant.arrived()
        # Whatever there was to hear came before this answer.
        sensor.publish(topic(SITE), reading(SITE, next(numbers)))
        assert sensor.heard == []


def test_the_bridges_user_can_write_nothing(plant: Plant) -> None:
    way_in = plant.way_in
    own = Door("tcp", way_in.ports.bridge)
    who = way_in.bridge_credentials()
    assert who.name is not None
    sent = {plant.send(own, who, site) for site in (SITE, who.name)}
    assert not sent & set(plant.arrived())


def test_the_bridges_listener_wants_the_bridges_password(plant: Plant) -> None:
    who = replace(plant.way_in.bridge_credentials(), password="another")
    with pytest.raises(Refused):
        plant.send(Door("tcp", plant.way_in.ports.bridge), who, SITE)


@pytest.mark.parametrize("plant", ["mtls"], indirect=True)
def test_with_client_certificates_a_name_and_password_are_worth_nothing(
    plant: Plant, door: Door
) -> None:
    with pytest.raises(Refused):
        plant.send(door, plant.way_in.bridge_credentials(), SITE)
    both = replace(plant.way_in.bridge_credentials(), certificate=plant.material.good.certificate)
    with Sensor(door, both) as sensor:
        sensor.subscribe("#")
        plant.arrived()
        sensor.publish(topic(SITE), reading(SITE, next(numbers)))
        assert sensor.heard == []


def test_the_broker_itself_listens_on_one_address_of_this_machine_only(plant: Plant) -> None:
    ports = plant.way_in.ports
    for port in (ports.bridge, ports.sensors, ports.sensors_websockets):
        socket.create_connection(("127.0.0.1", port)).close()
        # The loopback has more addresses: whoever listens on all of them listens to everybody.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))


def test_the_way_in_does_not_lead_to_the_bridges_listener(plant: Plant, door: Door) -> None:
    with Sensor(door, plant.material.good) as sensor:
        pass
    come = re.search(rf"connected from (\S+) as {sensor.client_id} ", plant.way_in.log())
    assert come is not None
    where = f"New connection from {come[1]} on port {plant.way_in.ports.bridge}."
    assert where not in plant.way_in.log()


def test_no_secret_is_in_a_log_or_open_to_others(plant: Plant) -> None:
    plant.arrived()
    directory = plant.way_in.directory
    password = plant.way_in.bridge_credentials().password
    assert password is not None
    for path in directory.glob("*.log"):
        assert password not in path.read_text(errors="replace")
    for path in (directory / "run").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert (directory / "run").stat().st_mode & 0o777 == 0o700
