"""A scripted MQTT broker: it writes down every packet in order and sends what the test says.

It speaks just enough of MQTT 5 and 3.1.1. Nothing is answered by itself but PINGREQ.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.poll import eventually

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 8, 9, 10, 11
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14
TAKEN_OVER = b"\xe0\x01\x8e"


class Packet(NamedTuple):
    kind: int
    flags: int
    body: bytes

    @property
    def mid(self) -> int:
        """Of a packet that begins with its packet identifier."""
        return int(struct.unpack_from(">H", self.body)[0])


def encoded(kind: int, flags: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while True:
        size, digit = divmod(size, 128)
        length += bytes([digit | (128 if size else 0)])
        if not size:
            return bytes([kind << 4 | flags]) + length + body


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(raw)) + raw


class Connection:
    """One client's connection. `packets`: what it sent, in order, CONNECT first."""

    def __init__(self, sock: socket.socket, answer_pings: bool) -> None:
        self.packets: list[Packet] = []
        self.closed = False
        self._socket = sock
        self._answer_pings = answer_pings
        self._read_on = threading.Event()
        self._read_on.set()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    # --- what came --------------------------------------------------------------------------------

    def of(self, kind: int) -> list[Packet]:
        return [packet for packet in list(self.packets) if packet.kind == kind]

    def wait_for(self, kind: int, count: int = 1, seconds: float = 10) -> Packet:
        """The `count`-th packet of this kind, once it is there."""
        eventually(lambda: len(self.of(kind)) >= count, f"{count} packets of kind {kind}", seconds)
        return self.of(kind)[count - 1]

    @property
    def version(self) -> int:
        return self.wait_for(CONNECT).body[6]

    @property
    def five(self) -> bool:
        return self.version == 5

    @property
    def acknowledged(self) -> list[int]:
        return [packet.mid for packet in self.of(PUBACK)]

    # --- what is sent -----------------------------------------------------------------------------

    def send(self, raw: bytes) -> None:
        self._socket.sendall(raw)

    def connack(self, present: bool = False, code: int = 0, properties: bytes = b"") -> None:
        tail = bytes([len(properties)]) + properties if self.five else b""
        self.send(encoded(CONNACK, 0, bytes([present, code]) + tail))

    def suback(self, codes: Sequence[int] = (1, 0), count: int = 1) -> None:
        """Answer the `count`-th SUBSCRIBE."""
        mid = self.wait_for(SUBSCRIBE, count).mid
        tail = b"\0" if self.five else b""
        self.send(encoded(SUBACK, 0, struct.pack(">H", mid) + tail + bytes(codes)))

    def unsuback(self, count: int = 1) -> None:
        """Answer the `count`-th UNSUBSCRIBE: no subscription existed."""
        mid = self.wait_for(UNSUBSCRIBE, count).mid
        self.send(encoded(UNSUBACK, 0, struct.pack(">H", mid) + (b"\0\x11" if self.five else b"")))

    def publish(
        self,
        topic: str | bytes,
        payload: bytes,
        mid: int = 0,
        retain: bool = False,
        duplicate: bool = False,
    ) -> None:
        """With QoS 1, or QoS 0 where `mid` is 0."""
        self.send(self.packet(topic, payload, mid, retain, duplicate))

    def packet(
        self,
        topic: str | bytes,
        payload: bytes,
        mid: int = 0,
        retain: bool = False,
        duplicate: bool = False,
    ) -> bytes:
        """What `publish` sends."""
        flags = (8 if duplicate else 0) | (2 if mid else 0) | retain
        head = text(topic) + (struct.pack(">H", mid) if mid else b"")
        return encoded(PUBLISH, flags, head + (b"\0" if self.five else b"") + payload)

    def die(self, last: bytes) -> None:
        """Say this, and be gone at once, as a process that is killed: what is written to it is
        answered with a reset. `last` has to be so short that the other side's kernel takes it."""
        self._socket.sendall(last)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def accept(self, present: bool = False) -> Self:
        """CONNACK and SUBACK."""
        self.connack(present)
        self.suback()
        return self

    def pause(self) -> None:
        """Read nothing until `close`."""
        self._read_on.clear()

    def close(self) -> None:
        self._read_on.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    # --- the reading thread -----------------------------------------------------------------------

    def _read(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                first = self._exactly(1)[0]
                packet = Packet(first >> 4, first & 15, self._exactly(self._length()))
                self._read_on.wait()
                self.packets.append(packet)
                if packet.kind == PINGREQ and self._answer_pings:
                    self.send(encoded(PINGRESP, 0, b""))
        self.closed = True

    def _length(self) -> int:
        value = shift = 0
        while True:
            digit = self._exactly(1)[0]
            value |= (digit & 127) << shift
            shift += 7
            if digit < 128:
                return value

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data


class FakeBroker:
    """Listens on a free port for as long as the block lasts.

    script: called, in a thread of its own, with each new connection; without it the test takes
    them by `next`.
    """

    def __init__(
        self, script: Callable[[Connection], None] | None = None, answer_pings: bool = True
    ) -> None:
        self.connections: list[Connection] = []
        self._script = script
        self._answer_pings = answer_pings
        self._given = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.close()

    def next(self, seconds: float = 30) -> Connection:
        """The oldest connection that was not given out yet, once its CONNECT is there."""
        eventually(lambda: len(self.connections) > self._given, "a client connects", seconds)
        self._given += 1
        connection = self.connections[self._given - 1]
        connection.wait_for(CONNECT)
        return connection

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                connection = Connection(sock, self._answer_pings)
                self.connections.append(connection)
                if self._script is not None:
                    threading.Thread(
                        target=self._run, args=(self._script, connection), daemon=True
                    ).start()

    @staticmethod
    def _run(script: Callable[[Connection], None], connection: Connection) -> None:
        with suppress(OSError, AssertionError):
            script(connection)
