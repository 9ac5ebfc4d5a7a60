"""Secrets from wherever the settings say they are, Secret Manager included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.errors import ConfigurationError
from bridge.settings import Settings

CALL_SECONDS = 15.0


class _Damaged(Exception):
    """The value is not what its checksum says."""


def broker_password(settings: Settings) -> str | None:
    """None where none is configured. Blocks for a call where it is in Secret Manager.
    Raises ConfigurationError."""
    if settings.mqtt_password_secret is None:
        return settings.password
    return fetch("MQTT_PASSWORD_SECRET", settings.mqtt_password_secret)


def http_token(settings: Settings) -> Callable[[], str | None]:
    """A source of the token that opens the HTTP side: a file is read each time it is asked, one in
    Secret Manager only here. Blocks for a call then. Raises ConfigurationError."""
    if settings.http_token_secret is None:
        return lambda: settings.token
    token = fetch("HTTP_TOKEN_SECRET", settings.http_token_secret)
    return lambda: token


def fetch(variable: str, version: str, client: Any = None) -> str:
    """The value of `projects/…/secrets/…/versions/…` as text, without trailing line ends. Blocks.
    Raises ConfigurationError for whatever keeps it from being read. `variable`: where the name
    came from, for the error. `client`: for tests."""
    from google.api_core.exceptions import (
        FailedPrecondition,
        GoogleAPICallError,
        NotFound,
        PermissionDenied,
    )
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient

    try:
        client = client or SecretManagerServiceClient()
        answer = client.access_secret_version(
            request={"name": version}, timeout=CALL_SECONDS, retry=None
        )
        return _text(answer.payload)
    except NotFound:
        problem = "there is no such version"
        remedy = "create it, or correct the name"
    except PermissionDenied as error:
        problem = str(error.message)
        remedy = "grant the service account roles/secretmanager.secretAccessor on the secret"
    except FailedPrecondition as error:
        problem = str(error.message)
        remedy = "enable this version, or name another"
    except _Damaged:
        problem = "its value does not fit its checksum: it was damaged on the way"
        remedy = "start again"
    except UnicodeDecodeError:
        problem = "its value is not UTF-8"
        remedy = "store it as text"
    except (GoogleAPICallError, GoogleAuthError) as error:
        problem = f"it could not be read ({error})"
        remedy = "check credentials and network, and start again"
    raise ConfigurationError(f"{variable}={version!r}: {problem}. Remedy: {remedy}.")


def _text(payload: Any) -> str:
    """Raises _Damaged, UnicodeDecodeError."""
    import google_crc32c

    # Left out by services that do not count it.
    if "data_crc32c" in payload and google_crc32c.value(payload.data) != payload.data_crc32c:
        raise _Damaged
    return str(payload.data.decode("utf-8")).rstrip("\r\n")
