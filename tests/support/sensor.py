"""A sensor at the way in: what it is told, and what it hears."""

from __future__ import annotations

import secrets
import ssl
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.support.certificates import Pair

SECONDS = 20.0
Transport = Literal["tcp", "websockets"]


class Door(NamedTuple):
    """Where a sensor connects. `authority`: PEM of who signed the server's certificate."""

    transport: Transport
    port: int
    authority: str | None = None


@dataclass(frozen=True)
class Credentials:
    """What a sensor shows of itself."""

    name: str | None = None
    password: str | None = None
    certificate: Pair | None = None


class Refused(Exception):
    """The connection was refused or ended before what was asked for was done."""


@dataclass
class Sensor:
    """Connected for as long as the block lasts. Entering raises Refused."""

    door: Door
    credentials: Credentials = field(default_factory=Credentials)
    client_id: str = field(default_factory=lambda: f"sensor-{secrets.token_hex(4)}")
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._news = threading.Condition()
        self._gone: str | None = None
        self._answers: list[str] = []
        self._client = self._make()

    def __enter__(self) -> Self:
        try:
            self._client.connect("127.0.0.1", self.door.port)
        except (OSError, ValueError) as error:  # over WebSockets paho's own kinds of both
            raise Refused(str(error)) from None
        self._client.loop_start()
        try:
            answer = self._answer()
            if answer != "Success":
                raise Refused(answer)
        except BaseException:
            self._hang_up()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hang_up()

    def publish(self, topic: str, payload: bytes) -> str:
        """With QoS 1; what the broker answered. Raises Refused when it hung up instead."""
        self._client.publish(topic, payload, qos=1)
        return self._answer()

    def subscribe(self, topic: str) -> str:
        """What the broker answered. Raises Refused when it hung up instead."""
        self._client.subscribe(topic, qos=1)
        return self._answer()

    def wait_gone(self) -> None:
        """Until the other side has ended the connection."""
        with self._news:
            assert self._news.wait_for(lambda: self._gone, SECONDS), "the connection goes on"

    def _answer(self) -> str:
        with self._news:
            assert self._news.wait_for(lambda: self._answers or self._gone, SECONDS), "no answer"
            if self._answers:
                return self._answers.pop(0)
            raise Refused(self._gone)

    def _make(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            self.client_id,
            transport=self.door.transport,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        if self.credentials.name is not None:
            client.username_pw_set(self.credentials.name, self.credentials.password)
        if self.door.authority is not None:
            client.tls_set_context(self._context(self.door.authority))
        client.on_connect = lambda _c, _u, _f, code, _p: self._note(code)
        client.on_publish = lambda _c, _u, _m, code, _p: self._note(code)
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self._note(codes[0])
        client.on_message = lambda _c, _u, message: self.heard.append(message.topic)
        client.on_disconnect = lambda _c, _u, _f, code, _p: self._end(str(code))
        return client

    def _context(self, authority: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=authority)
        if self.credentials.certificate is not None:
            load_pair(context, self.credentials.certificate)
        return context

    def _note(self, code: Any) -> None:
        with self._news:
            self._answers.append(str(code))
            self._news.notify_all()

    def _end(self, why: str) -> None:
        with self._news:
            self._gone = why
            self._news.notify_all()

    def _hang_up(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def load_pair(context: ssl.SSLContext, pair: Pair) -> None:
    """Python takes a certificate of one's own only from a file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "pair.pem"
        path.write_text(pair.pem + pair.key_pem)
        context.load_cert_chain(path)
