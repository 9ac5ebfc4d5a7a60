"""Which variables of the container go together, and what is said of those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import EXIT_CONFIG, ConfigurationError
from container.settings import PACKET_OVERHEAD, SECRETS, Settings, load

PLATFORM = {
    "GCP_PROJECT_ID": "a-project",
    "PUBSUB_TOPIC": "readings",
    "BIGQUERY_DATASET": "plant",
    "BIGQUERY_TABLE": "readings",
}
PEM = {"MQTT_SERVER_CERT": "pem", "MQTT_SERVER_KEY": "pem"}


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load(environ)
    assert refused.value.exit_code == EXIT_CONFIG
    assert "Remedy: " in str(refused.value)
    return str(refused.value)


def test_local_is_open_unless_it_says_otherwise() -> None:
    assert load({}).security == "open"
    assert load({"MQTT_SECURITY": "password", "MQTT_USERS": "x"}).security == "password"


@pytest.mark.parametrize("app_env", ["DEV", "PPRD", "PRD"])
def test_everywhere_else_the_security_has_to_be_chosen(app_env: str) -> None:
    said = refusal({"APP_ENV": app_env, **PLATFORM})
    assert said.startswith(f"MQTT_SECURITY (unset): APP_ENV={app_env} needs it.")


@pytest.mark.parametrize("app_env", ["PPRD", "PRD"])
def test_an_open_broker_is_refused_in_production_even_when_accepted(app_env: str) -> None:
    said = refusal(
        {"APP_ENV": app_env, "MQTT_SECURITY": "open", "MQTT_OPEN_ACCEPTED": "true", **PLATFORM}
    )
    assert f"APP_ENV={app_env} does not allow that" in said


def test_an_open_broker_in_dev_has_to_be_accepted() -> None:
    environ = {"APP_ENV": "DEV", "MQTT_SECURITY": "open", **PLATFORM}
    assert "MQTT_OPEN_ACCEPTED=true" in refusal(environ)
    assert load({**environ, "MQTT_OPEN_ACCEPTED": "true"}).security == "open"


def test_an_unknown_security_is_refused_with_those_there_are() -> None:
    assert "set open, password, tls or mtls" in refusal({"MQTT_SECURITY": "none"})


@pytest.mark.parametrize(
    ("security", "missing"),
    [
        ("password", ["MQTT_USERS"]),
        ("tls", ["MQTT_USERS", "MQTT_SERVER_CERT", "MQTT_SERVER_KEY"]),
        ("mtls", ["MQTT_SERVER_CERT", "MQTT_SERVER_KEY", "MQTT_CLIENT_CA"]),
    ],
)
def test_what_a_security_is_made_of_is_named_where_it_is_missing(
    security: str, missing: list[str]
) -> None:
    lines = refusal({"MQTT_SECURITY": security}).splitlines()
    assert [line.split()[0] for line in lines] == missing


def test_a_list_of_revocations_may_be_left_out() -> None:
    load({"MQTT_SECURITY": "mtls", "MQTT_CLIENT_CA": "pem", **PEM})


@pytest.mark.parametrize("security", ["open", "password", "tls"])
def test_an_authority_that_nothing_would_look_at_is_refused(security: str) -> None:
    said = refusal({"MQTT_SECURITY": security, "MQTT_CLIENT_CA": "pem", **PEM, "MQTT_USERS": "x"})
    assert (
        f"MQTT_CLIENT_CA: is set, but nothing would look at it with MQTT_SECURITY={security}"
        in said
    )


def test_a_secret_comes_from_one_place(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("x")
    said = refusal(
        {"MQTT_SECURITY": "password", "MQTT_USERS": "s3cret", "MQTT_USERS_FILE": str(path)}
    )
    assert said.startswith("MQTT_USERS_FILE: is set beside MQTT_USERS.")
    assert "s3cret" not in said


def test_a_secret_is_not_shown_when_it_is_refused() -> None:
    said = refusal({"MQTT_SECURITY": "password", "MQTT_USERS": "s3cret\udcff"})
    assert "s3cret" not in said
    assert "MQTT_USERS=<hidden>" in said


def test_revocations_that_websockets_would_ignore_are_refused() -> None:
    environ = {"MQTT_SECURITY": "mtls", "MQTT_CLIENT_CA": "pem", "MQTT_CLIENT_CRL": "pem", **PEM}
    load(environ)
    assert "MQTT_CLIENT_CRL: Mosquitto does not look at it" in refusal(
        {**environ, "MQTT_WEBSOCKETS": "true"}
    )


def test_a_packet_has_room_for_the_largest_payload_and_its_topic() -> None:
    least = 1000 + PACKET_OVERHEAD
    environ = {"MAX_PAYLOAD_BYTES": "1000", "MQTT_MAX_PACKET_BYTES": str(least)}
    assert load(environ).own.mqtt_max_packet_bytes == least
    said = refusal({**environ, "MAX_PAYLOAD_BYTES": "1001"})
    assert "MAX_PAYLOAD_BYTES=1001 lets through" in said
    assert f"set at least {least + 1}" in said


@pytest.mark.parametrize(
    "name", ["MQTT_QUEUE_MESSAGES", "MQTT_QUEUE_BYTES", "MQTT_MAX_CONNECTIONS"]
)
def test_a_limit_of_0_is_refused_for_versions_differ_in_what_it_means(name: str) -> None:
    assert refusal({name: "0"}).startswith(f"{name}='0': ")


@pytest.mark.parametrize("path", ["data", "/data\nuser root"])
def test_the_brokers_directory_is_an_absolute_path_in_one_line(path: str) -> None:
    assert refusal({"MOSQUITTO_DATA": path}).startswith("MOSQUITTO_DATA=")


@pytest.mark.parametrize("topic", ["FCTS/#\nuser x", " FCTS/#"])
def test_a_filter_that_no_access_rule_can_say_is_refused(topic: str) -> None:
    assert refusal({"MQTT_TOPIC": topic}).startswith("MQTT_TOPIC=")


def test_how_the_bridge_would_connect_elsewhere_does_not_matter() -> None:
    load({"MQTT_PASSWORD": "one", "MQTT_PASSWORD_FILE": "/nowhere", "MQTT_TLS_CERT_FILE": "/no"})


def test_what_is_wrong_with_the_bridges_part_is_said_as_well() -> None:
    assert refusal({"APP_ENV": "PRD"}).startswith("GCP_PROJECT_ID (unset)")


def test_every_variable_is_in_the_documentation() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text()
    sources = {f"{name}{ending}" for name in SECRETS for ending in ("_FILE", "_SECRET")}
    variables = {name.upper() for name in Settings.model_fields} - sources
    assert [name for name in sorted(variables) if f"`{name}" not in text] == []
