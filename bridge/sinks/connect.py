"""Google's clients as the settings ask for them: real endpoints, regional ones, or emulators.

Every function imports its library itself, so that a run that needs none imports none. None of
them talks to a service yet. Credentials are the platform's (Application Default Credentials),
found at the first use; with an emulator there are none.
"""

from __future__ import annotations

import os
from typing import Any

from bridge.errors import ConfigurationError
from bridge.settings import Settings

# gRPC's core writes to standard error past all logging; it reads this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

_CHANNEL_OPTIONS = [
    # Long outages must not stretch gRPC's own reconnects beyond our back-off.
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
_CREDENTIALS_REMEDY = (
    "Remedy: run with a service account (on App Engine: `service_account`), or run "
    "`gcloud auth application-default login`."
)


def publisher(settings: Settings) -> Any:
    """A generated `google.pubsub_v1.PublisherClient`. Raises ConfigurationError."""
    from google.pubsub_v1 import PublisherClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

    return _pubsub(settings, PublisherClient, PublisherGrpcTransport)


def subscriber(settings: Settings) -> Any:
    """A generated `google.pubsub_v1.SubscriberClient`. Raises ConfigurationError."""
    from google.pubsub_v1 import SubscriberClient
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

    return _pubsub(settings, SubscriberClient, SubscriberGrpcTransport)


def _pubsub(settings: Settings, client: Any, transport: Any) -> Any:
    if settings.pubsub_emulator_host:
        channel = _insecure_channel(settings.pubsub_emulator_host)
        return client(transport=transport(channel=channel))
    options = {"api_endpoint": settings.pubsub_endpoint} if settings.pubsub_endpoint else {}
    return _with_credentials(lambda: client(client_options=options))


def bigquery(settings: Settings) -> Any:
    """A `google.cloud.bigquery.Client`. Raises ConfigurationError."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.bigquery import Client

    if settings.bigquery_emulator_host:
        return Client(
            project=settings.gcp_project_id,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": settings.bigquery_emulator_host.rstrip("/")},
        )
    return _with_credentials(lambda: Client(project=settings.gcp_project_id))


def writer(settings: Settings) -> Any:
    """A `google.cloud.bigquery_storage_v1.BigQueryWriteClient`. Raises ConfigurationError."""
    from google.cloud.bigquery_storage_v1 import BigQueryWriteClient
    from google.cloud.bigquery_storage_v1.services.big_query_write.transports import (
        BigQueryWriteGrpcTransport,
    )

    if settings.bigquery_storage_emulator_host:
        channel = _insecure_channel(settings.bigquery_storage_emulator_host)
        return BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel))
    return _with_credentials(BigQueryWriteClient)


def storage(settings: Settings) -> Any:
    """A `google.cloud.storage.Client`. Raises ConfigurationError."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client

    if settings.storage_emulator_host:
        return Client(
            project=settings.gcp_project_id,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": settings.storage_emulator_host.rstrip("/")},
        )
    return _with_credentials(lambda: Client(project=settings.gcp_project_id))


def _insecure_channel(target: str) -> Any:
    import grpc

    return grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)


def _with_credentials(make: Any) -> Any:
    from google.auth.exceptions import DefaultCredentialsError

    try:
        return make()
    except DefaultCredentialsError as error:
        raise ConfigurationError(
            f"GOOGLE_APPLICATION_CREDENTIALS: no Google credentials were found ({error}). "
            f"{_CREDENTIALS_REMEDY}"
        ) from None
