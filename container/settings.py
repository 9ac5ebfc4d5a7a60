"""The container's own variables, beside the bridge's, and which of them go together.

Each field's description is the remedy that an operator is shown when its value is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from bridge import settings as bridge_settings
from bridge.environment import SecretVersion, TextFile, matching, read
from bridge.errors import ConfigurationError

Security = Literal["open", "password", "tls", "mtls"]

# The secrets that each security is made of; `CLIENT_CRL` may be left out.
USERS, SERVER_CERT, SERVER_KEY = "MQTT_USERS", "MQTT_SERVER_CERT", "MQTT_SERVER_KEY"
CLIENT_CA, CLIENT_CRL = "MQTT_CLIENT_CA", "MQTT_CLIENT_CRL"
MADE_OF: Mapping[Security, tuple[str, ...]] = {
    "open": (),
    "password": (USERS,),
    "tls": (USERS, SERVER_CERT, SERVER_KEY),
    "mtls": (SERVER_CERT, SERVER_KEY, CLIENT_CA, CLIENT_CRL),
}
SECRETS = (USERS, SERVER_CERT, SERVER_KEY, CLIENT_CA, CLIENT_CRL)

# Topic, header and properties of a packet beside its payload. The longest topic has 1,046 bytes.
PACKET_OVERHEAD = 2048
LARGEST_PACKET = 268_435_460  # that MQTT knows: five bytes of header, and what four can count

# Set by the container for the bridge, whatever the environment says.
BRIDGE_CONNECTION = (
    *("MQTT_BROKER", "MQTT_PORT", "MQTT_USERNAME"),
    *("MQTT_PASSWORD", "MQTT_PASSWORD_FILE", "MQTT_PASSWORD_SECRET"),
    *("MQTT_TLS", "MQTT_TLS_CA_FILE", "MQTT_TLS_CERT_FILE", "MQTT_TLS_KEY_FILE"),
)

_VERSION = "set projects/<project>/secrets/<name>/versions/<version>"
_USERS = "set lines of mosquitto_passwd, one per site: <site>:$7$..."
_PEM = "set PEM text"
_FILE = "name a readable text file"
OneLinePath = Annotated[str, matching(r"/[^\x00-\x1f\x7f]*", "an absolute path in one line")]


class Settings(BaseModel):
    """Immutable; field names are the variables' names in lower case."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    mqtt_security: Security | None = Field(None, description="set open, password, tls or mtls")
    mqtt_open_accepted: bool = Field(False, description="set true or false")
    mqtt_websockets: bool = Field(False, description="set true or false")

    mqtt_users: SecretStr | None = Field(None, description=_USERS)
    mqtt_users_file: TextFile | None = Field(None, description=_FILE)
    mqtt_users_secret: SecretVersion | None = Field(None, description=_VERSION)
    mqtt_server_cert: SecretStr | None = Field(None, description=_PEM)
    mqtt_server_cert_file: TextFile | None = Field(None, description=_FILE)
    mqtt_server_cert_secret: SecretVersion | None = Field(None, description=_VERSION)
    mqtt_server_key: SecretStr | None = Field(None, description=_PEM)
    mqtt_server_key_file: TextFile | None = Field(None, description=_FILE)
    mqtt_server_key_secret: SecretVersion | None = Field(None, description=_VERSION)
    mqtt_client_ca: SecretStr | None = Field(None, description=_PEM)
    mqtt_client_ca_file: TextFile | None = Field(None, description=_FILE)
    mqtt_client_ca_secret: SecretVersion | None = Field(None, description=_VERSION)
    mqtt_client_crl: SecretStr | None = Field(None, description=_PEM)
    mqtt_client_crl_file: TextFile | None = Field(None, description=_FILE)
    mqtt_client_crl_secret: SecretVersion | None = Field(None, description=_VERSION)

    mqtt_queue_messages: int | None = Field(
        None, ge=1, le=2**31 - 1, description="set a number of messages from 1 to 2147483647"
    )
    mqtt_queue_bytes: int | None = Field(None, ge=1, le=2**62, description="set bytes, 1 or more")
    mqtt_max_packet_bytes: int | None = Field(
        None,
        ge=PACKET_OVERHEAD,
        le=LARGEST_PACKET,
        description=f"set bytes, at least MAX_PAYLOAD_BYTES and {PACKET_OVERHEAD} more",
    )
    mqtt_max_connections: int | None = Field(
        None, ge=1, le=1_000_000, description="set a number of connections from 1 to 1000000"
    )
    mosquitto_data: OneLinePath = Field(
        "/data/mosquitto", description="name a directory by its absolute path"
    )

    def sources(self, variable: str) -> dict[str, SecretStr | Path | str]:
        """Where a secret was said to be, by the variable that says so."""
        names = (variable, f"{variable}_FILE", f"{variable}_SECRET")
        given = {name: getattr(self, name.lower()) for name in names}
        return {name: value for name, value in given.items() if value is not None}


