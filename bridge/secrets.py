"""A secret's value out of Secret Manager."""

from __future__ import annotations

from typing import Any

from bridge.errors import ConfigurationError

CALL_SECONDS = 15.0


def fetch(version: str, client: Any = None) -> str:
    """The value of `projects/…/secrets/…/versions/…` as text, without trailing line ends. Blocks.
    Raises ConfigurationError for whatever keeps it from being read. `client`: for tests."""
    from google.api_core.exceptions import GoogleAPICallError, NotFound, PermissionDenied
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient

    try:
        client = client or SecretManagerServiceClient()
        answer = client.access_secret_version(
            request={"name": version}, timeout=CALL_SECONDS, retry=None
        )
        return str(answer.payload.data.decode("utf-8")).rstrip("\r\n")
    except NotFound:
        problem = "there is no such version"
        remedy = "create it, or correct the name"
    except PermissionDenied as error:
        problem = str(error.message)
        remedy = "grant the service account roles/secretmanager.secretAccessor on the secret"
    except UnicodeDecodeError:
        problem = "its value is not UTF-8"
        remedy = "store the password as text"
    except (GoogleAPICallError, GoogleAuthError) as error:
        problem = f"it could not be read ({error})"
        remedy = "check credentials and network, and start again"
    raise ConfigurationError(f"MQTT_PASSWORD_SECRET={version!r}: {problem}. Remedy: {remedy}.")
