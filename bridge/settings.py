"""The environment as frozen, typed settings. Nothing else in the bridge reads the environment.

`load()` is the only entrance. Each field's description is the remedy that an operator is shown
when its value is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from bridge.environment import (
    Port,
    ReadableFile,
    SecretVersion,
    TextFile,
    matching,
    read,
    refusal,
)
from bridge.errors import ConfigurationError

GIB = 1024**3
TEN_YEARS = 315_360_000  # seconds
DEFAULT_FILTER = "FCTS/FAE/+/SolvExtract/+"
PLATFORM_VARIABLES = ("GAE_INSTANCE", "K_SERVICE", "KUBERNETES_SERVICE_HOST")
NEEDED_OUTSIDE_LOCAL = ("gcp_project_id", "pubsub_topic", "bigquery_dataset", "bigquery_table")

Environment = Literal["LOCAL", "DEV", "PPRD", "PRD"]
WriteMethod = Literal["storage_write", "insert_all"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["auto", "json", "text"]


def _topic_filter(value: str) -> str:
    levels = value.split("/")
    wrong = (
        "\0" in value
        or any("+" in level and level != "+" for level in levels)
        or any("#" in level and level != "#" for level in levels)
        or "#" in levels[:-1]
    )
    if wrong:
        raise PydanticCustomError("form", "is not an MQTT topic filter")
    return value


ProjectId = Annotated[
    str, matching(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,61}[a-z0-9]", "a project id")
]
PubSubId = Annotated[
    str, matching(r"(?!goog)[A-Za-z][A-Za-z0-9_.~+%-]{2,254}", "a Pub/Sub resource id")
]
DatasetId = Annotated[str, matching(r"[A-Za-z0-9_]{1,1024}", "a BigQuery dataset id")]
TableId = Annotated[str, matching(r"[\w -]{1,1024}", "a BigQuery table id")]
BucketName = Annotated[
    str, matching(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", "a Cloud Storage bucket's name")
]
HostPort = Annotated[str, matching(r"(?:\[[0-9A-Fa-f:]+\]|[^\s/:]+):[0-9]{1,5}", "host:port")]
Host = Annotated[
    str,
    matching(
        r"[^\s/:\[\]]+|[0-9A-Fa-f.]*(?::[0-9A-Fa-f.]*){2,}(?:%\w+)?", "a host name or address"
    ),
]
HttpUrl = Annotated[str, matching(r"https?://[^\s/]+/?", "http://host:port")]
Endpoint = Annotated[str, matching(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?", "a host name")]
Filter = Annotated[str, AfterValidator(_topic_filter)]


class Settings(BaseModel):
    """One run's configuration. Immutable; field names are the variables' names in lower case."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    app_env: Environment = Field("LOCAL", description="set LOCAL, DEV, PPRD or PRD")

    gcp_project_id: ProjectId | None = Field(
        None, description="set the id of this environment's own Google Cloud project"
    )
    google_cloud_project: str | None = Field(
        None, description="the platform sets it; it must not differ from GCP_PROJECT_ID"
    )
    gae_instance: str | None = Field(None, description="App Engine sets it; unset it elsewhere")
    pubsub_topic: PubSubId | None = Field(
        None, description="set the topic's id (not its full path): 3-255 letters, digits, -._~+%"
    )
    pubsub_subscription: PubSubId | None = Field(
        None, description="set the subscription's id, or leave it unset"
    )
    pubsub_endpoint: Endpoint | None = Field(
        None, description="set a regional endpoint such as us-central1-pubsub.googleapis.com"
    )
    pubsub_dead_letter_topic: PubSubId | None = Field(
        None, description="set the topic's id, or leave it unset"
    )
    pubsub_emulator_host: HostPort | None = Field(None, description="set host:port, or unset it")
    bigquery_dataset: DatasetId | None = Field(
        None, description="set the dataset's id: letters, digits, underscores"
    )
    bigquery_table: TableId | None = Field(
        None, description="set the table's id: letters, digits, - and _"
    )
    bigquery_write_method: WriteMethod = Field(
        "storage_write", description="set storage_write or insert_all"
    )
    bigquery_emulator_host: HttpUrl | None = Field(
        None, description="set http://host:port, or unset it"
    )
    bigquery_storage_emulator_host: HostPort | None = Field(
        None, description="set host:port, or unset it"
    )

    mqtt_broker: Host = Field(
        "localhost", description="set the broker's host name or address, without scheme and port"
    )
    mqtt_port: Port = Field(1883, description="set a TCP port from 1 to 65535")
    mqtt_topic: Filter = Field(
        DEFAULT_FILTER, description=f"set an MQTT topic filter such as {DEFAULT_FILTER}"
    )
    mqtt_client_id: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="set a stable id that no other client of the broker uses"
    )
    mqtt_session_expiry_seconds: int = Field(
        604_800,
        ge=0,
        le=4_294_967_295,
        description="set whole seconds, up to 4294967295 (never)",
    )
    mqtt_username: str | None = Field(None, description="set the broker's user name")
    mqtt_password: SecretStr | None = Field(None, description="set one of the password variables")
    mqtt_password_file: TextFile | None = Field(
        None, description="name a file that holds the password and that the bridge may read"
    )
    mqtt_password_secret: SecretVersion | None = Field(
        None, description="set projects/<project>/secrets/<name>/versions/<version>"
    )
    mqtt_tls: bool = Field(False, description="set true or false")
    mqtt_tls_ca_file: ReadableFile | None = Field(None, description="name a readable PEM file")
    mqtt_tls_cert_file: ReadableFile | None = Field(None, description="name a readable PEM file")
    mqtt_tls_key_file: ReadableFile | None = Field(None, description="name a readable PEM file")
    mqtt_shared_group: (
        Annotated[str, matching(r"[^/+#\s]{1,128}", "a share name (no /, +, #)")] | None
    ) = Field(None, description="set a share name without /, + and #, or leave it unset")

    journal_path: Path = Field(
        Path("data/journal.db"), description="set a path on a disk that survives a restart"
    )
    journal_max_bytes: int = Field(
        4 * GIB, ge=1024**2, description="set bytes, at least 1048576 (1 MiB)"
    )
    dead_letter_max_bytes: int = Field(256 * 1024**2, ge=0, description="set bytes, 0 or more")
    journal_retention_minutes: float = Field(
        35, ge=0, le=TEN_YEARS / 60, description="set minutes, from 0 to 5256000 (ten years)"
    )
    ledger_retention_days: int = Field(
        400, ge=1, le=3_660, description="set whole days, from 1 to 3660"
    )
    journal_handoff_bucket: BucketName | None = Field(
        None, description="set the name of a Cloud Storage bucket, without gs://, or unset it"
    )
    storage_emulator_host: HttpUrl | None = Field(
        None, description="set http://host:port, or unset it"
    )
    outage_target_hours: Annotated[float, Field(gt=0, le=TEN_YEARS / 3600)] | None = Field(
        None, description="set hours, up to 87600 (ten years), or leave it unset"
    )
    expected_rate: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None, description="set readings a second, up to 1000000, or leave it unset"
    )
    max_payload_bytes: int = Field(
        65_536, ge=64, le=6 * 1024**2, description="set bytes, from 64 to 6291456 (6 MiB)"
    )
    timestamp_max_age_days: float = Field(
        1825, ge=0, le=3_652_059, description="set days, from 0 to 3652059 (all years to 9999)"
    )
    timestamp_max_future_seconds: float = Field(
        3600, ge=0, le=TEN_YEARS, description="set seconds, from 0 to 315360000 (ten years)"
    )
    drain_seconds: float = Field(
        20, ge=0, le=604_800, description="set seconds, from 0 to 604800 (a week)"
    )
    drain_broker: bool = Field(False, description="set true or false")

    http_host: Host | None = Field(None, description="set an address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8080, description="set a TCP port (0: any free one)"
    )
    http_token: SecretStr | None = Field(None, description="set one of the token variables")
    http_token_file: TextFile | None = Field(
        None, description="name a file that holds the token and that the bridge may read"
    )
    http_token_secret: SecretVersion | None = Field(
        None, description="set projects/<project>/secrets/<name>/versions/<version>"
    )
    log_level: LogLevel = Field("INFO", description="set DEBUG, INFO, WARNING or ERROR")
    log_format: LogFormat = Field("auto", description="set auto, json or text")

    @model_validator(mode="after")
    def _own_project(self) -> Self:
        if self.gcp_project_id and self.google_cloud_project not in (None, self.gcp_project_id):
            raise refusal(
                "gcp_project_id",
                f"differs from GOOGLE_CLOUD_PROJECT={self.google_cloud_project}: "
                "one environment would write into another's project",
            )
        return self

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        given = self._only("mqtt_password")
        if given and self.mqtt_username is None:
            raise refusal("mqtt_username", f"is not set, and {given.upper()} needs it")
        return self

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        self._only("http_token")
        return self

    def _only(self, secret: str) -> str | None:
        """Which of the three variables of a secret is set. Raises if several are."""
        names = (secret, f"{secret}_file", f"{secret}_secret")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise refusal(given[1], f"is set beside {given[0].upper()}: keep one of them")
        return given[0] if given else None

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        if (self.mqtt_tls_cert_file is None) != (self.mqtt_tls_key_file is None):
            missing = "mqtt_tls_key_file" if self.mqtt_tls_cert_file else "mqtt_tls_cert_file"
            raise refusal(missing, "is not set: a certificate and its key go together")
        return self

    @property
    def local(self) -> bool:
        """Whether this run only logs and touches no Google service."""
        return self.app_env == "LOCAL"

    @property
    def client_id(self) -> str:
        return self.mqtt_client_id or f"fcts-bridge-{self.app_env.lower()}"

    @property
    def listen_host(self) -> str:
        return self.http_host or ("127.0.0.1" if self.local else "0.0.0.0")

    @property
    def token(self) -> str | None:
        """The token that opens the HTTP side. Reads its file each time it is asked."""
        if self.http_token_file is not None:
            return self.http_token_file.read_text(encoding="utf-8").strip() or None
        return self.http_token.get_secret_value() if self.http_token else None

    @property
    def password(self) -> str | None:
        """The broker password from variable or file; one in Secret Manager is fetched elsewhere."""
        if self.mqtt_password_file is not None:
            return self.mqtt_password_file.read_text(encoding="utf-8").rstrip("\r\n")
        return self.mqtt_password.get_secret_value() if self.mqtt_password else None


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and validate the environment. Raises ConfigurationError naming every bad variable."""
    environ = os.environ if environ is None else environ
    _refuse_unset_on_platform(environ)
    settings = read(Settings, environ)
    _refuse_missing(settings)
    return settings


def _refuse_unset_on_platform(environ: Mapping[str, str]) -> None:
    platform = next((name for name in PLATFORM_VARIABLES if environ.get(name)), None)
    if platform and not environ.get("APP_ENV"):
        raise ConfigurationError(
            f"APP_ENV is not set, but {platform} says that this is a Google platform: readings "
            "would only be logged. Set APP_ENV to DEV, PPRD or PRD (or to LOCAL, to log only)."
        )


def _refuse_missing(settings: Settings) -> None:
    if settings.local:
        return
    lines = [
        f"{name.upper()} (unset): APP_ENV={settings.app_env} needs it. "
        f"Remedy: {Settings.model_fields[name].description}."
        for name in NEEDED_OUTSIDE_LOCAL
        if getattr(settings, name) is None
    ]
    if lines:
        raise ConfigurationError("\n".join(lines))