class Configuration(NamedTuple):
    """All that was read. `security` is the chosen one, `default` included."""

    own: Settings
    bridge: bridge_settings.Settings
    security: Security


def load(environ: Mapping[str, str]) -> Configuration:
    """Read and validate the environment, the bridge's part included. Raises ConfigurationError."""
    bridge = bridge_settings.load({**environ, **dict.fromkeys(BRIDGE_CONNECTION, "")})
    own = read(Settings, environ)
    security = _security(own, bridge)
    _refuse_misfits(own, security)
    _refuse_small_packets(own, bridge)
    if not bridge.mqtt_topic.isprintable() or bridge.mqtt_topic != bridge.mqtt_topic.strip():
        raise ConfigurationError(
            f"MQTT_TOPIC={bridge.mqtt_topic!r}: the broker's access rules cannot say this filter. "
            "Remedy: leave out control characters and white space at its ends."
        )
    return Configuration(own, bridge, security)


def _security(own: Settings, bridge: bridge_settings.Settings) -> Security:
    where = f"APP_ENV={bridge.app_env}"
    if own.mqtt_security is None:
        if bridge.local:
            return "open"
        raise ConfigurationError(
            f"MQTT_SECURITY (unset): {where} needs it. Remedy: set mtls, tls or password."
        )
    if own.mqtt_security != "open" or bridge.local:
        return own.mqtt_security
    if bridge.app_env != "DEV":
        raise ConfigurationError(
            f"MQTT_SECURITY='open': anybody could send readings, and {where} does not allow that. "
            "Remedy: set mtls, tls or password."
        )
    if not own.mqtt_open_accepted:
        raise ConfigurationError(
            f"MQTT_SECURITY='open': anybody can send readings, also in {where}. "
            "Remedy: set mtls, tls or password, or accept it with MQTT_OPEN_ACCEPTED=true."
        )
    return "open"


def _refuse_misfits(own: Settings, security: Security) -> None:
    lines = []
    for variable in SECRETS:
        given = list(own.sources(variable))
        if variable in MADE_OF[security]:
            lines += _amiss(variable, given, security)
        elif given:
            lines.append(
                f"{given[0]}: is set, but nothing would look at it with MQTT_SECURITY={security}. "
                "Remedy: unset it, or choose the MQTT_SECURITY that it was meant for."
            )
    if own.mqtt_websockets and own.sources(CLIENT_CRL):
        # Of Debian 12's version, with a revoked certificate.
        lines.append(
            f"{next(iter(own.sources(CLIENT_CRL)))}: Mosquitto does not look at it for MQTT over "
            "WebSockets, so a revoked certificate would be let in there. "
            "Remedy: set MQTT_WEBSOCKETS=false, or have the authority issue short-lived "
            "certificates instead of a list."
        )
    if lines:
        raise ConfigurationError("\n".join(lines))


def _amiss(variable: str, given: list[str], security: Security) -> list[str]:
    if len(given) > 1:
        return [f"{given[1]}: is set beside {given[0]}. Remedy: keep one of them."]
    if not given and variable != CLIENT_CRL:
        return [
            f"{variable} (unset): MQTT_SECURITY={security} needs it. "
            f"Remedy: set one of {variable}, {variable}_FILE and {variable}_SECRET."
        ]
    return []


def _refuse_small_packets(own: Settings, bridge: bridge_settings.Settings) -> None:
    least = bridge.max_payload_bytes + PACKET_OVERHEAD
    if own.mqtt_max_packet_bytes is not None and own.mqtt_max_packet_bytes < least:
        raise ConfigurationError(
            f"MQTT_MAX_PACKET_BYTES='{own.mqtt_max_packet_bytes}': the broker would hang up on "
            f"messages that MAX_PAYLOAD_BYTES={bridge.max_payload_bytes} lets through, and their "
            f"sensors would send them for ever. Remedy: set at least {least}, or leave it unset."
        )
