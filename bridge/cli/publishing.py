"""Publishing to MQTT and knowing what became of each message. The commands' only use of paho.

QoS 1 over MQTT 5, whose acknowledgements carry a reason: in MQTT 3.1.1 a broker that refuses a
message (an access rule, a quota) acknowledges it all the same.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from bridge.errors import ConfigurationError, FatalError
from bridge.secrets import broker_password
from bridge.settings import Settings

NO_MATCHING_SUBSCRIBERS = 0x10
CREDENTIALS_REFUSED = (0x86, 0x87, 0x8C)
CONNECT_SECONDS = 10.0


class BrokerUnreachable(FatalError):
    """No connection to the broker could be made, or it stopped answering."""


@dataclass(frozen=True)
class Counts:
    """What became of the messages so far.

    acknowledged: taken by the broker; unheard: the part of these that had no subscriber.
    refused: acknowledged with a failure, and not kept by the broker; reasons: the same by reason.
    """

    published: int = 0
    acknowledged: int = 0
    unheard: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        return sum(self.reasons.values())

    @property
    def unanswered(self) -> int:
        return self.published - self.acknowledged - self.refused


class Publisher:
    """One connection to the broker of `settings`, under a client id of its own, with a clean
    session: it disturbs no daemon.

    A context manager: entering connects (BrokerUnreachable; ConfigurationError when the broker
    refuses the credentials), leaving disconnects and waits for nothing. A connection that is lost
    meanwhile is made again, and what was unanswered is sent again.

    in_flight: how many messages may be unanswered; fewer if the broker says so.
    patience: seconds without any answer after which the broker counts as gone.
    """

    def __init__(
        self, settings: Settings, name: str, in_flight: int = 1000, patience: float = 60.0
    ) -> None:
        self._settings = settings
        self._in_flight = in_flight
        self._patience = patience
        self._counts = _Tally()
        self._answered = threading.Event()
        self._refusal: ReasonCode | None = None
        self._room = threading.Semaphore(0)
        self._client = self._make_client(f"fcts-{name}-{secrets.token_hex(4)}")

    def __enter__(self) -> Self:
        where = f"{self._settings.mqtt_broker}:{self._settings.mqtt_port}"
        try:
            self._client.connect(self._settings.mqtt_broker, self._settings.mqtt_port)
        except (OSError, ValueError) as error:
            raise BrokerUnreachable(
                f"No MQTT broker answers at {where} ({error}). Remedy: start the broker, or set "
                "MQTT_BROKER and MQTT_PORT to where it listens."
            ) from None
        self._client.loop_start()
        if not self._answered.wait(CONNECT_SECONDS) or self._refusal is not None:
            self._hang_up()
            raise self._refused(where)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hang_up()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send one message with QoS 1. Blocks while too many are unanswered; BrokerUnreachable
        when the broker answers none of them for `patience` seconds. One thread only."""
        self._wait_for_room()
        self._counts.add_published()
        self._client.publish(topic, payload, qos=1)

    def settle(self) -> None:
        """Block until every message is answered; BrokerUnreachable as for `publish`."""
        for _ in range(self._in_flight):
            self._wait_for_room()
        self._room.release(self._in_flight)

    def counts(self) -> Counts:
        """What became of the messages so far. Any thread; does not block."""
        return self._counts.frozen()

    def in_words(self) -> str:
        """The counts in one line. Any thread; does not block."""
        counts = self.counts()
        return (
            f"published {counts.published}, acknowledged {counts.acknowledged}, "
            f"refused {counts.refused}"
        )

    def _make_client(self, client_id: str) -> Client:
        settings = self._settings
        client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
        if settings.mqtt_username is not None:
            client.username_pw_set(settings.mqtt_username, broker_password(settings))
        if settings.mqtt_tls:
            set_tls(client, settings)
        client.max_inflight_messages_set(self._in_flight)
        client.connect_timeout = CONNECT_SECONDS
        client.reconnect_delay_set(min_delay=1, max_delay=5)
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        return client

    def _on_connect(
        self,
        _client: Client,
        _userdata: Any,
        _flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self._answered.is_set():
            return  # connected again: what is unanswered is sent again by paho itself
        if reason.is_failure:
            self._refusal = reason
        else:
            # paho does not look at the broker's Receive Maximum.
            self._in_flight = min(self._in_flight, getattr(properties, "ReceiveMaximum", 65_535))
            self._room.release(self._in_flight)
        self._answered.set()

    def _on_publish(
        self,
        _client: Client,
        _userdata: Any,
        _mid: int,
        reason: ReasonCode,
        _properties: Properties,
    ) -> None:
        self._counts.add_answer(reason)
        self._room.release()

    def _wait_for_room(self) -> None:
        if not self._room.acquire(timeout=self._patience):
            raise BrokerUnreachable(
                f"The broker has answered nothing for {self._patience:g} s; "
                f"{self._counts.frozen().unanswered} messages are unanswered and may be lost."
            )

    def _refused(self, where: str) -> FatalError:
        if self._refusal is None:
            return BrokerUnreachable(
                f"{where} takes connections but does not answer as an MQTT broker. "
                "Remedy: check MQTT_PORT and MQTT_TLS."
            )
        if self._refusal.value in CREDENTIALS_REFUSED:
            return ConfigurationError(
                f"The broker at {where} refuses the connection: {self._refusal}. "
                "Remedy: set MQTT_USERNAME and one of the password variables."
            )
        return BrokerUnreachable(f"The broker at {where} refuses the connection: {self._refusal}.")

    def _hang_up(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class _Tally:
    """The counts as they grow: published by the caller's thread, answers by paho's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._published = 0
        self._acknowledged = 0
        self._unheard = 0
        self._reasons: Counter[str] = Counter()

    def add_published(self) -> None:
        with self._lock:
            self._published += 1

    def add_answer(self, reason: ReasonCode) -> None:
        with self._lock:
            if reason.is_failure:
                self._reasons[str(reason)] += 1
                return
            self._acknowledged += 1
            self._unheard += reason.value == NO_MATCHING_SUBSCRIBERS

    def frozen(self) -> Counts:
        with self._lock:
            return Counts(self._published, self._acknowledged, self._unheard, dict(self._reasons))


def set_tls(client: Client, settings: Settings) -> None:
    """Have the client use TLS with the settings' files."""
    client.tls_set(
        _text(settings.mqtt_tls_ca_file),
        _text(settings.mqtt_tls_cert_file),
        _text(settings.mqtt_tls_key_file),
    )


def _text(path: object) -> str | None:
    return None if path is None else str(path)
