"""What comes in: floods, junk, odd messages, many sites, many sensors."""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Iterable

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from bridge.cli.publishing import Publisher
from bridge.settings import load
from chaos.rig import Rig
from chaos.scenario import Scenario
from chaos.sensors import payload, topic

GROUP = "input"
LIMIT = 65_536
JUNK_TOPIC = "FCTS/FAE/MOR/SolvExtract/JUNK"
# One for each reason that a message on a well-formed topic of normal size can have.
JUNK = (
    b"\xff\xfe",
    b"{",
    b"[]",
    b"{}",
    b'{"site_code":"MOR","sensor_id":1,"timestamp":1,"value":1}',
    b'{"site_code":"BAG","sensor_id":"A","timestamp":1,"value":1}',
    b'{"site_code":"MOR","sensor_id":"A","timestamp":1,"value":1}',
)


def _publish(rig: Rig, messages: Iterable[tuple[str, bytes]]) -> None:
    """To the broker itself, with QoS 1; all acknowledged when it returns."""
    settings = load({**rig.bridge.environment, "MQTT_PORT": str(rig.broker.port)})
    with Publisher(settings, "chaos") as publisher:
        for name, content in messages:
            publisher.publish(name, content)
        publisher.settle()


def flood_of_duplicates(rig: Rig) -> None:
    count = int(rig.either(2_000, 200_000))
    number = rig.first_number
    content = payload("DUP", number)
    before = rig.total("duplicates")
    _publish(rig, ((topic("DUP", number), content) for _ in range(count)))
    rig.wait_until(lambda: rig.total("duplicates") >= before + count - 1, "all are counted")
    rig.also_sent["DUP"] = range(number, number + 1)


def many_sites(rig: Rig) -> None:
    number = rig.first_number
    sites = [f"S{index:05}" for index in range(int(rig.either(500, 10_000)))]
    for site in sites:
        rig.also_sent[site] = range(number, number + 3)
    _publish(
        rig,
        ((topic(site, n), payload(site, n)) for n in range(number, number + 3) for site in sites),
    )


def payloads_at_the_limit(rig: Rig) -> None:
    """The largest that is accepted, and one byte more."""
    before = rig.total("rejected")
    number = rig.first_number
    count = int(rig.either(20, 1_000))
    _publish(rig, ((topic("BIG", n), _sized(n, LIMIT)) for n in range(number, number + count)))
    _publish(rig, ((topic("BIG", n), _sized(n, LIMIT + 1)) for n in range(number, number + count)))
    rig.also_sent["BIG"] = range(number, number + count)
    rig.wait_until(lambda: rig.total("rejected") == before + count, "too large ones are refused")


def _sized(number: int, size: int) -> bytes:
    overhead = len(payload("BIG", number, 1)) - 1
    return payload("BIG", number, size - overhead)


def retained(rig: Rig) -> None:
    """Each counts once, live; the broker's copies for a new subscription are not wanted."""
    numbers = range(rig.first_number, rig.first_number + 100)
    client = _client(rig)
    for number in numbers:
        _wait_for(client, topic("KEPT", number), payload("KEPT", number), 1, retain=True)
    client.disconnect()
    rig.also_sent["KEPT"] = numbers
    for _ in range(3):
        rig.proxy.cut()
        rig.rest(0.5)


def qos_0_and_2(rig: Rig) -> None:
    """While all is well nothing of these is lost either."""
    client = _client(rig)
    first = rig.first_number
    for site, qos in (("QOS0", 0), ("QOS2", 2)):
        rig.also_sent[site] = range(first, first + 200)
        for number in rig.also_sent[site]:
            _wait_for(client, topic(site, number), payload(site, number), qos)
    client.disconnect()


def _client(rig: Rig) -> mqtt.Client:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.connect("127.0.0.1", rig.broker.port)
    client.loop_start()
    return client


def _wait_for(
    client: mqtt.Client, name: str, content: bytes, qos: int, retain: bool = False
) -> None:
    client.publish(name, content, qos, retain).wait_for_publish(10)


def many_sensors(rig: Rig) -> None:
    """Each connects for itself, all at once, and sends one reading."""
    count = int(rig.either(500, 10_000))
    first = rig.first_number
    rig.also_sent["MANY"] = range(first, first + count)
    greeting = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"
    with selectors.DefaultSelector() as waiting:
        for number in rig.also_sent["MANY"]:
            client = socket.create_connection(("127.0.0.1", rig.broker.port))
            client.sendall(greeting + _publish_packet("MANY", number))
            waiting.register(client, selectors.EVENT_READ, bytearray())
        _collect(waiting, count)


def _publish_packet(site: str, number: int) -> bytes:
    name, content = topic(site, number).encode(), payload(site, number, padding=64)
    body = struct.pack(">H", len(name)) + name + b"\x00\x01" + content
    # The length in two bytes: the padding makes it need them.
    return bytes((0x32, len(body) & 0x7F | 0x80, len(body) >> 7)) + body


def _collect(waiting: selectors.BaseSelector, count: int) -> None:
    """Until each has its CONNACK (4 bytes) and its PUBACK (4 bytes)."""
    while count:
        events = waiting.select(30)
        if not events:
            raise TimeoutError(f"{count} sensors have no answer")
        for key, _ in events:
            client = key.fileobj
            assert isinstance(client, socket.socket)
            answer = client.recv(64)
            key.data.extend(answer)
            if len(key.data) >= 8 or not answer:
                waiting.unregister(client)
                client.close()
                count -= 1


def junk(rig: Rig) -> None:
    """One sensor sends nothing else: each is kept with its reason, the others are not held up."""
    rounds = int(rig.either(100, 2_000))
    before = rig.total("rejected")
    others = rig.resolved("pubsub")
    _publish(rig, ((JUNK_TOPIC, content) for _ in range(rounds) for content in JUNK))
    rig.wait_until(lambda: rig.total("rejected") == before + rounds * len(JUNK), "all is kept")
    rig.wait_until(lambda: rig.resolved("pubsub") > others, "the others go on")


SCENARIOS = (
    Scenario("duplicates", GROUP, "one reading, sent again and again", flood_of_duplicates),
    Scenario("many-sites", GROUP, "ten thousand sites", many_sites, alone=True),
    Scenario("limit", GROUP, "payloads at the limit, and a byte beyond", payloads_at_the_limit),
    Scenario("retained", GROUP, "retained messages, and new connections", retained),
    Scenario("qos-0-and-2", GROUP, "publishers with QoS 0 and QoS 2", qos_0_and_2),
    Scenario("many-sensors", GROUP, "ten thousand sensors connect at once", many_sensors),
    Scenario("junk", GROUP, "a sensor that sends nothing but junk", junk),
)
