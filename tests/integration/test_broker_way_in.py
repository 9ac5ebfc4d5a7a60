"""What the container's broker and way in do when something stops, restarts or is at its limit."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.cli.processes import listens
from container.settings import MADE_OF, Security
from tests.support.certificates import Authority
from tests.support.poll import eventually
from tests.support.security import SITE, material, server_environ
from tests.support.sensor import Credentials, Door, Refused, Sensor
from tests.support.subscribing import Subscribing
from tests.support.way_in import WayIn

TOPIC = f"FCTS/FAE/{SITE}/SolvExtract/FLOW"


def reading(number: int) -> bytes:
    members = {"site_code": SITE, "sensor_id": "S1", "timestamp": time.time(), "value": number}
    return json.dumps(members).encode()


def send(door: Door, who: Credentials, *values: int) -> None:
    with Sensor(door, who) as sensor:
        for number in values:
            assert sensor.publish(TOPIC, reading(number)) == "Success"


def wait_for_snapshots(way_in: WayIn) -> None:
    """Two of them: one has surely begun after what was done before this call."""
    path = Path(way_in.environ["MOSQUITTO_DATA"]) / "mosquitto.db"

    def written() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    first = written()
    eventually(lambda: written() > first, "the broker writes a snapshot")
    second = written()
    eventually(lambda: written() > second, "the broker writes another snapshot")


@pytest.mark.parametrize("security", MADE_OF)
def test_what_comes_between_the_brokers_restart_and_the_bridges_return_is_kept(
    security: Security, tmp_path: Path
) -> None:
    made = material(security, tmp_path)
    with WayIn(tmp_path, made.environ) as way_in:
        door = way_in.door("tcp", made.authority)
        with Subscribing(tmp_path / "journal.db", way_in.bridge_settings()) as bridge:
            bridge.wait_subscribed()
        send(door, made.good, 1)
        wait_for_snapshots(way_in)
        way_in.kill_broker()
        way_in.start_broker()
        send(door, made.good, 2, 3)
        with Subscribing(tmp_path / "journal.db", way_in.bridge_settings()) as bridge:
            bridge.wait_taken(3)
            assert bridge.values == [1, 2, 3]


def test_a_container_that_starts_again_finds_the_bridges_session(tmp_path: Path) -> None:
    made = material("password", tmp_path)
    with WayIn(tmp_path, made.environ) as way_in:
        with Subscribing(tmp_path / "journal.db", way_in.bridge_settings()) as bridge:
            bridge.wait_subscribed()
        send(way_in.door("tcp"), made.good, 1)
    # All of it is rendered anew: other ports, another password, the same name.
    with WayIn(tmp_path, made.environ) as way_in:
        send(way_in.door("tcp"), made.good, 2)
        with Subscribing(tmp_path / "journal.db", way_in.bridge_settings()) as bridge:
            bridge.wait_taken(2)
            assert bridge.values == [1, 2]
            assert bridge.subscriber.sessions_lost == 0


def test_a_bridge_that_shares_its_subscription_may_read_as_well(tmp_path: Path) -> None:
    with (
        WayIn(tmp_path, {"MQTT_SHARED_GROUP": "bridges"}) as way_in,
        Subscribing(tmp_path / "journal.db", way_in.bridge_settings()) as bridge,
    ):
        bridge.wait_subscribed()
        send(way_in.door("tcp"), Credentials(), 1)
        bridge.wait_taken(1)


def test_the_bridge_hears_how_much_the_broker_dropped(tmp_path: Path) -> None:
    with (
        WayIn(tmp_path, {}) as way_in,
        Subscribing(tmp_path / "journal.db", way_in.bridge_settings()) as bridge,
    ):
        eventually(lambda: bridge.subscriber.broker_dropped is not None, "a count comes")


def test_a_revoked_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority()
    good, revoked = authority.issue(SITE), authority.issue(SITE)
    environ = {
        "MQTT_SECURITY": "mtls",
        "MQTT_CLIENT_CA": authority.pem,
        "MQTT_CLIENT_CRL": authority.revocations([revoked]),
        **server_environ(authority),
    }
    with WayIn(tmp_path, environ) as way_in:
        door = way_in.door("tcp", authority.pem)
        with Sensor(door, Credentials(certificate=good)):
            pass
        with pytest.raises(Refused), Sensor(door, Credentials(certificate=revoked)):
            pass


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_before_1_2_is_refused(tmp_path: Path) -> None:
    made = material("tls", tmp_path)
    with WayIn(tmp_path, {**made.environ, "MQTT_WEBSOCKETS": "true"}) as way_in:
        for port in (way_in.port, way_in.ports.websockets):
            assert handshake(port, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
            assert handshake(port, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
            with pytest.raises(ssl.SSLError, match=r"ALERT"):
                handshake(port, ssl.TLSVersion.TLSv1_1)


def handshake(port: int, version: ssl.TLSVersion) -> str | None:
    """The version that was agreed upon."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")  # else this side would refuse already
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as tls:
        return tls.version()


