"""dev.yml, pprd.yml and prd.yml: deployable, complete, and not drifting apart."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import cloud_sdk
from tests.support.descriptors import (
    ALLOWED,
    BY_RULE,
    FILES,
    ROOT,
    Descriptors,
    flat,
    problems,
    read_all,
)

KEYS = sorted(flat(read_all()["DEV"]))


def place(descriptors: Descriptors, name: str, key: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds a dotted key, and the key's last part."""
    *parents, last = key.split(".")
    mapping = descriptors[name]
    for parent in parents:
        mapping = mapping[parent]
    return mapping, last


def changed(value: Any) -> Any:
    if isinstance(value, list):
        return [*value, "1884/tcp"]
    return value * 10 if isinstance(value, int) else f"{value}0"


@pytest.fixture
def descriptors() -> Descriptors:
    return copy.deepcopy(read_all())


def test_the_three_descriptors_are_as_they_have_to_be(descriptors: Descriptors) -> None:
    assert problems(descriptors) == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("key", [key for key in KEYS if key not in ALLOWED])
def test_a_value_that_drifts_in_one_descriptor_is_caught(
    descriptors: Descriptors, name: str, key: str
) -> None:
    mapping, last = place(descriptors, name, key)
    before = mapping[last]
    mapping[last] = changed(before)
    if _is_a_secret_version(before):
        assert problems(descriptors) == []  # a rotation comes to one environment first
        mapping[last] = before.replace("fcts-", "other-")
    assert problems(descriptors) != []


def _is_a_secret_version(value: Any) -> bool:
    return isinstance(value, str) and "/versions/" in value


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_missing_in_one_descriptor_is_caught(
    descriptors: Descriptors, name: str, key: str
) -> None:
    mapping, last = place(descriptors, name, key)
    del mapping[last]
    assert problems(descriptors) != []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vpc_access_connector", {"name": "projects/p/locations/l/connectors/c"}),
        ("beta_settings", {"cloud_sql_instances": "x"}),
        ("env_variables.MQTT_PORT", "1884"),
        ("network.session_affinity", True),
    ],
)
def test_a_key_that_only_one_descriptor_has_is_caught(
    descriptors: Descriptors, key: str, value: Any
) -> None:
    mapping, last = place(descriptors, "PPRD", key)
    mapping[last] = value
    assert problems(descriptors) != []


@pytest.mark.parametrize("key", sorted(ALLOWED))
def test_the_names_of_an_environment_are_its_own(descriptors: Descriptors, key: str) -> None:
    mapping, last = place(descriptors, "PRD", key)
    mapping[last] = "plant-network"
    assert problems(descriptors) == []


# Wrong in all three alike, so that it is the rule that finds it and not the comparison.
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("vpc_access_connector", {"name": "c"}, "VPC connector"),
        ("manual_scaling.instances", 2, "one instance"),
        ("liveness_check.path", "livez", "/livez"),
        ("readiness_check.path", "/livez", "/readyz"),
        ("resources.cpu", 3, "1 or even"),
        ("resources.memory_gb", 0.4, "does not fit"),
        ("resources.disk_size_gb", 4, "half of the disk"),
        ("network.forwarded_ports", ["8883/tcp", "8080/tcp"], "forwarded_ports"),
        ("network.forwarded_ports", ["1883/tcp"], "forwarded_ports"),
        ("env_variables.MQTT_WEBSOCKETS", "true", "forwarded_ports"),
        ("env_variables.MQTT_SECURITY", "open", "MQTT_SECURITY"),
        ("env_variables.JOURNAL_MAX_BYTES", "6000000000", "half of the disk"),
        ("env_variables.DRAIN_SECONDS", 20, "quoted"),
        ("env_variables.MQTT_PASWORD", "x", "no setting is called MQTT_PASWORD"),
        ("env_variables.PUBSUB_TOPIC", "goog-x", "PUBSUB_TOPIC"),
        ("env_variables.HTTP_TOKEN_SECRET", "projects/else/secrets/t/versions/1", "numbered"),
        ("service_account", "a@elsewhere.iam.gserviceaccount.com", "another project"),
    ],
)
def test_what_app_engine_or_the_bridge_would_refuse_is_caught_in_words(
    descriptors: Descriptors, key: str, value: Any, words: str
) -> None:
    for name in FILES:
        mapping, last = place(descriptors, name, key)
        mapping[last] = value
    found = problems(descriptors)
    for name in FILES:
        assert any(name in problem and words in problem for problem in found), found


def test_every_key_is_compared_or_has_its_own_rule() -> None:
    assert set(KEYS) >= ALLOWED | BY_RULE


# --- the parser of Google's own command line ------------------------------------------------------

PARSE = """
import json, sys
from googlecloudsdk.api_lib.app import yaml_parsing
for path in json.load(sys.stdin):
    info = yaml_parsing.ServiceYamlInfo.FromFile(path)
    print(json.dumps([info.module, info.runtime, info.env.name, info.is_hermetic]))
"""


def parse(directory: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    return cloud_sdk.run(PARSE, directory, json.dumps([str(file) for file in files]))


def test_the_parser_of_gcloud_takes_the_descriptors(tmp_path: Path) -> None:
    result = parse(tmp_path, *(ROOT / file for file in FILES.values()))
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == [["default", "custom", "FLEX", True]] * 3


def test_the_parser_of_gcloud_refuses_a_key_that_app_engine_does_not_know(tmp_path: Path) -> None:
    wrong = tmp_path / "dev.yml"
    wrong.write_text((ROOT / "dev.yml").read_text().replace("disk_size_gb", "disk_gb"))
    result = parse(tmp_path, wrong)
    assert result.returncode != 0
    assert "disk_gb" in result.stderr
