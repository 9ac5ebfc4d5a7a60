"""Writing the configuration of the container's programs, once, before they start."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from bridge.errors import ConfigurationError
from container import broker, certificates, limits, settings, way_in
from container.files import write_private
from container.identity import identity
from container.ports import Ports
from container.settings import Configuration
from container.sources import Secret, secret
from container.users import hashed, parse, password_file

MOSQUITTO, HAPROXY, PASSWORD = "mosquitto.conf", "haproxy.cfg", "bridge-password"
USUAL_PORTS = Ports()


def render(
    environ: Mapping[str, str], directory: Path, ports: Ports = USUAL_PORTS
) -> dict[str, str]:
    """Write mosquitto.conf, acl, passwd, certificates, haproxy.cfg into `directory` (created 0700
    if missing; a tmpfs in the container), from the environment. Answers the variables to add to the
    bridge's environment; an empty one takes away what is set there. Blocks for calls to Secret
    Manager. Raises ConfigurationError. Idempotent: a second call overwrites.
    """
    configured = settings.load(environ)
    found = {name: secret(configured.own, name) for name in settings.MADE_OF[configured.security]}
    given = {name: one for name, one in found.items() if one is not None}
    _check(given)
    name = identity(Path(configured.own.mosquitto_data))
    password = secrets.token_urlsafe(32)
    files = {
        **_pem_files(given),
        **_broker_files(configured, given, name, password, directory, ports),
        HAPROXY: _way_in(configured, ports),
        PASSWORD: password,
    }
    _write(directory, files)
    return _for_the_bridge(configured, name, directory, ports)


def _check(given: Mapping[str, Secret]) -> None:
    if settings.SERVER_CERT in given:
        certificates.check_server(given[settings.SERVER_CERT], given[settings.SERVER_KEY])
    if settings.CLIENT_CA in given:
        certificates.check_client_ca(given[settings.CLIENT_CA])
    if settings.CLIENT_CRL in given:
        certificates.check_revocations(given[settings.CLIENT_CRL], given[settings.CLIENT_CA])


def _pem_files(given: Mapping[str, Secret]) -> dict[str, str]:
    names = {
        settings.SERVER_CERT: broker.SERVER_CERT,
        settings.SERVER_KEY: broker.SERVER_KEY,
        settings.CLIENT_CA: broker.CLIENT_CA,
        settings.CLIENT_CRL: broker.CLIENT_CRL,
    }
    return {file: f"{given[name].text}\n" for name, file in names.items() if name in given}


def _broker_files(
    configured: Configuration,
    given: Mapping[str, Secret],
    name: str,
    password: str,
    directory: Path,
    ports: Ports,
) -> dict[str, str]:
    own, security = configured.own, configured.security
    users = parse(given[settings.USERS]) if settings.USERS in given else {}
    available = limits.memory()
    wanted = broker.Broker(
        directory=directory,
        data=Path(own.mosquitto_data),
        ports=ports,
        security=security,
        websockets=own.mqtt_websockets,
        revocations=settings.CLIENT_CRL in given,
        queue_messages=limits.queue_messages(own, available),
        queue_bytes=limits.queue_bytes(own, available),
        max_packet_bytes=own.mqtt_max_packet_bytes,
    )
    return {
        MOSQUITTO: broker.configuration(wanted, broker.SETTINGS_FILE.read_text(encoding="utf-8")),
        broker.RULES: broker.rules(security, name, configured.bridge.mqtt_topic, users),
        broker.PASSWORDS: password_file({name: hashed(password), **users}),
    }


def _way_in(configured: Configuration, ports: Ports) -> str:
    return way_in.configuration(
        ports,
        tls=configured.security in broker.TLS,
        websockets=configured.own.mqtt_websockets,
        connections=limits.connections(configured.own),
    )


def _write(directory: Path, files: Mapping[str, str]) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in files.items():
            write_private(directory / name, text)
    except OSError as error:
        raise ConfigurationError(
            f"{directory}: the configuration cannot be written there: {error}. "
            "Remedy: let the container's user write there (a tmpfs is enough)."
        ) from None


def _for_the_bridge(
    configured: Configuration, name: str, directory: Path, ports: Ports
) -> dict[str, str]:
    return {
        **dict.fromkeys(settings.BRIDGE_CONNECTION, ""),
        "MQTT_BROKER": "127.0.0.1",
        "MQTT_PORT": str(ports.bridge),
        "MQTT_USERNAME": name,
        "MQTT_PASSWORD_FILE": str(directory / PASSWORD),
        "MQTT_CLIENT_ID": configured.bridge.mqtt_client_id or name,
    }
