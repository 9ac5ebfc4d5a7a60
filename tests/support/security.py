"""For each security of the way in: what the container is given, who may come in, and who not."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from container.settings import Security
from tests.support.certificates import Authority
from tests.support.sensor import Credentials

SITE = "MOR"
SPACED_SITE = "São João"
PASSWORD = "a sensor's own password"


@dataclass(frozen=True)
class Material:
    """`environ` for `render`. good: a sensor of SITE; spaced: one of SPACED_SITE; bad: who is to be
    refused, by what is wrong with them. authority: PEM for sensors, with TLS."""

    environ: Mapping[str, str]
    good: Credentials
    spaced: Credentials
    bad: Mapping[str, Credentials]
    authority: str | None = None


def material(security: Security, directory: Path) -> Material:
    """Made anew. `directory`: for the password file, which Mosquitto's own program writes."""
    if security == "open":
        stranger = {"a name": Credentials(SITE, PASSWORD)}
        return Material({"MQTT_SECURITY": "open"}, Credentials(), Credentials(), stranger)
    if security == "mtls":
        return _with_client_certificates()
    environ = {"MQTT_SECURITY": security, "MQTT_USERS": password_file(directory / "users")}
    return _with_passwords(environ, Authority() if security == "tls" else None)


def password_file(path: Path) -> str:
    """With both sites."""
    path.touch(mode=0o600)
    for site in (SITE, SPACED_SITE):
        subprocess.run(["mosquitto_passwd", "-b", path, site, PASSWORD], check=True)
    return path.read_text()


def server_environ(authority: Authority) -> dict[str, str]:
    server = authority.issue("the way in")
    return {"MQTT_SERVER_CERT": server.pem, "MQTT_SERVER_KEY": server.key_pem}


def _with_passwords(environ: dict[str, str], authority: Authority | None) -> Material:
    return Material(
        environ | (server_environ(authority) if authority else {}),
        Credentials(SITE, PASSWORD),
        Credentials(SPACED_SITE, PASSWORD),
        {
            "nothing": Credentials(),
            "no password": Credentials(SITE),
            "a wrong password": Credentials(SITE, "wrong"),
            "an unknown name": Credentials("NOWHERE", PASSWORD),
        },
        authority.pem if authority else None,
    )


def _with_client_certificates() -> Material:
    authority = Authority()
    environ = {"MQTT_SECURITY": "mtls", "MQTT_CLIENT_CA": authority.pem}
    return Material(
        environ | server_environ(authority),
        Credentials(certificate=authority.issue(SITE)),
        Credentials(certificate=authority.issue(SPACED_SITE)),
        {
            "nothing": Credentials(),
            "a name and a password": Credentials(SITE, PASSWORD),
            "an expired certificate": Credentials(certificate=authority.issue(SITE, -2, -1)),
            "a foreign certificate": Credentials(certificate=Authority("Foreign").issue(SITE)),
        },
        authority.pem,
    )
