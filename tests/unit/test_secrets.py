"""A password out of Secret Manager, over a local gRPC server with the real client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import google_crc32c
import grpc
import pytest
from google.cloud.secretmanager_v1 import SecretManagerServiceClient, types
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceGrpcTransport,
)

from bridge.errors import ConfigurationError
from bridge.secrets import fetch, http_token
from bridge.settings import load

VARIABLE = "MQTT_PASSWORD_SECRET"
NAME = "projects/p/secrets/broker/versions/1"
CHECKED = "projects/p/secrets/checked/versions/1"
DAMAGED = "projects/p/secrets/damaged/versions/1"
BINARY = "projects/p/secrets/binary/versions/1"
PAYLOADS: dict[str, dict[str, Any]] = {
    NAME: {"data": b"s3cret\n"},
    CHECKED: {"data": b"s3cret", "data_crc32c": google_crc32c.value(b"s3cret")},
    DAMAGED: {"data": b"s3creT", "data_crc32c": google_crc32c.value(b"s3cret")},
    BINARY: {"data": b"\xff\xfe"},
}
_Request = types.AccessSecretVersionRequest.pb()
_Response = types.AccessSecretVersionResponse.pb()


@pytest.fixture
def client() -> Iterator[Any]:
    def access(request: Any, context: grpc.ServicerContext) -> Any:
        if request.name.endswith("/versions/2"):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "denied")
        if request.name.endswith("/versions/3"):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "it is in DISABLED state")
        if request.name.endswith("/versions/4"):
            context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        if request.name not in PAYLOADS:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        return _Response(name=request.name, payload=PAYLOADS[request.name])

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
    assert fetch(VARIABLE, NAME, client) == "s3cret"


def test_a_missing_version_names_variable_value_and_remedy(client: Any) -> None:
    name = "projects/p/secrets/other/versions/1"
    with pytest.raises(ConfigurationError, match=rf"MQTT_PASSWORD_SECRET='{name}'.*Remedy"):
        fetch(VARIABLE, name, client)


def test_a_missing_right_names_the_role(client: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"secretmanager\.secretAccessor"):
        fetch(VARIABLE, "projects/p/secrets/broker/versions/2", client)


def test_a_value_that_fits_its_checksum_is_taken(client: Any) -> None:
    assert fetch(VARIABLE, CHECKED, client) == "s3cret"


def test_a_value_that_was_damaged_on_the_way_is_refused_and_not_shown(client: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"checksum.*Remedy") as refused:
        fetch(VARIABLE, DAMAGED, client)
    assert "s3cre" not in str(refused.value)


def test_a_disabled_version_is_to_be_enabled(client: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"DISABLED.*Remedy: enable this version"):
        fetch(VARIABLE, "projects/p/secrets/broker/versions/3", client)


def test_a_service_that_is_down_ends_in_words(client: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"down.*Remedy: check credentials and network"):
        fetch(VARIABLE, "projects/p/secrets/broker/versions/4", client)


def test_a_value_that_is_no_text_is_refused_without_showing_it(client: Any) -> None:
    with pytest.raises(ConfigurationError, match="is not UTF-8") as refused:
        fetch(VARIABLE, BINARY, client)
    assert "xff" not in str(refused.value)


def test_a_token_from_secret_manager_is_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(variable: str, version: str) -> str:
        asked.append((variable, version))
        return "open"

    monkeypatch.setattr("bridge.secrets.fetch", answer)
    token = http_token(load({"HTTP_TOKEN_SECRET": NAME}))
    assert (token(), token()) == ("open", "open")
    assert asked == [("HTTP_TOKEN_SECRET", NAME)]
    assert http_token(load({"HTTP_TOKEN": "plain"}))() == "plain"


def test_a_token_comes_from_one_place() -> None:
    with pytest.raises(ConfigurationError, match=r"HTTP_TOKEN_SECRET.*beside HTTP_TOKEN"):
        load({"HTTP_TOKEN_SECRET": NAME, "HTTP_TOKEN": "plain"})
