"""A password out of Secret Manager, over a local gRPC server with the real client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.cloud.secretmanager_v1 import SecretManagerServiceClient, types
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceGrpcTransport,
)

from bridge.errors import ConfigurationError
from bridge.secrets import fetch

NAME = "projects/p/secrets/broker/versions/1"
_Request = types.AccessSecretVersionRequest.pb()
_Response = types.AccessSecretVersionResponse.pb()


@pytest.fixture
def client() -> Iterator[Any]:
    def access(request: Any, context: grpc.ServicerContext) -> Any:
        if request.name.endswith("/versions/2"):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "denied")
        if request.name != NAME:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        return _Response(name=NAME, payload={"data": b"s3cret\n"})

    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(
        access, _Request.FromString, _Response.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "google.cloud.secretmanager.v1.SecretManagerService",
                {"AccessSecretVersion": handler},
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    yield SecretManagerServiceClient(transport=SecretManagerServiceGrpcTransport(channel=channel))
    server.stop(0)


def test_the_value_comes_without_its_line_end(client: Any) -> None:
    assert fetch(NAME, client) == "s3cret"


def test_a_missing_version_names_variable_value_and_remedy(client: Any) -> None:
    name = "projects/p/secrets/other/versions/1"
    with pytest.raises(ConfigurationError, match=rf"MQTT_PASSWORD_SECRET='{name}'.*Remedy"):
        fetch(name, client)


def test_a_missing_right_names_the_role(client: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"secretmanager\.secretAccessor"):
        fetch("projects/p/secrets/broker/versions/2", client)
