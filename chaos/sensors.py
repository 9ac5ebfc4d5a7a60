"""The load: a sensor a site, which sends numbered readings and knows which were acknowledged."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

LOOP_SECONDS = 0.2
RECONNECT_SECONDS = 0.1
# MQTT 5, section 3.4.2.1: the broker took it, and no session is there to get it.
NO_MATCHING_SUBSCRIBERS = 0x10


def payload(site: str, number: int, padding: int = 0) -> bytes:
    """A reading whose value is its number, with so many bytes more than it needs."""
    members: dict[str, object] = {
        "site_code": site,
        "sensor_id": f"FT-{number % 20}",
        "timestamp": int(time.time() * 1000),
        "value": number,
    }
    if padding:
        members["padding"] = "x" * padding
    return json.dumps(members).encode()


def topic(site: str, number: int) -> str:
    return f"FCTS/FAE/{site}/SolvExtract/SX1-FLOW-{number % 20}"


class Sensor:
    """Sends the readings of one site at `rate` a second, with QoS 1, each after the one before
    was acknowledged; what was not acknowledged is sent again. So what comes out of order
    elsewhere was sent in order here. What it could not send in time it sends as soon as it can.

    cover_seconds: after the loss of a connection it first sends once more what was acknowledged
    in so many seconds before, as a sensor does that does not trust its broker's memory.
    """

    def __init__(
        self,
        port: int,
        site: str,
        rate: float,
        first: int = 0,
        cover_seconds: float = 0.0,
        padding: int = 0,
    ) -> None:
        self.site = site
        self.first = first
        self._port = port
        self._rate = rate
        self._cover_seconds = cover_seconds
        self._padding = padding
        self._acknowledged = first  # the first number that is not
        self._recent: deque[tuple[int, bytes]] = deque()
        self._times: deque[float] = deque()  # when each of these was acknowledged
        self._answered: int | None = None
        self._connected = False
        self._lost_connection = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sensor-{site}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send no new readings; the one that is under way goes on until it is acknowledged."""
        self._stop.set()

    def join(self, seconds: float) -> None:
        """Raises TimeoutError when the last reading is not acknowledged in time."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"the sensor of {self.site} waits for its last acknowledgement")

    @property
    def acknowledged(self) -> range:
        """The numbers that the broker has acknowledged. Any thread."""
        return range(self.first, self._acknowledged)

    # --- its thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        began = time.monotonic()
        client = self._connect()
        while not self._stop.is_set():
            due = began + (self._acknowledged - self.first) / self._rate
            while (left := due - time.monotonic()) > 0 and not self._stop.is_set():
                client.loop(min(left, LOOP_SECONDS))
            if self._stop.is_set():
                break
            content = payload(self.site, self._acknowledged, self._padding)
            client = self._deliver(client, self._acknowledged, content)
            self._remember(self._acknowledged, content)
            self._acknowledged += 1
        client.disconnect()

    def _deliver(self, client: mqtt.Client, number: int, content: bytes) -> mqtt.Client:
        """Returns when it is acknowledged; the connection may be another one by then."""
        in_turn = [(number, content)]
        while not all(self._answers(client, *reading) for reading in in_turn):
            time.sleep(RECONNECT_SECONDS)
            client = self._connect()
            in_turn = [*self._recent, (number, content)]
        return client

    def _answers(self, client: mqtt.Client, number: int, content: bytes) -> bool:
        """Send it; whether it was acknowledged on this connection."""
        sent = client.publish(topic(self.site, number), content, qos=1)
        while self._answered != sent.mid:
            if not self._connected or client.loop(LOOP_SECONDS) != mqtt.MQTT_ERR_SUCCESS:
                return False
        return True

    def _remember(self, number: int, content: bytes) -> None:
        now = time.monotonic()
        self._recent.append((number, content))
        self._times.append(now)
        while self._times and self._times[0] < now - self._cover_seconds:
            self._recent.popleft()
            self._times.popleft()

    def _connect(self) -> mqtt.Client:
        """Tries until it is connected. A new client each time: paho would send what the old one
        had under way before everything else."""
        while True:
            self._connected, self._answered = False, None
            client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
            client.on_connect = self._on_connect
            client.on_disconnect = self._on_disconnect
            client.on_publish = self._on_publish
            with suppress(OSError):
                client.connect("127.0.0.1", self._port)
                while not self._connected:
                    if client.loop(LOOP_SECONDS) != mqtt.MQTT_ERR_SUCCESS:
                        break
                else:
                    return client
            time.sleep(RECONNECT_SECONDS)

    def _on_connect(self, _c: Any, _u: Any, _flags: Any, code: Any, _p: Any) -> None:
        self._connected = not code.is_failure

    def _on_disconnect(self, *_: Any) -> None:
        self._connected = False

    def _on_publish(self, _c: Any, _u: Any, mid: int, code: Any, _p: Any) -> None:
        if code.is_failure or code.value == NO_MATCHING_SUBSCRIBERS:
            self._connected = False  # nobody has it: tried again on another connection
        else:
            self._answered = mid


class Load:
    """Several sensors at once. A context manager: leaving it stops them and waits until the last
    reading of each is acknowledged."""

    def __init__(self, sensors: Sequence[Sensor]) -> None:
        self._sensors = sensors

    def __enter__(self) -> Load:
        for sensor in self._sensors:
            sensor.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for sensor in self._sensors:
            sensor.stop()
        if kind is None:
            for sensor in self._sensors:
                sensor.join(60)

    @property
    def acknowledged(self) -> dict[str, range]:
        """By site, the numbers acknowledged so far."""
        return {sensor.site: sensor.acknowledged for sensor in self._sensors}

    @property
    def count(self) -> int:
        """How many readings were acknowledged so far."""
        return sum(len(numbers) for numbers in self.acknowledged.values())
