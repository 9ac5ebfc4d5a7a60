"""What a client can learn of the broker: one connection, under an id of its own.

It subscribes as the daemon does, to learn whether that is granted; then without acknowledgements,
to hear what is delivered; and publishes one message to a topic that no sensor uses. What it has
asked for last is answered last, so that nothing has to be waited for.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from bridge.cli.publishing import set_tls
from bridge.secrets import broker_password
from bridge.settings import Settings

SECONDS = 10.0
LISTEN_SECONDS = 0.5
ENOUGH = 1_000  # messages that are counted; more are only said to be more
SILENT = f"no answer within {SECONDS:g} s"
OWN_TOPIC = "fcts-bridge/check"
COUNTERS = {
    "version": "$SYS/broker/version",
    "dropped": "$SYS/broker/publish/messages/dropped",
    "stored messages": "$SYS/broker/store/messages/count",
    "stored bytes": "$SYS/broker/store/messages/bytes",
}
UNSUPPORTED_VERSION = 132
NOT_AUTHORIZED = 135

_COUNTER_OF = {topic: name for name, topic in COUNTERS.items()}


@dataclass
class Heard:
    """What one connection told.

    problem: why the subscription is not granted, in words; None when it is.
    counters: of the broker as a whole, by the names of COUNTERS; only those that could be read.
    retained, live: messages under the filter, kept by the broker or sent just now.
    may_write: whether the message to the topic of its own came back; None when that is not known.
    """

    problem: str | None = SILENT
    version_refused: bool = False
    counters: dict[str, str] = field(default_factory=dict)
    retained: int = 0
    live: int = 0
    may_write: bool | None = None


def probe(settings: Settings) -> Heard:
    """Blocks up to 10 s for each MQTT version. Raises OSError where there is no connection (a TLS
    file that is none is one too), ConfigurationError."""
    heard = _Probe(settings, MQTTProtocolVersion.MQTTv5).run()
    if heard.version_refused:
        return _Probe(settings, MQTTProtocolVersion.MQTTv311).run()
    return heard


class _Probe:
    def __init__(self, settings: Settings, version: MQTTProtocolVersion) -> None:
        self._settings = settings
        self._five = version == MQTTProtocolVersion.MQTTv5
        self._heard = Heard()
        self._answered = threading.Event()
        self._alive = threading.Event()  # something was delivered under the filter
        self._granting = self._last = -1
        name = f"fcts-check-{secrets.token_hex(4)}"
        self._own_topic = f"{OWN_TOPIC}/{name}"
        self._client = self._made(name, version)

    def _made(self, name: str, version: MQTTProtocolVersion) -> Client:
        settings = self._settings
        clean = None if self._five else True
        client = Client(
            CallbackAPIVersion.VERSION2, name, protocol=version, clean_session=clean,
            reconnect_on_failure=False,
        )  # fmt: skip
        client.connect_timeout = SECONDS
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        if settings.mqtt_username is not None:
            client.username_pw_set(settings.mqtt_username, broker_password(settings))
        if settings.mqtt_tls:
            set_tls(client, settings)
        return client

    def run(self) -> Heard:
        deadline = time.monotonic() + SECONDS
        self._client.connect(self._settings.mqtt_broker, self._settings.mqtt_port)
        self._client.loop_start()
        try:
            self._answered.wait(max(0.0, deadline - time.monotonic()))
            if self._heard.problem is None:
                self._alive.wait(LISTEN_SECONDS)
            return self._heard
        finally:
            self._client.disconnect()
            self._client.loop_stop()

    # --- paho's callbacks, in its thread ----------------------------------------------------------

    def _on_connect(self, _c: Any, _u: Any, _flags: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            self._heard.version_refused = code.value == UNSUPPORTED_VERSION and self._five
            self._end(f"the connection is refused: {code}")
        else:
            self._granting = self._subscribe([self._settings.mqtt_topic], qos=1, retained=False)

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, codes: Any, _p: Any) -> None:
        if mid != self._granting:
            return
        if codes[0].is_failure:
            self._end(f"the subscription is refused: {codes[0]}")
            return
        self._heard.problem = None
        self._listen()

    def _listen(self) -> None:
        self._subscribe([*_COUNTER_OF, self._own_topic], qos=0, retained=True)
        self._client.publish(self._own_topic, b"check", qos=1)
        # In place of the first: with QoS 0 nothing queues up for this client at the broker. Last,
        # for there may be more than is listened to.
        self._subscribe([self._settings.mqtt_topic], qos=0, retained=True)
        _, mid = self._client.unsubscribe(OWN_TOPIC)
        self._last = -1 if mid is None else mid

    def _on_unsubscribe(self, _c: Any, _u: Any, mid: int, _codes: Any, _p: Any) -> None:
        if mid == self._last:
            self._answered.set()

    def _on_publish(self, _c: Any, _u: Any, _mid: int, code: Any, _p: Any) -> None:
        if code.value == NOT_AUTHORIZED:
            self._heard.may_write = False

    def _on_message(self, _c: Any, _u: Any, message: Any) -> None:
        heard = self._heard
        if message.topic in _COUNTER_OF:
            text = message.payload.decode("utf-8", "replace")
            heard.counters[_COUNTER_OF[message.topic]] = text
        elif message.topic == self._own_topic:
            heard.may_write = True
        else:
            heard.retained += bool(message.retain)
            heard.live += not message.retain
            self._alive.set()
            if heard.retained + heard.live >= ENOUGH:
                self._client.disconnect()
                self._answered.set()

    # --- for these ------------------------------------------------------------------------------

    def _subscribe(self, topics: list[str], qos: int, retained: bool) -> int:
        handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
        if not retained:
            handling = SubscribeOptions.RETAIN_DO_NOT_SEND
        options = SubscribeOptions(qos=qos, retainHandling=handling)
        wanted = [(topic, options if self._five else qos) for topic in topics]
        _, mid = self._client.subscribe(wanted)  # type: ignore[arg-type]
        return -1 if mid is None else mid

    def _end(self, problem: str) -> None:
        self._heard.problem = problem
        self._answered.set()