def test_a_sensor_beyond_the_limit_is_refused_until_another_leaves(tmp_path: Path) -> None:
    environ = {"MQTT_MAX_CONNECTIONS": "2", "MQTT_WEBSOCKETS": "true"}
    with WayIn(tmp_path, environ) as way_in:
        plain, framed = way_in.door("tcp"), way_in.door("websockets")
        with ExitStack() as inside:
            # Whoever looked whether the port is open may not have been forgotten yet.
            eventually(lambda: comes_in(plain, inside), "there is room for one")
            eventually(lambda: comes_in(framed, inside), "there is room for another")
            assert not comes_in(plain, inside)
            assert not comes_in(framed, inside)
        with ExitStack() as inside:
            eventually(lambda: comes_in(plain, inside), "there is room again")


def comes_in(door: Door, inside: ExitStack) -> bool:
    """Whether a sensor is let in; it stays until `inside` is left."""
    try:
        inside.enter_context(Sensor(door))
        return True
    except Refused:
        return False


def test_haproxy_has_nothing_to_say_against_its_configuration(tmp_path: Path) -> None:
    with WayIn(tmp_path, {"MQTT_WEBSOCKETS": "true"}) as way_in:
        assert (way_in.directory / "haproxy.log").read_text() == ""


def test_without_a_broker_a_sensor_is_refused_and_does_not_wait(tmp_path: Path) -> None:
    with WayIn(tmp_path, {}) as way_in:
        way_in.kill_broker()
        with socket.create_connection(("127.0.0.1", way_in.port)) as waiting:
            waiting.settimeout(20)
            assert ended(lambda: waiting.recv(1))


def ended(receive: Callable[[], bytes]) -> bool:
    try:
        return receive() == b""
    except ConnectionResetError:
        return True


def test_a_stop_of_the_way_in_ends_its_connections_and_leaves_the_broker_and_the_bridge(
    tmp_path: Path,
) -> None:
    with (
        WayIn(tmp_path, {}) as way_in,
        Subscribing(tmp_path / "journal.db", way_in.bridge_settings()) as bridge,
    ):
        bridge.wait_subscribed()
        with Sensor(way_in.door("tcp")) as sensor:
            sensor.publish(TOPIC, reading(1))
            assert way_in.proxy is not None
            way_in.proxy.stop()
            sensor.wait_gone()
        assert not listens(way_in.port)
        bridge.wait_taken(1)
        assert bridge.subscriber.connected


def test_a_sensor_that_is_silent_for_long_stays_connected(tmp_path: Path) -> None:
    with WayIn(tmp_path, {}, hurried) as way_in, Sensor(way_in.door("tcp")) as sensor:
        time.sleep(1.0)  # five times what HAProxy allows before the connection stands
        assert sensor.publish(TOPIC, reading(1)) == "No matching subscribers"


def hurried(configuration: str) -> str:
    for side in ("client", "server"):
        assert f"timeout {side} 10s" in configuration
        configuration = configuration.replace(f"timeout {side} 10s", f"timeout {side} 200ms")
    return configuration
