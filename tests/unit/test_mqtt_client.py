"""The batch client reads what paho reads, from the same bytes in whatever pieces they come."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.mqtt_client import BatchClient

PINGRESP = b"\xd0\x00"
Message = tuple[bytes, bytes, int, int, bool]


def length(number: int) -> bytes:
    found = b""
    while True:
        number, low = divmod(number, 128)
        found += bytes([low | (0x80 if number else 0)])
        if not number:
            return found


def publish(message: Message, properties: bytes | None) -> bytes:
    """A PUBLISH; `properties` is None for MQTT 3.1.1."""
    topic, payload, qos, mid, retain = message
    body = struct.pack("!H", len(topic)) + topic
    body += struct.pack("!H", mid) if qos else b""
    body += b"" if properties is None else properties
    body += payload
    return bytes([0x30 | qos << 1 | retain]) + length(len(body)) + body


def some_properties(user: str) -> bytes:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.UserProperty = [("from", user)]
    properties.MessageExpiryInterval = 5
    packed: bytes = properties.pack()  # type: ignore[no-untyped-call]
    return packed


class Reader:
    """A client on one end of a pair of sockets, as if it had connected."""

    def __init__(self, kind: type[mqtt.Client], version: int) -> None:
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.client = kind(
            CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion(version), manual_ack=True
        )
        self.client.on_socket_register_write = lambda *_: None
        self.client._sock = near
        self.messages: list[Message] = []
        self.ends: list[Any] = []
        self.client.on_disconnect = lambda *arguments: self.ends.append(arguments[3])
        if isinstance(self.client, BatchClient):
            self.client.on_publish_received = lambda *message: self.messages.append(message)
            self._read: Any = self.client.receive
        else:
            self.client.on_message = lambda _c, _u, m: self.messages.append(
                (m._topic, bytes(m.payload), m.qos, m.mid, m.retain)
            )
            self._read = self.client.loop_read

    def feed(self, piece: bytes) -> None:
        self.far.sendall(piece)
        for _ in range(200):  # paho reads one packet at a time
            if self._read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                break

    def close(self) -> None:
        self.far.close()
        if (near := self.client.socket()) is not None:
            near.close()


@pytest.fixture(params=[mqtt.MQTTv5, mqtt.MQTTv311])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def reader(version: int) -> Iterator[Reader]:
    made = Reader(BatchClient, version)
    yield made
    made.close()


messages = st.tuples(
    st.text(min_size=1, max_size=20).map(str.encode) | st.just(b"\xff\xfe"),
    st.binary(max_size=300),
    st.integers(0, 1),
    st.integers(1, 65_535),
    st.booleans(),
).map(lambda message: message if message[2] else (*message[:3], 0, message[4]))


@settings(max_examples=60, deadline=None)
@given(
    sent=st.lists(messages, min_size=1, max_size=20),
    user=st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=200),
    cuts=st.lists(st.integers(1, 400), max_size=10),
    five=st.booleans(),
)
def test_the_same_bytes_are_the_same_messages_as_to_paho(
    sent: list[Message], user: str | None, cuts: list[int], five: bool
) -> None:
    properties = (b"\x00" if user is None else some_properties(user)) if five else None
    stream = b"".join(publish(message, properties) + PINGRESP for message in sent)
    ours, theirs = (
        Reader(kind, mqtt.MQTTv5 if five else mqtt.MQTTv311) for kind in (BatchClient, mqtt.Client)
    )
    try:
        rest = stream
        for cut in cuts:
            ours.feed(rest[:cut])
            rest = rest[cut:]
        ours.feed(rest)
        theirs.feed(stream)
        assert ours.messages == theirs.messages == sent
        assert ours.ends == theirs.ends == []
    finally:
        ours.close()
        theirs.close()


def test_a_message_larger_than_a_piece_comes_whole(reader: Reader, version: int) -> None:
    properties = b"\x00" if version == mqtt.MQTTv5 else None
    large: Message = (b"t", b"x" * 3_000_000, 1, 7, False)
    stream = publish(large, properties) + publish((b"u", b"", 0, 0, True), properties)
    for start in range(0, len(stream), 50_000):
        reader.feed(stream[start : start + 50_000])
    assert reader.messages == [large, (b"u", b"", 0, 0, True)]


@pytest.mark.parametrize(
    "stream",
    [
        b"\x32\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x32\x04\x00\x09ab",  # a topic that is longer than the packet
        b"\x32\x03\x00\x01t",  # no packet id
        b"\xf5\x00",  # a packet that MQTT does not know, or not without a reason
    ],
)
def test_what_no_broker_should_send_ends_the_connection(reader: Reader, stream: bytes) -> None:
    reader.feed(stream)
    assert reader.messages == []
    assert len(reader.ends) == 1
    assert reader.client.socket() is None


def test_an_end_of_the_connection_is_told_after_what_came_before_it(
    reader: Reader, version: int
) -> None:
    message: Message = (b"t", b"1", 1, 7, False)
    reader.far.sendall(publish(message, b"\x00" if version == mqtt.MQTTv5 else None) + b"\x32")
    reader.far.close()
    for _ in range(3):
        reader.client.receive()  # type: ignore[attr-defined]
    assert reader.messages == [message]
    assert len(reader.ends) == 1


def test_acknowledgements_go_out_together_and_in_order(reader: Reader) -> None:
    client = reader.client
    assert isinstance(client, BatchClient)
    client.acknowledge([])
    assert not client.want_write()
    client.acknowledge([3, 1, 65_535])
    client.loop_write()
    assert reader.far.recv(100) == b"\x40\x02\x00\x03\x40\x02\x00\x01\x40\x02\xff\xff"


def test_a_new_connection_begins_without_the_rest_of_the_former_one() -> None:
    reader = Reader(BatchClient, mqtt.MQTTv5)
    reader.feed(b"\x32\x7f\x00")
    with socket.create_server(("127.0.0.1", 0)) as server:
        reader.client.connect("127.0.0.1", server.getsockname()[1])
        far, _ = server.accept()
        with far:
            message: Message = (b"t", b"1", 1, 7, False)
            far.sendall(publish(message, b"\x00"))
            for _ in range(100):
                reader.client.receive()  # type: ignore[attr-defined]
                if reader.messages:
                    break
    assert reader.messages == [message]
    reader.close()
