"""What the container is made of, by the tools that know these files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
YAML_RULES = "{extends: default, rules: {document-start: disable, line-length: {max: 100}}}"


def require_clean(tool: str, *arguments: str) -> None:
    done = subprocess.run((TOOLS / tool, *arguments), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_is_clean() -> None:
    require_clean("hadolint", "Dockerfile")


def test_the_compose_file_is_clean() -> None:
    require_clean("yamllint", "--strict", "-d", YAML_RULES, "compose.yaml")


def test_the_compose_file_is_one_by_the_compose_specification() -> None:
    require_clean("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")
