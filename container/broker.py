"""Mosquitto's configuration and access rules as text.

One password file and one list of rules for all listeners. With rules of each listener's own
(`per_listener_settings`) Mosquitto goes by the port at which a session's client was last: after a
restart with another port it acknowledged what came before the bridge was back, and dropped it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from container.ports import Ports
from container.settings import Security

SETTINGS_FILE = Path(__file__).resolve().parents[1] / "mosquitto.conf"
# What the bridge, and its `check`, read of the broker's own figures.
COUNTERS = (
    "$SYS/broker/publish/messages/dropped",
    "$SYS/broker/version",
    "$SYS/broker/store/messages/+",
)
PASSWORDS, RULES = "passwd", "acl"
SERVER_CERT, SERVER_KEY = "server.crt", "server.key"
CLIENT_CA, CLIENT_CRL = "client-ca.crt", "client.crl"
TLS: tuple[Security, ...] = ("tls", "mtls")


@dataclass(frozen=True)
class Broker:
    """What the text depends on. `directory`: of the files that it names. max_packet_bytes: None
    leaves that of `mosquitto.conf`. revocations: whether there is a list of them."""

    directory: Path
    data: Path
    ports: Ports
    security: Security
    websockets: bool
    revocations: bool
    queue_messages: int
    queue_bytes: int
    max_packet_bytes: int | None


def configuration(broker: Broker, base: str) -> str:
    """`base` down to its first listener, with what depends on the environment in its place."""
    own = _own(broker)
    lines = ["# Made at the start from mosquitto.conf and the environment. Do not edit."]
    lines += [line for line in _options(base) if line.split()[0] not in own]
    lines += [f"{option} {value}" for option, value in own.items()]
    lines += ["", "# The bridge's: nothing forwards to it."]
    lines += [f"listener {broker.ports.bridge} 127.0.0.1"]
    lines += ["", "# The sensors', behind HAProxy."]
    lines += [f"listener {broker.ports.sensors} 127.0.0.1", *_tls(broker)]
    if broker.websockets:
        lines += ["", f"listener {broker.ports.sensors_websockets} 127.0.0.1"]
        # Without the second of these it would listen on every address.
        lines += ["protocol websockets", "socket_domain ipv4", *_tls(broker)]
    return "\n".join(lines) + "\n"


def _options(base: str) -> Iterable[str]:
    for line in base.splitlines():
        if line.startswith("listener "):
            return
        if line.strip() and not line.startswith("#"):
            yield line


def _own(broker: Broker) -> dict[str, str]:
    own = {
        "persistence_location": f"{broker.data}/",
        "max_queued_messages": str(broker.queue_messages),
        "max_queued_bytes": str(broker.queue_bytes),
        "allow_anonymous": "true" if broker.security == "open" else "false",
        "password_file": str(broker.directory / PASSWORDS),
        "acl_file": str(broker.directory / RULES),
    }
    if broker.max_packet_bytes is not None:
        own["max_packet_size"] = str(broker.max_packet_bytes)
    if os.geteuid() == 0:
        # Else Mosquitto would become another user, to whom these files do not belong.
        own["user"] = "root"
    return own


def _tls(broker: Broker) -> list[str]:
    if broker.security not in TLS:
        return []
    lines = [
        "tls_version tlsv1.2",
        f"certfile {broker.directory / SERVER_CERT}",
        f"keyfile {broker.directory / SERVER_KEY}",
    ]
    if broker.security == "mtls":
        lines += [f"cafile {broker.directory / CLIENT_CA}", "require_certificate true"]
        lines += ["use_identity_as_username true"]
        lines += [f"crlfile {broker.directory / CLIENT_CRL}"] if broker.revocations else []
    return lines


def rules(security: Security, bridge: str, topic_filter: str, sites: Iterable[str]) -> str:
    """Who may read and write what. What is not said is refused. bridge: its user's name. sites:
    the users of the others, where they are known."""
    lines = []
    if security == "open":
        lines += ["# Whoever gives no name.", f"topic write {_topic('+')}", ""]
    lines += [f"user {bridge}"]
    if security == "mtls":
        # The pattern below is for every user, and would let the bridge write under its own name.
        lines += [f"topic deny {_topic(bridge)}"]
    lines += [f"topic read {topic}" for topic in (topic_filter, *COUNTERS)]
    for site in sites:
        lines += ["", f"user {site}", f"topic write {_topic(site)}"]
    if security == "mtls":
        lines += ["", f"pattern write {_topic('%u')}"]
    return "\n".join(lines) + "\n"


def _topic(site: str) -> str:
    return f"FCTS/FAE/{site}/SolvExtract/+"
