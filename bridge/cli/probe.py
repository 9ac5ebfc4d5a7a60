"""Whether the broker lets the bridge in: one connection, under an id of its own."""

from __future__ import annotations

import secrets
import threading
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bridge.cli.findings import Finding
from bridge.cli.publishing import set_tls
from bridge.secrets import broker_password
from bridge.settings import Settings

SECONDS = 10.0
SILENT = f"no answer within {SECONDS:g} s"


def broker_finding(settings: Settings) -> Finding:
    """Connect with a clean session and subscribe to the filter. Blocks up to 10 s."""
    where = f"{settings.mqtt_broker}:{settings.mqtt_port}"
    try:
        problem = _Probe(settings).run()
    except OSError as error:  # a TLS file that is none is one too
        fix = "start the broker, or set MQTT_BROKER, MQTT_PORT and MQTT_TLS to where it listens"
        return Finding("broker", "failed", f"{where} cannot be reached ({error})", fix)
    if problem == SILENT:
        fix = "check MQTT_PORT and MQTT_TLS: what listens there does not answer as a broker"
        return Finding("broker", "failed", f"{where}: {problem}", fix)
    if problem is not None:
        fix = "let the user of MQTT_USERNAME connect and read MQTT_TOPIC"
        return Finding("broker", "failed", f"{where}: {problem}", fix)
    return Finding("broker", "ok", f"{where} lets the bridge read {settings.mqtt_topic}")


class _Probe:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._done = threading.Event()
        self._problem: str | None = SILENT
        client = Client(
            CallbackAPIVersion.VERSION2,
            f"fcts-check-{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion.MQTTv5,
        )
        client.connect_timeout = SECONDS
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        if settings.mqtt_username is not None:
            client.username_pw_set(settings.mqtt_username, broker_password(settings))
        if settings.mqtt_tls:
            set_tls(client, settings)
        self._client = client

    def run(self) -> str | None:
        """What is wrong, in words; None when nothing is. Raises OSError."""
        self._client.connect(self._settings.mqtt_broker, self._settings.mqtt_port)
        self._client.loop_start()
        try:
            self._done.wait(SECONDS)
            return self._problem
        finally:
            self._client.disconnect()
            self._client.loop_stop()

    def _on_connect(self, _c: Any, _u: Any, _flags: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            self._end(f"the connection is refused: {code}")
        else:
            self._client.subscribe(self._settings.mqtt_topic, qos=1)

    def _on_subscribe(self, _c: Any, _u: Any, _mid: int, codes: Any, _p: Any) -> None:
        self._end(f"the subscription is refused: {codes[0]}" if codes[0].is_failure else None)

    def _end(self, problem: str | None) -> None:
        self._problem = problem
        self._done.set()
