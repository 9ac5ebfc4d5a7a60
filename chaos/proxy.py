"""A TCP proxy that can be a bad network."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

CHUNK = 65_536
SUBACK = 0x90
NOT_AUTHORIZED = 0x87
# Closing with a linger time of nothing sends a reset instead of a goodbye.
RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes connections on to a port of the loopback, until told to be in the way.

    `port` is where it listens; a context manager. All methods may be called from any thread and
    do not block.

    refuse_subscriptions: whether, on connections made from then on, a broker's grant of an MQTT 5
    subscription arrives as a refusal (not authorized).
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._near: set[socket.socket] = set()  # of these, the callers' ends
        self._vanishing: set[socket.socket] = set()
        self._vanish = False
        self._cut_after: int | None = None
        self.refuse_subscriptions = False

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._listen, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would leave the thread in its accept for ever.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def lead_to(self, target: int) -> None:
        """New connections go to this port from now on."""
        self._target = target

    def cut(self) -> None:
        """Reset every connection there is."""
        with self._lock:
            ends, self._open = self._open, set()
            self._near.clear()
        for end in ends:
            _reset(end)
        # Not before: what comes through behind bytes that vanished would be a network that no
        # TCP lets anybody see.
        with self._lock:
            self._vanishing -= ends

    def cut_within_a_packet(self, size: int = 7) -> None:
        """Let through so many bytes of what the target says next, then reset the connection."""
        with self._lock:
            self._cut_after = size

    def vanish(self) -> None:
        """From now on no byte arrives anywhere, and nobody is told: also on new connections."""
        with self._lock:
            self._vanish = True
            self._vanishing |= self._open

    def mute(self) -> None:
        """From now on nothing arrives at the target on the connections there are; what it says
        goes through."""
        with self._lock:
            self._vanishing |= self._open & self._near

    def appear(self) -> None:
        """New connections work again; those of the bad time stay as dead as they were."""
        with self._lock:
            self._vanish = False

    # --- its threads ------------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed: the end
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                _reset(near)
                continue
            far.settimeout(None)
            self._join(near, far)

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        with self._lock:
            self._open |= {near, far}
            self._near.add(near)
            if self._vanish:
                self._vanishing |= {near, far}
        edit = Refusals().edit if self.refuse_subscriptions else None
        for source, sink, of_target in ((near, far, False), (far, near, True)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            arguments = (source, sink, of_target, edit if of_target else None)
            threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(
        self,
        source: socket.socket,
        sink: socket.socket,
        of_target: bool,
        edit: Callable[[bytes], bytes] | None,
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                if source in self._vanishing:
                    continue
                if of_target and (size := self._cut()) is not None:
                    sink.sendall(chunk[:size])
                    break
                sink.sendall(edit(chunk) if edit else chunk)
        if source in self._vanishing:
            return  # a half-open connection: the other side never hears of the end
        with self._lock:
            self._open -= {source, sink}
            self._near -= {source, sink}
        _reset(source)
        _reset(sink)

    def _cut(self) -> int | None:
        with self._lock:
            size, self._cut_after = self._cut_after, None
        return size


class Refusals:
    """Makes refusals of the grants in a broker's stream of MQTT 5 packets."""

    def __init__(self) -> None:
        self._pending = b""

    def edit(self, chunk: bytes) -> bytes:
        """The packets that are complete by now, edited; a beginning waits for its end."""
        self._pending += chunk
        done = bytearray()
        while (size := packet_size(self._pending)) is not None and size <= len(self._pending):
            packet, self._pending = self._pending[:size], self._pending[size:]
            done += _refused(packet) if packet[0] == SUBACK else packet
        return bytes(done)


def packet_size(data: bytes) -> int | None:
    """How long the packet is that begins here (MQTT 5, section 2.1.4); None: not known yet."""
    length = 0
    for index, byte in enumerate(data[1:5]):
        length |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return 2 + index + length
    return None


def _refused(suback: bytes) -> bytes:
    # One byte of length, the packet id, no properties, then a code for each filter.
    return suback[:5] + bytes(NOT_AUTHORIZED for _ in suback[5:])


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        # Wakes a thread that reads from it; closing alone would not.
        end.shutdown(socket.SHUT_RDWR)
    end.close()
