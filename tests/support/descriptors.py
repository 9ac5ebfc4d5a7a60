"""What the three App Engine descriptors have to be: each by itself, and beside the others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import bridge.settings
import container.settings
from bridge.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
FILES = {"DEV": "dev.yml", "PPRD": "pprd.yml", "PRD": "prd.yml"}
GIB = 1024**3

# What may differ from one environment to the other. The project's id is taken out everywhere first,
# and so are the numbers of secrets' versions.
ALLOWED = {"network.name", "network.subnetwork_name", "env_variables.JOURNAL_HANDOFF_BUCKET"}
BY_RULE = {"resources.cpu", "resources.memory_gb", "env_variables.APP_ENV"}

# Beyond what the settings themselves insist on.
WANTED = {
    "BIGQUERY_WRITE_METHOD",
    "DEAD_LETTER_MAX_BYTES",
    "DRAIN_SECONDS",
    "HTTP_TOKEN_SECRET",
    "JOURNAL_HANDOFF_BUCKET",
    "JOURNAL_MAX_BYTES",
    "LOG_FORMAT",
    "MQTT_SECURITY",
    "PUBSUB_DEAD_LETTER_TOPIC",
    "PUBSUB_ENDPOINT",
    "PUBSUB_SUBSCRIPTION",
}
PUBLIC_PORTS = {"open": "1883", "password": "1883", "tls": "8883", "mtls": "8883"}

Descriptor = dict[str, Any]
Descriptors = dict[str, Descriptor]


def read_all() -> Descriptors:
    """By environment, as YAML says."""
    yaml = YAML(typ="safe")
    return {name: yaml.load(ROOT / file) for name, file in FILES.items()}


def problems(descriptors: Descriptors) -> list[str]:
    """Everything that is wrong with the three, in words."""
    own = [f"{name}: {flaw}" for name, one in descriptors.items() for flaw in flaws(name, one)]
    return own + list(drift(descriptors))


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by their dotted path; a list is a leaf."""
    if not isinstance(value, dict):
        return {path: value}
    parts = (flat(child, f"{path}.{key}".lstrip(".")) for key, child in value.items())
    return {key: leaf for part in parts for key, leaf in part.items()}


def drift(descriptors: Descriptors) -> Iterator[str]:
    common = {name: _without_own_names(descriptor) for name, descriptor in descriptors.items()}
    for key in sorted(set().union(*common.values()) - ALLOWED - BY_RULE):
        values = {name: repr(leaves.get(key, "not there")) for name, leaves in common.items()}
        if len(set(values.values())) > 1:
            yield f"{key} differs: {values}"
    for key in ALLOWED | BY_RULE:
        if any(key not in leaves for leaves in common.values()):
            yield f"{key} is not in all of them"
    sizes = [descriptors[name]["resources"] for name in ("DEV", "PPRD", "PRD")]
    if sizes[0] != sizes[1] or any(sizes[2].get(key, 0) <= sizes[0][key] for key in BOTH_SIZES):
        yield "cpu and memory_gb are to be the same in DEV and PPRD, and more in PRD"


BOTH_SIZES = ("cpu", "memory_gb")


def _without_own_names(descriptor: Descriptor) -> dict[str, Any]:
    project = str(descriptor["env_variables"].get("GCP_PROJECT_ID"))
    return {key: _neutral(leaf, project) for key, leaf in flat(descriptor).items()}


def _neutral(leaf: Any, project: str) -> Any:
    if not isinstance(leaf, str):
        return leaf
    return re.sub(r"/versions/[0-9]+$", "/versions/N", leaf.replace(project, "PROJECT"))


def flaws(name: str, descriptor: Descriptor) -> Iterator[str]:
    """What is wrong with one of them, whatever the others say."""
    variables = descriptor["env_variables"]
    yield from _platform(descriptor)
    yield from _size(descriptor["resources"])
    yield from _network(descriptor["network"], variables)
    yield from _variables(name, variables)
    yield from _one_project(descriptor)
    yield from _disk(descriptor["resources"], variables)


def _platform(descriptor: Descriptor) -> Iterator[str]:
    if "vpc_access_connector" in descriptor:
        yield "flexible refuses a VPC connector: use network and subnetwork"
    if (descriptor.get("runtime"), descriptor.get("env")) != ("custom", "flex"):
        yield "runtime and env are to be custom and flex"
    if descriptor.get("service") != "default":
        yield "service is to be default: deploy/release.sh acts on that one"
    if descriptor.get("manual_scaling") != {"instances": 1}:
        yield "there is to be one instance"
    for check, path in (("liveness_check", "/livez"), ("readiness_check", "/readyz")):
        if descriptor[check].get("path") != path:
            yield f"{check} is to ask {path}"


def _size(resources: Mapping[str, Any]) -> Iterator[str]:
    cpu, memory = resources.get("cpu", 1), resources.get("memory_gb", 0.6)
    if cpu != 1 and (cpu < 2 or cpu % 2):
        yield f"cpu is {cpu}, and may be 1 or even"
    if not 0.9 <= (memory + 0.4) / max(cpu, 1) <= 6.5:
        yield f"memory_gb is {memory}, which does not fit {cpu} cpu"


def _network(network: Mapping[str, Any], variables: Mapping[str, str]) -> Iterator[str]:
    ports = {f"{PUBLIC_PORTS.get(variables.get('MQTT_SECURITY', ''))}/tcp"}
    if variables.get("MQTT_WEBSOCKETS") == "true":
        ports.add("9001/tcp")
    if set(network.get("forwarded_ports", [])) != ports:
        yield f"forwarded_ports are to be {sorted(ports)}"
    if not all(network.get(key) for key in ("name", "subnetwork_name", "instance_tag")):
        yield "network, subnetwork and the tag for the firewall are to be named"


def _variables(name: str, variables: Mapping[str, Any]) -> Iterator[str]:
    known = {*bridge.settings.Settings.model_fields, *container.settings.Settings.model_fields}
    yield from (f"no setting is called {key}" for key in variables if key.lower() not in known)
    # App Engine wants text, and YAML makes a number of what looks like one.
    yield from (
        f"{key} is to be quoted" for key, value in variables.items() if not isinstance(value, str)
    )
    yield from (f"{key} is missing" for key in sorted(WANTED - set(variables)))
    if variables.get("APP_ENV") != name:
        yield f"APP_ENV is to be {name}"
    try:
        container.settings.load({key: str(value) for key, value in variables.items()})
    except ConfigurationError as error:
        yield str(error)


def _one_project(descriptor: Descriptor) -> Iterator[str]:
    variables = descriptor["env_variables"]
    project = variables.get("GCP_PROJECT_ID")
    if not str(descriptor.get("service_account")).endswith(f"@{project}.iam.gserviceaccount.com"):
        yield "the service account is another project's"
    for key, value in variables.items():
        if key.endswith("_SECRET") and not re.fullmatch(
            rf"projects/{project}/secrets/[a-z-]+/versions/[0-9]+", str(value)
        ):
            yield f"{key} is to be a numbered version of a secret of {project}"


def _disk(resources: Mapping[str, Any], variables: Mapping[str, Any]) -> Iterator[str]:
    """Half of the disk is for what is not the bridge's: system, image, logs, broker."""
    journal = int(variables.get("JOURNAL_MAX_BYTES", 4 * GIB))
    letters = int(variables.get("DEAD_LETTER_MAX_BYTES", GIB // 4))
    if journal + letters > resources.get("disk_size_gb", 0) * GIB / 2:
        yield "journal and dead letters may take more than half of the disk"
