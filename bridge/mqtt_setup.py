"""What the settings say about the connection to the broker, in paho's terms."""

from __future__ import annotations

import ssl
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from bridge.errors import ConfigurationError
from bridge.mqtt_client import BatchClient
from bridge.mqtt_version import Version
from bridge.settings import Settings

CONNECT_SECONDS = 5.0
DROPPED_TOPIC = b"$SYS/broker/publish/messages/dropped"


def topic_filter(settings: Settings) -> str:
    group = settings.mqtt_shared_group
    return f"$share/{group}/{settings.mqtt_topic}" if group else settings.mqtt_topic


def make_client(settings: Settings, version: Version, password: str | None) -> BatchClient:
    """Not connected, without callbacks. Raises ConfigurationError if there is something wrong with
    the certificates."""
    client = BatchClient(
        CallbackAPIVersion.VERSION2,
        client_id=settings.client_id,
        protocol=version.number,
        manual_ack=True,
        clean_session=None if version.is_5 else False,
        # Else paho, when MQTT 3.1.1 is refused, would go on with 3.1 by itself.
        reconnect_on_failure=False,
    )
    client.connect_timeout = CONNECT_SECONDS
    # With this set, paho leaves writing to the loop: acknowledgements go out together.
    client.on_socket_register_write = lambda *_: None
    if settings.mqtt_username is not None:
        client.username_pw_set(settings.mqtt_username, password)
    if settings.mqtt_tls:
        _set_tls(client, settings)
    return client


def connect_options(settings: Settings, version: Version, receive_maximum: int) -> dict[str, Any]:
    """What `connect` takes beside the address. [MQTT 5, 3.1.2.11]"""
    if not version.is_5:
        return {}
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = settings.mqtt_session_expiry_seconds
    properties.ReceiveMaximum = receive_maximum
    return {"clean_start": False, "properties": properties}


def subscriptions(settings: Settings, version: Version) -> list[tuple[str, Any]]:
    """The readings, first, and the broker's counter of messages that it dropped."""
    topic, dropped = topic_filter(settings), DROPPED_TOPIC.decode()
    if not version.is_5:
        return [(topic, 1), (dropped, 0)]
    readings = SubscribeOptions(qos=1, retainAsPublished=False, retainHandling=2)
    return [(topic, readings), (dropped, SubscribeOptions(qos=0, retainHandling=0))]


def _set_tls(client: mqtt.Client, settings: Settings) -> None:
    files = (settings.mqtt_tls_ca_file, settings.mqtt_tls_cert_file, settings.mqtt_tls_key_file)
    ca, cert, key = (None if file is None else str(file) for file in files)
    try:
        client.tls_set(ca_certs=ca, certfile=cert, keyfile=key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(
            f"MQTT_TLS_CA_FILE={ca!r}, MQTT_TLS_CERT_FILE={cert!r}, MQTT_TLS_KEY_FILE={key!r}: "
            f"{error}. Remedy: name PEM files that belong together."
        ) from error
