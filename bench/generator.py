"""The load: a process that publishes unique readings with QoS 1, and is never the bottleneck.

    python -m bench.generator --port 1883 --count 100000 [--rate 2000]

It writes MQTT 3.1.1 packets to bare sockets, many at a time, and only counts what comes back. All
packets are of one length: only the numbers in them differ. Each reading carries its number in its
value, and as its timestamp the time at which it was *due*: if the generator itself is late, that
counts as latency and cannot hide any. Without a rate readings are due when they are written.

Ends when everything is acknowledged, with a line of JSON: see `Sent`.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

BASE = 100_000_000  # added to the number of a reading, so that all values are of one length
WINDOW = 4_000  # unacknowledged, for each connection
BATCH = 500  # readings in one write
MAX_CONNECTIONS = 4
TICK_SECONDS = 0.001
PUBACK_BYTES = CONNACK_BYTES = 4

TOPIC = b"FCTS/FAE/S%04d/SolvExtract/T%06d"
PAYLOAD = (
    b'{"site_code": "S%04d", "sensor_id": "FT-%06d", "timestamp": "%b.%06dZ", "value": %09d.5}'
)
_TOPIC_BYTES = len(TOPIC % (0, 0))
_PAYLOAD_BYTES = len(PAYLOAD % (0, 0, b"2026-01-01T00:00:00", 0, BASE))
_REST = 2 + _TOPIC_BYTES + 2 + _PAYLOAD_BYTES
# PUBLISH, QoS 1; the remaining length is one of two bytes; then topic, packet id and payload.
PACKET = bytes((0x32, _REST & 0x7F | 0x80, _REST >> 7, 0, _TOPIC_BYTES)) + TOPIC + b"%c%c" + PAYLOAD
PACKET_BYTES = 3 + _REST


@dataclass(frozen=True)
class Sent:
    """What came of a load. cpu_seconds: of this process while it sent. late_seconds: the furthest
    that a reading was behind its time when it was written."""

    readings: int
    seconds: float
    cpu_seconds: float
    late_seconds: float

    @property
    def cpu_share(self) -> float:
        """Of one core: well below 1 means that the generator had time to spare."""
        return self.cpu_seconds / self.seconds


@dataclass(frozen=True)
class Load:
    """Readings `first` to `first + count`, over so many sites, and tags of all sites together.
    rate: readings a second; 0: as fast as they are taken. Raises ValueError where the sites
    cannot have equally many tags."""

    count: int
    rate: float = 0.0
    sites: int = 20
    tags: int = 1_000
    first: int = 0

    def __post_init__(self) -> None:
        if self.tags % self.sites:
            raise ValueError(f"{self.tags} tags cannot be shared evenly by {self.sites} sites")

    @property
    def connections(self) -> int:
        """As many as share the sites evenly: a site's readings all go over one."""
        return next(n for n in range(MAX_CONNECTIONS, 0, -1) if self.sites % n == 0)


