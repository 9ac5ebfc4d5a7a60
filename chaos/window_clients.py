"""Both ends of the broker's window: who publishes into it, and who takes out of it."""

from __future__ import annotations

import threading
from time import monotonic
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import MQTT_ERR_SUCCESS, Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.cli.publishing import NO_MATCHING_SUBSCRIBERS, Publisher
from bridge.settings import Settings

FILTER = "FCTS/FAE/+/SolvExtract/+"
TOPIC = "FCTS/FAE/MOR/SolvExtract/SX1-E1-FLOW"
LAST = b"last"
SESSION_SECONDS = 3600
PATIENCE_SECONDS = 60.0
LOOP_SECONDS = 0.002
MOST_MESSAGES = 60_000  # below what may be in flight to one client, 65,535


class Connection:
    """One MQTT 5 connection with a thread of its own, for as long as the block lasts. It is not
    made again when it is lost."""

    def __init__(self, port: int, client_id: str, kept_seconds: int, manual_ack: bool) -> None:
        self._port = port
        self._kept_seconds = kept_seconds
        self._answered = threading.Event()
        name = client_id or "publisher"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.was_kept = False
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=manual_ack,
        )
        self.client.on_connect = self._on_connect

    def __enter__(self) -> Self:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._kept_seconds
        clean = self._kept_seconds == 0
        self.client.connect("127.0.0.1", self._port, clean_start=clean, properties=properties)
        self._thread.start()
        expect(self._answered, "an answer to CONNECT")
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """End it, and wait for its end. Idempotent."""
        self.client.disconnect()
        self._thread.join()

    def read_out(self) -> None:
        """Block until the connection is over, which the broker must have ended or be about to.
        Until then, or until it fails to write, paho reads what the broker had sent."""
        self._thread.join()

    def wait(self, seconds: float) -> None:
        """Block for so long, or until the connection is lost."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while self.client.loop(LOOP_SECONDS) == MQTT_ERR_SUCCESS:
            self.step()

    def step(self) -> None:
        """What else there is to do in the connection's thread, many times a second."""

    def _on_connect(self, _client: Client, _data: Any, flags: Any, reason: Any, _p: Any) -> None:
        if not reason.is_failure:
            self.was_kept = flags.session_present
            self._answered.set()


class Session(Connection):
    """The bridge's place: a session that the broker keeps, subscribed to the plant's readings.

    heard: the numbers of the messages that came, whether acknowledged or not.
    """

    def __init__(self, port: int, acknowledges: bool = True) -> None:
        super().__init__(port, "window-session", SESSION_SECONDS, manual_ack=not acknowledges)
        self.heard: set[int] = set()
        self._subscribed = threading.Event()
        self._last = threading.Event()
        self.client.on_message = self._on_message
        self.client.on_subscribe = lambda *_: self._subscribed.set()

    def __enter__(self) -> Self:
        super().__enter__()
        self.client.subscribe(FILTER, qos=1)
        expect(self._subscribed, "an answer to SUBSCRIBE")
        return self

    def take_everything(self) -> None:
        """Block until the broker has nothing left. Its queue is in order: what is published now
        comes last."""
        with plain_publisher(self._port) as sender:
            sender.publish(TOPIC, LAST)
            sender.settle()
        expect(self._last, "the end of the queue")

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if message.payload == LAST:
            self._last.set()
        else:
            self.heard.add(int(message.payload))


class Paced(Connection):
    """Publishes numbers from 0 on, `rate` a second and `most` in all, and sends none again.

    acknowledged: when each was, by number. slowest: seconds, the longest that took.
    """

    def __init__(self, port: int, rate: float, most: int) -> None:
        super().__init__(port, "", kept_seconds=0, manual_ack=False)
        self.acknowledged: dict[int, float] = {}
        self.slowest = 0.0
        self._rate = rate
        self._most = most
        self._began = monotonic()
        self._sent: list[float] = []
        self._numbers: dict[int, int] = {}  # by packet id
        self.client.max_inflight_messages_set(MOST_MESSAGES)
        self.client.on_publish = self._on_publish

    def step(self) -> None:
        due = min(self._most, int((monotonic() - self._began) * self._rate))
        while len(self._sent) < due:
            number = len(self._sent)
            self._sent.append(monotonic())
            self._numbers[self.client.publish(TOPIC, b"%d" % number, qos=1).mid] = number

    def _on_publish(self, _client: Client, _data: Any, mid: int, reason: Any, _p: Any) -> None:
        number = self._numbers.pop(mid)
        if not reason.is_failure and reason.value != NO_MATCHING_SUBSCRIBERS:
            now = monotonic()
            self.acknowledged[number] = now
            self.slowest = max(self.slowest, now - self._sent[number])


def plain_publisher(port: int) -> Publisher:
    settings = Settings.model_validate({"mqtt_broker": "127.0.0.1", "mqtt_port": port})
    return Publisher(settings, "window")


def expect(event: threading.Event, what: str) -> None:
    """Wait for it. Raises TimeoutError."""
    if not event.wait(PATIENCE_SECONDS):
        raise TimeoutError(f"the broker did not send {what} within {PATIENCE_SECONDS:g} s")
