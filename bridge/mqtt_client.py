"""paho's client, reading and acknowledging by the batch.

paho takes three system calls and makes half a dozen objects for each PUBLISH that it reads, and a
system call for each PUBACK that it writes: more work than all that the bridge does with the
reading. Here the socket's bytes come in large pieces, each PUBLISH is cut out of them, and
acknowledgements go out together. Every other packet is given to paho's own handlers, as if paho had
read it.

This is built on the inside of one version of paho, which requirements.in pins:
`tests/unit/test_mqtt_client.py` holds it to what paho itself makes of the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MalformedPacket

PIECE = 16_384  # bytes of one read, unless a larger packet is under way
PUBLISH, QOS_2 = 0x30, 0x04
PUBACK = b"\x40\x02"
LONGEST_LENGTH = 4  # bytes of a packet's length


class _Malformed(Exception):
    """Bytes that no broker should send."""


class BatchClient(mqtt.Client):
    """For an external loop, in one thread: `receive` takes the place of `loop_read`.

    on_publish_received: called with (topic, payload, qos, packet id, whether retained) for each
        PUBLISH of QoS 0 and 1, in their order among all packets. It must not raise anything that
        should not end the loop. The packet id is 0 with QoS 0.
    """

    on_publish_received: Callable[[bytes, bytes, int, int, bool], None]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._bytes = bytearray()  # from the beginning of a packet that is not whole yet

    def reconnect(self) -> MQTTErrorCode:
        self._bytes.clear()
        return super().reconnect()

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """PUBACK for each, in this order, in one piece. Does not block: it is written by the
        loop."""
        if packet_ids:
            packets = b"".join([PUBACK + number.to_bytes(2, "big") for number in packet_ids])
            self._packet_queue(int(mqtt.PUBACK), packets, 0, 1)

    def receive(self) -> MQTTErrorCode:
        """Read one piece without waiting for it, and handle the packets that are whole now. An
        answer other than MQTT_ERR_SUCCESS says that the connection is over."""
        if self._sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            piece = self._sock_recv(max(PIECE, self._missing()))
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except OSError:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        if not piece:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        with self._msgtime_mutex:
            self._last_bytes_received = mqtt.time_func()
        self._bytes += piece
        try:
            result = self._handle_whole_packets()
        except (_Malformed, MalformedPacket):
            result = MQTTErrorCode.MQTT_ERR_PROTOCOL
        return self._loop_rc_handle(result) if result > 0 else MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_whole_packets(self) -> MQTTErrorCode:
        if _body(self._bytes, 0) is None:
            return MQTTErrorCode.MQTT_ERR_SUCCESS  # a large one is not copied for each piece
        data = bytes(self._bytes)
        start = 0
        try:
            while (body := _body(data, start)) is not None and self._sock is not None:
                first, end = body
                command, start = data[start], end
                if command & 0xF0 == PUBLISH and not command & QOS_2:
                    self._received(data, command, first, end)
                else:
                    result = self._left_to_paho(command, data[first:end])
                    if result > 0:
                        return result
        finally:
            del self._bytes[:start]
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _received(self, data: bytes, command: int, first: int, end: int) -> None:
        """[MQTT 5, 3.3]"""
        at = first + 2 + int.from_bytes(data[first : first + 2], "big")
        topic = data[first + 2 : at]
        number = 0
        if command & 0x02:
            number = int.from_bytes(data[at : at + 2], "big")
            at += 2
        if self._protocol == mqtt.MQTTv5:
            at = _behind_properties(data, at, end)
        elif not topic:
            raise _Malformed
        if at > end:
            raise _Malformed
        self.on_publish_received(
            topic, data[at:end], command >> 1 & 0x01, number, bool(command & 0x01)
        )

    def _left_to_paho(self, command: int, body: bytes) -> MQTTErrorCode:
        self._in_packet = {
            "command": command,
            "have_remaining": 1,
            "remaining_count": [],
            "remaining_mult": 1,
            "remaining_length": len(body),
            "packet": bytearray(body),
            "to_process": 0,
            "pos": 0,
        }
        return self._packet_handle()

    def _missing(self) -> int:
        """How many bytes the packet that is under way still needs; 0 where that is not known."""
        length = _length(self._bytes, 1)
        return 0 if length is None else max(0, length[1] + length[0] - len(self._bytes))


def _body(data: bytes | bytearray, start: int) -> tuple[int, int] | None:
    """Where the body of the packet that begins at `start` begins and ends; None if it is not whole.
    Raises _Malformed."""
    length = _length(data, start + 1)
    if length is None:
        return None
    size, first = length
    return (first, first + size) if first + size <= len(data) else None


def _length(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """A variable byte integer [MQTT 5, 1.5.5], and where it ends; None if it is not whole."""
    value = 0
    for index in range(LONGEST_LENGTH):
        if at + index >= len(data):
            return None
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _Malformed


def _behind_properties(data: bytes, at: int, end: int) -> int:
    """Nothing in them concerns the bridge; it allows no topic aliases."""
    if at < end and data[at] == 0:  # nearly always
        return at + 1
    length = _length(data[:end], at)
    if length is None:
        raise _Malformed
    return length[0] + length[1]