class Line:
    """One connection with its share of the readings."""

    def __init__(self, port: int, load: Load, index: int) -> None:
        self._load = load
        self._next = index
        self._packet_id = 0
        self._unwritten = memoryview(b"")
        self._sent = self._answer_bytes = 0
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_connect(f"generator-{load.first}-{index}".encode()))
        self._require_accepted()
        self.socket.setblocking(False)

    def _require_accepted(self) -> None:
        answer = self.socket.recv(CONNACK_BYTES, socket.MSG_WAITALL)
        if answer[:1] + answer[3:] != b"\x20\x00":
            raise ConnectionError(f"the broker refused the generator: {answer!r}")

    @property
    def acknowledged(self) -> int:
        return self._answer_bytes // PUBACK_BYTES

    @property
    def writing(self) -> bool:
        return len(self._unwritten) > 0

    def fill(self, due: int, clock: Clock) -> int:
        """Make packets of the next readings below number `due`; the first of them, or -1."""
        room = WINDOW - (self._sent - self.acknowledged)
        step = self._load.connections
        left = (due - self._next + step - 1) // step
        count = min(room, left, BATCH)
        if self.writing or count <= 0:
            return -1
        first = self._next
        numbers = range(first, first + count * step, step)
        self._unwritten = memoryview(b"".join(self._packets(numbers, clock)))
        self._next, self._sent = numbers.stop, self._sent + count
        return first

    def _packets(self, numbers: range, clock: Clock) -> Iterator[bytes]:
        sites, tags, first = self._load.sites, self._load.tags, self._load.first
        for number in numbers:
            tag = number % tags
            site = tag % sites
            id_ = self._packet_id = self._packet_id % 65_535 + 1
            when = clock.due(number)
            value = BASE + first + number
            yield PACKET % (site, tag, id_ >> 8, id_ & 255, site, tag, *when, value)

    def write(self) -> None:
        self._unwritten = self._unwritten[self.socket.send(self._unwritten) :]

    def read(self) -> None:
        """Raises ConnectionError when the broker has hung up."""
        answer = self.socket.recv(65_536)
        if not answer:
            raise ConnectionError("the broker hung up on the generator")
        self._answer_bytes += len(answer)


class Clock:
    """When each reading is due, as text down to the second and microseconds."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self.start_us = self._now_us = time.time_ns() // 1_000
        self._second = -1
        self._text = b""

    def tick(self, count: int) -> int:
        """Take notice of the time; how many readings of `count` are due by now."""
        self._now_us = time.time_ns() // 1_000
        if not self._rate:
            return count
        return min(count, int((self._now_us - self.start_us) * self._rate / 1e6))

    def late_us(self, number: int) -> float:
        return self._now_us - self._due_us(number)

    def due(self, number: int) -> tuple[bytes, int]:
        second, micros = divmod(int(self._due_us(number)), 1_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return self._text, micros

    def _due_us(self, number: int) -> float:
        return self.start_us + number * 1e6 / self._rate if self._rate else self._now_us


def send(port: int, load: Load) -> Sent:
    """Blocks until all is acknowledged. Raises OSError, and ConnectionError in words."""
    lines = [Line(port, load, index) for index in range(load.connections)]
    clock, cpu, late = Clock(load.rate), time.process_time(), 0.0
    began = time.monotonic()
    while sum(line.acknowledged for line in lines) < load.count:
        due = clock.tick(load.count)
        for line in lines:
            if (first := line.fill(due, clock)) >= 0:
                late = max(late, clock.late_us(first))
        _exchange(lines, 0.0 if load.rate else TICK_SECONDS)
        if load.rate:
            time.sleep(TICK_SECONDS)
    seconds = time.monotonic() - began
    for line in lines:
        line.socket.close()
    return Sent(load.count, seconds, time.process_time() - cpu, late / 1e6)


def _exchange(lines: list[Line], timeout: float) -> None:
    by_socket = {line.socket: line for line in lines}
    wanting = [line.socket for line in lines if line.writing]
    readable, writable, _ = select.select(list(by_socket), wanting, [], timeout)
    for ready in readable:
        by_socket[ready].read()
    for ready in writable:
        by_socket[ready].write()


def _connect(client_id: bytes) -> bytes:
    # MQTT 3.1.1, a clean session, no keep-alive.
    rest = b"\x00\x04MQTT\x04\x02\x00\x00" + bytes((0, len(client_id))) + client_id
    return bytes((0x10, len(rest))) + rest


@click.command()
@click.option("--port", type=int, required=True, help="The broker's, on this machine.")
@click.option("--count", type=int, required=True)
@click.option("--rate", type=float, default=0.0, help="Readings a second; 0: at full speed.")
@click.option("--sites", type=int, default=20)
@click.option("--tags", type=int, default=1_000)
@click.option("--first", type=int, default=0, help="The number of the first reading.")
def main(port: int, **load: float) -> None:
    """Publish readings and print what came of it."""
    click.echo(json.dumps(asdict(send(port, Load(**load)))))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
