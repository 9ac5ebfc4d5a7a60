"""An MQTT client that writes down what it hears."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, NamedTuple, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.support.poll import eventually


class Heard(NamedTuple):
    topic: str
    payload: bytes


class Listener:
    """Subscribed with QoS 1 for as long as the block lasts. `kept_seconds`: how long the broker
    keeps its session after that."""

    def __init__(
        self,
        port: int,
        topic: str = "FCTS/FAE/+/SolvExtract/+",
        client_id: str = "listener",
        kept_seconds: int = 0,
    ) -> None:
        self.heard: list[Heard] = []
        self._port = port
        self._topic = topic
        self._kept_seconds = kept_seconds
        self._subscribed = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.set()

    def __enter__(self) -> Self:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._kept_seconds
        self._client.connect(
            "127.0.0.1", self._port, clean_start=self._kept_seconds == 0, properties=properties
        )
        self._client.loop_start()
        eventually(self._client.is_connected, "the listener is connected")
        self._client.subscribe(self._topic, qos=1)
        assert self._subscribed.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_for(self, number: int) -> list[Heard]:
        """The first `number` messages, once they are there."""
        eventually(lambda: len(self.heard) >= number, f"{number} messages are heard")
        return self.heard[:number]

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        self.heard.append(Heard(message.topic, bytes(message.payload)))
