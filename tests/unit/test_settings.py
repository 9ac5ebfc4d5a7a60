"""The environment: every variable's default, what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.errors import EXIT_CONFIG, ConfigurationError
from bridge.settings import PLATFORM_VARIABLES, Settings, load

OUTSIDE = {
    "APP_ENV": "DEV",
    "GCP_PROJECT_ID": "plant-dev",
    "PUBSUB_TOPIC": "kpi-events",
    "BIGQUERY_DATASET": "plant",
    "BIGQUERY_TABLE": "readings",
}

DEFAULTS: dict[str, Any] = {
    "APP_ENV": "LOCAL",
    "GCP_PROJECT_ID": None,
    "GOOGLE_CLOUD_PROJECT": None,
    "PUBSUB_TOPIC": None,
    "PUBSUB_SUBSCRIPTION": None,
    "PUBSUB_ENDPOINT": None,
    "PUBSUB_DEAD_LETTER_TOPIC": None,
    "PUBSUB_EMULATOR_HOST": None,
    "BIGQUERY_DATASET": None,
    "BIGQUERY_TABLE": None,
    "BIGQUERY_WRITE_METHOD": "storage_write",
    "BIGQUERY_EMULATOR_HOST": None,
    "BIGQUERY_STORAGE_EMULATOR_HOST": None,
    "MQTT_BROKER": "localhost",
    "MQTT_PORT": 1883,
    "MQTT_TOPIC": "FCTS/FAE/+/SolvExtract/+",
    "MQTT_CLIENT_ID": None,
    "MQTT_SESSION_EXPIRY_SECONDS": 604_800,
    "MQTT_USERNAME": None,
    "MQTT_PASSWORD": None,
    "MQTT_PASSWORD_FILE": None,
    "MQTT_PASSWORD_SECRET": None,
    "MQTT_TLS": False,
    "MQTT_TLS_CA_FILE": None,
    "MQTT_TLS_CERT_FILE": None,
    "MQTT_TLS_KEY_FILE": None,
    "MQTT_SHARED_GROUP": None,
    "JOURNAL_PATH": Path("data/journal.db"),
    "JOURNAL_MAX_BYTES": 4 * 1024**3,
    "DEAD_LETTER_MAX_BYTES": 256 * 1024**2,
    "JOURNAL_RETENTION_MINUTES": 35,
    "LEDGER_RETENTION_DAYS": 400,
    "MAX_PAYLOAD_BYTES": 65_536,
    "TIMESTAMP_MAX_AGE_DAYS": 1825,
    "TIMESTAMP_MAX_FUTURE_SECONDS": 3600,
    "DRAIN_SECONDS": 20,
    "DRAIN_BROKER": False,
    "JOURNAL_HANDOFF_BUCKET": None,
    "OUTAGE_TARGET_HOURS": None,
    "EXPECTED_RATE": None,
    "GAE_INSTANCE": None,
    "STORAGE_EMULATOR_HOST": None,
    "HTTP_HOST": None,
    "PORT": 8080,
    "HTTP_TOKEN": None,
    "HTTP_TOKEN_FILE": None,
    "HTTP_TOKEN_SECRET": None,
    "LOG_LEVEL": "INFO",
    "LOG_FORMAT": "auto",
}

GOOD: list[tuple[str, str, Any]] = [
    ("APP_ENV", "LOCAL", "LOCAL"),
    ("GCP_PROJECT_ID", "plant-dev-1", "plant-dev-1"),
    ("GCP_PROJECT_ID", "example.com:plant-dev", "example.com:plant-dev"),
    ("PUBSUB_TOPIC", "kpi", "kpi"),
    ("PUBSUB_TOPIC", "k" * 255, "k" * 255),
    ("PUBSUB_TOPIC", "a.b-c_d~e+f%20", "a.b-c_d~e+f%20"),
    ("PUBSUB_ENDPOINT", "us-central1-pubsub.googleapis.com", "us-central1-pubsub.googleapis.com"),
    ("PUBSUB_ENDPOINT", "pubsub.example:443", "pubsub.example:443"),
    ("PUBSUB_EMULATOR_HOST", "localhost:8085", "localhost:8085"),
    ("PUBSUB_EMULATOR_HOST", "[::1]:8085", "[::1]:8085"),
    ("BIGQUERY_TABLE", "Readings-2026 ü", "Readings-2026 ü"),
    ("BIGQUERY_WRITE_METHOD", "insert_all", "insert_all"),
    ("BIGQUERY_EMULATOR_HOST", "http://localhost:9050", "http://localhost:9050"),
    ("BIGQUERY_STORAGE_EMULATOR_HOST", "127.0.0.1:9060", "127.0.0.1:9060"),
    ("MQTT_BROKER", "10.1.2.3", "10.1.2.3"),
    ("MQTT_BROKER", "::1", "::1"),
    ("MQTT_BROKER", "fe80::1%eth0", "fe80::1%eth0"),
    ("MQTT_BROKER", "mosquitto_1.plant.local", "mosquitto_1.plant.local"),
    ("MQTT_PORT", "1", 1),
    ("MQTT_PORT", "65535", 65_535),
    ("MQTT_TOPIC", "FCTS/#", "FCTS/#"),
    ("MQTT_TOPIC", "#", "#"),
    ("MQTT_TOPIC", "+/+", "+/+"),
    ("MQTT_CLIENT_ID", "x" * 256, "x" * 256),
    ("MQTT_SESSION_EXPIRY_SECONDS", "0", 0),
    ("MQTT_SESSION_EXPIRY_SECONDS", "4294967295", 4_294_967_295),
    ("MQTT_TLS", "true", True),
    ("MQTT_TLS", "1", True),
    ("MQTT_TLS", "off", False),
    ("MQTT_SHARED_GROUP", "bridges", "bridges"),
    ("JOURNAL_PATH", "/var/lib/x.db", Path("/var/lib/x.db")),
    ("JOURNAL_MAX_BYTES", "1048576", 1_048_576),
    ("DEAD_LETTER_MAX_BYTES", "0", 0),
    ("JOURNAL_RETENTION_MINUTES", "0", 0),
    ("LEDGER_RETENTION_DAYS", "1", 1),
    ("LEDGER_RETENTION_DAYS", "3660", 3660),
    ("JOURNAL_RETENTION_MINUTES", "0.5", 0.5),
    ("MAX_PAYLOAD_BYTES", "64", 64),
    ("MAX_PAYLOAD_BYTES", "6291456", 6_291_456),
    ("TIMESTAMP_MAX_AGE_DAYS", "0", 0),
    ("TIMESTAMP_MAX_AGE_DAYS", "3652059", 3_652_059),
    ("TIMESTAMP_MAX_FUTURE_SECONDS", "0", 0),
    ("DRAIN_SECONDS", "0", 0),
    ("HTTP_HOST", "0.0.0.0", "0.0.0.0"),
    ("HTTP_HOST", "::", "::"),
    ("PORT", "0", 0),
    ("LOG_LEVEL", "DEBUG", "DEBUG"),
    ("LOG_FORMAT", "json", "json"),
]

BAD: list[tuple[str, str]] = [
    ("APP_ENV", "prd"),
    ("APP_ENV", "PROD"),
    ("APP_ENV", " PRD"),
    ("APP_ENV", "local"),
    ("GCP_PROJECT_ID", "Plant"),
    ("GCP_PROJECT_ID", "projects/plant-dev"),
    ("GCP_PROJECT_ID", "plant-dev-"),
    ("GCP_PROJECT_ID", "x"),
    ("PUBSUB_TOPIC", "projects/p/topics/kpi"),
    ("PUBSUB_TOPIC", "goog-kpi"),
    ("PUBSUB_TOPIC", "ab"),
    ("PUBSUB_TOPIC", "k" * 256),
    ("PUBSUB_TOPIC", "1kpi"),
    ("PUBSUB_TOPIC", "käpi"),
    ("PUBSUB_SUBSCRIPTION", "a/b/c"),
    ("PUBSUB_DEAD_LETTER_TOPIC", "a b c"),
    ("PUBSUB_ENDPOINT", "https://us-central1-pubsub.googleapis.com"),
    ("PUBSUB_EMULATOR_HOST", "localhost"),
    ("PUBSUB_EMULATOR_HOST", "http://localhost:8085"),
    ("BIGQUERY_DATASET", "plant-dev"),
    ("BIGQUERY_DATASET", "project.dataset"),
    ("BIGQUERY_TABLE", "dataset.readings"),
    ("BIGQUERY_TABLE", "a`b"),
    ("BIGQUERY_WRITE_METHOD", "storage-write"),
    ("BIGQUERY_EMULATOR_HOST", "localhost:9050"),
    ("BIGQUERY_STORAGE_EMULATOR_HOST", "http://localhost:9060"),
    ("MQTT_BROKER", "tcp://broker:1883"),
    ("MQTT_BROKER", "broker:1883"),
    ("MQTT_BROKER", "cafe:1883"),
    ("MQTT_BROKER", "my broker"),
    ("MQTT_BROKER", "[::1]"),
    ("MQTT_PORT", "0"),
    ("MQTT_PORT", "65536"),
    ("MQTT_PORT", "-1"),
    ("MQTT_PORT", "mqtt"),
    ("MQTT_PORT", "0x75b"),
    ("MQTT_PORT", "1883.5"),
    ("MQTT_TOPIC", "FCTS/#/x"),
    ("MQTT_TOPIC", "FCTS/a+"),
    ("MQTT_TOPIC", "FCTS/a#"),
    ("MQTT_TOPIC", "a\0b"),
    ("MQTT_CLIENT_ID", "x" * 257),
    ("MQTT_SESSION_EXPIRY_SECONDS", "-1"),
    ("MQTT_SESSION_EXPIRY_SECONDS", "4294967296"),
    ("MQTT_SESSION_EXPIRY_SECONDS", "never"),
    ("MQTT_PASSWORD_FILE", "/no/such/file"),
    ("MQTT_PASSWORD_FILE", "/"),
    ("MQTT_PASSWORD_SECRET", "my-secret"),
    ("MQTT_PASSWORD_SECRET", "projects/p/secrets/s"),
    ("MQTT_TLS", "maybe"),
    ("MQTT_TLS_CA_FILE", "/no/such/file"),
    ("MQTT_TLS_CERT_FILE", "/no/such/file"),
    ("MQTT_TLS_KEY_FILE", "/no/such/file"),
    ("MQTT_SHARED_GROUP", "a/b"),
    ("MQTT_SHARED_GROUP", "a+"),
    ("MQTT_SHARED_GROUP", "a b"),
    ("JOURNAL_MAX_BYTES", "1048575"),
    ("JOURNAL_MAX_BYTES", "4GiB"),
    ("JOURNAL_MAX_BYTES", "9" * 5000),
    ("DEAD_LETTER_MAX_BYTES", "-1"),
    ("JOURNAL_RETENTION_MINUTES", "-1"),
    ("JOURNAL_RETENTION_MINUTES", "nan"),
    ("JOURNAL_RETENTION_MINUTES", "inf"),
    ("JOURNAL_RETENTION_MINUTES", "1e300"),
    ("JOURNAL_RETENTION_MINUTES", "35 minutes"),
    ("LEDGER_RETENTION_DAYS", "0"),
    ("LEDGER_RETENTION_DAYS", "3661"),
    ("LEDGER_RETENTION_DAYS", "1.5"),
    ("MAX_PAYLOAD_BYTES", "63"),
    ("MAX_PAYLOAD_BYTES", "6291457"),
    ("MAX_PAYLOAD_BYTES", "1e3"),
    ("TIMESTAMP_MAX_AGE_DAYS", "-0.1"),
    ("TIMESTAMP_MAX_AGE_DAYS", "nan"),
    ("TIMESTAMP_MAX_AGE_DAYS", "1e300"),
    ("TIMESTAMP_MAX_FUTURE_SECONDS", "-1"),
    ("TIMESTAMP_MAX_FUTURE_SECONDS", "1e300"),
    ("DRAIN_SECONDS", "-1"),
    ("DRAIN_BROKER", "perhaps"),
    ("JOURNAL_HANDOFF_BUCKET", "gs://handoff"),
    ("JOURNAL_HANDOFF_BUCKET", "Handoff"),
    ("OUTAGE_TARGET_HOURS", "0"),
    ("OUTAGE_TARGET_HOURS", "a day"),
    ("EXPECTED_RATE", "-5"),
    ("EXPECTED_RATE", "nan"),
    ("STORAGE_EMULATOR_HOST", "127.0.0.1:4443"),
    ("DRAIN_SECONDS", "inf"),
    ("DRAIN_SECONDS", "1e12"),
    ("HTTP_HOST", "http://0.0.0.0"),
    ("HTTP_HOST", "0.0.0.0:8080"),
    ("PORT", "-1"),
    ("PORT", "65536"),
    ("PORT", "http"),
    ("HTTP_TOKEN_FILE", "/no/such/file"),
    ("HTTP_TOKEN_SECRET", "my-secret"),
    ("LOG_LEVEL", "info"),
    ("LOG_LEVEL", "TRACE"),
    ("LOG_FORMAT", "xml"),
]

TAKES_ANY_TEXT = {"MQTT_USERNAME", "MQTT_PASSWORD", "HTTP_TOKEN", "JOURNAL_PATH"}
# The first is refused only where it differs; see below.
PLATFORMS_OWN = {"GOOGLE_CLOUD_PROJECT", "GAE_INSTANCE"}


def problems(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(environ)
    assert caught.value.exit_code == EXIT_CONFIG == 78
    return str(caught.value)


def field(settings: Settings, variable: str) -> Any:
    return getattr(settings, variable.lower())


# --- defaults -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", DEFAULTS)
@pytest.mark.parametrize("environ", [{}, dict.fromkeys(DEFAULTS, "")], ids=["unset", "empty"])
def test_an_unset_or_empty_variable_has_its_default(variable: str, environ: dict[str, str]) -> None:
    assert field(load(environ), variable) == DEFAULTS[variable]


def test_every_setting_has_its_default_and_its_bad_values_tested() -> None:
    variables = {name.upper() for name in Settings.model_fields}
    assert variables == set(DEFAULTS)
    assert variables - {name for name, _ in BAD} == TAKES_ANY_TEXT | PLATFORMS_OWN


@pytest.mark.parametrize(
    ("environ", "host", "client_id"),
    [
        ({}, "127.0.0.1", "fcts-bridge-local"),
        (OUTSIDE, "0.0.0.0", "fcts-bridge-dev"),
        (OUTSIDE | {"APP_ENV": "PRD", "HTTP_HOST": "10.0.0.1"}, "10.0.0.1", "fcts-bridge-prd"),
        ({"MQTT_CLIENT_ID": "mine", "HTTP_HOST": "0.0.0.0"}, "0.0.0.0", "mine"),
    ],
)
def test_address_and_client_id_depend_on_the_environment(
    environ: dict[str, str], host: str, client_id: str
) -> None:
    settings = load(environ)
    assert (settings.listen_host, settings.client_id) == (host, client_id)


def test_the_process_environment_is_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*DEFAULTS, *PLATFORM_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MQTT_PORT", "1884")
    assert load().mqtt_port == 1884


def test_settings_do_not_change() -> None:
    settings = load({})
    with pytest.raises(ValidationError, match="frozen"):
        settings.mqtt_port = 1


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variable", "text", "value"), GOOD)
def test_a_good_value_is_taken(variable: str, text: str, value: Any) -> None:
    assert field(load({variable: text}), variable) == value


@pytest.mark.parametrize(("variable", "value"), BAD)
def test_a_bad_value_is_refused_with_its_name_its_value_and_the_remedy(
    variable: str, value: str
) -> None:
    words = problems(**{variable: value})
    assert words.startswith(f"{variable}={value[:200]!r}")
    assert f"Remedy: {Settings.model_fields[variable.lower()].description}." in words
    assert len(words.splitlines()) == 1
    assert len(words) < 500


def test_all_bad_values_are_named_at_once() -> None:
    words = problems(MQTT_PORT="x", PORT="y", LOG_LEVEL="z")
    assert [line.split("=")[0] for line in words.splitlines()] == ["MQTT_PORT", "PORT", "LOG_LEVEL"]


@pytest.mark.parametrize("variable", sorted(TAKES_ANY_TEXT))
def test_a_value_that_is_not_utf_8_is_refused(variable: str) -> None:
    words = problems(**{variable: "caf\udce9", "MQTT_USERNAME": "x\udcff"})
    assert f"{variable}=" in words
    assert "is not UTF-8" in words
    assert "MQTT_USERNAME='x\\udcff'" in words
    words.encode("utf-8")


# --- outside LOCAL --------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ["DEV", "PPRD", "PRD"])
def test_all_missing_variables_are_named_at_once(environment: str) -> None:
    words = problems(APP_ENV=environment)
    assert [line.split(" ")[0] for line in words.splitlines()] == [
        "GCP_PROJECT_ID",
        "PUBSUB_TOPIC",
        "BIGQUERY_DATASET",
        "BIGQUERY_TABLE",
    ]
    assert words.count("(unset)") == words.count("Remedy: ") == 4
    assert words.count(f"APP_ENV={environment} needs it") == 4


@pytest.mark.parametrize("missing", [name for name in OUTSIDE if name != "APP_ENV"])
def test_each_of_the_needed_variables_is_needed(missing: str) -> None:
    words = problems(**(OUTSIDE | {missing: ""}))
    assert re.findall(r"(\w+) \(unset\)", words) == [missing]


def test_with_all_that_is_needed_the_settings_are_accepted() -> None:
    settings = load(OUTSIDE)
    assert not settings.local
    assert settings.gcp_project_id == "plant-dev"


@pytest.mark.parametrize("platform", PLATFORM_VARIABLES)
def test_on_a_google_platform_the_environment_must_be_named(platform: str) -> None:
    for environ in ({platform: "x"}, {platform: "x", "APP_ENV": ""}, OUTSIDE | {platform: "x"}):
        if environ.get("APP_ENV"):
            assert load(environ).app_env == "DEV"
        else:
            words = problems(**environ)
            assert "APP_ENV is not set" in words
            assert platform in words
            assert "Set APP_ENV to DEV, PPRD or PRD" in words
    assert load({platform: "x", "APP_ENV": "LOCAL"}).local
    assert load({platform: ""}).local


@pytest.mark.parametrize("environ", [{}, OUTSIDE], ids=["LOCAL", "DEV"])
def test_another_project_than_the_platforms_own_is_refused(environ: dict[str, str]) -> None:
    own = environ | {"GCP_PROJECT_ID": "plant-dev", "GOOGLE_CLOUD_PROJECT": "plant-prd"}
    words = problems(**own)
    assert words.startswith(
        "GCP_PROJECT_ID='plant-dev': differs from GOOGLE_CLOUD_PROJECT=plant-prd"
    )
    assert load(own | {"GOOGLE_CLOUD_PROJECT": "plant-dev"}).gcp_project_id == "plant-dev"
    assert load(own | {"GOOGLE_CLOUD_PROJECT": ""}).gcp_project_id == "plant-dev"


# --- what goes together ---------------------------------------------------------------------------


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("hush-from-file\n", encoding="utf-8")
    return path


SECRET_NAME = "projects/p/secrets/s/versions/1"


def test_only_one_password_variable_may_be_set(secret_file: Path) -> None:
    given = {
        "MQTT_PASSWORD": "hush",
        "MQTT_PASSWORD_FILE": str(secret_file),
        "MQTT_PASSWORD_SECRET": SECRET_NAME,
    }
    names = list(given)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        pair = {name: given[name] for name in (names[one], names[other])}
        words = problems(MQTT_USERNAME="u", **pair)
        assert words.startswith(f"{names[other]}=")
        assert f"is set beside {names[one]}: keep one of them" in words


@pytest.mark.parametrize("variable", ["MQTT_PASSWORD", "MQTT_PASSWORD_SECRET"])
def test_a_password_needs_a_user_name(variable: str) -> None:
    words = problems(**{variable: SECRET_NAME})
    assert words.startswith(f"MQTT_USERNAME (unset): is not set, and {variable} needs it")


def test_only_one_token_variable_may_be_set(secret_file: Path) -> None:
    words = problems(HTTP_TOKEN="hush", HTTP_TOKEN_FILE=str(secret_file))
    assert words.startswith("HTTP_TOKEN_FILE=")
    assert "keep one of them" in words


@pytest.mark.parametrize(
    ("given", "missing"),
    [("MQTT_TLS_CERT_FILE", "MQTT_TLS_KEY_FILE"), ("MQTT_TLS_KEY_FILE", "MQTT_TLS_CERT_FILE")],
)
def test_a_certificate_and_its_key_go_together(given: str, missing: str, secret_file: Path) -> None:
    assert problems(**{given: str(secret_file)}).startswith(f"{missing} (unset)")
    both = load({given: str(secret_file), missing: str(secret_file)})
    assert both.mqtt_tls_key_file == secret_file


def test_password_and_token_come_from_the_variable_or_the_file(secret_file: Path) -> None:
    plain = load({"MQTT_USERNAME": "u", "MQTT_PASSWORD": "hush ", "HTTP_TOKEN": "t"})
    assert (plain.password, plain.token) == ("hush ", "t")
    path = str(secret_file)
    filed = load({"MQTT_USERNAME": "u", "MQTT_PASSWORD_FILE": path, "HTTP_TOKEN_FILE": path})
    assert (filed.password, filed.token) == ("hush-from-file", "hush-from-file")
    secret_file.write_text("turned\r\n", encoding="utf-8")
    assert (filed.password, filed.token) == ("turned", "turned")
    none = load({})
    assert (none.password, none.token) == (None, None)


def test_a_secret_file_that_is_no_text_is_refused(secret_file: Path) -> None:
    secret_file.write_bytes(b"\xff\xfe")
    for variable in ("MQTT_PASSWORD_FILE", "HTTP_TOKEN_FILE"):
        words = problems(MQTT_USERNAME="u", **{variable: str(secret_file)})
        assert words.startswith(f"{variable}=")
        assert "not a readable file of UTF-8 text" in words


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTP_TOKEN", "MQTT_PASSWORD"])
def test_a_secret_is_never_shown(variable: str, secret_file: Path) -> None:
    environ = {
        variable: "hush-hush\udcff",
        "MQTT_USERNAME": "",
        "MQTT_PASSWORD_FILE": str(secret_file),
        "HTTP_TOKEN_FILE": str(secret_file),
    }
    for words in (problems(**environ), problems(**(environ | {variable: "hush-hush"}))):
        assert "hush" not in words
    assert f"{variable}=<hidden>" in problems(**environ)
    settings = load({variable: "hush-hush", "MQTT_USERNAME": "u"})
    for shown in (repr(settings), str(settings), str(settings.model_dump())):
        assert "hush" not in shown
