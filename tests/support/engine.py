"""Containers of a test, by whatever engine there is.

CONTAINER_ENGINE    the command, such as `podman --runtime runc`; else podman or docker
CONTAINER_OPTIONS   further options of every `run`, such as `--ulimit nofile=4096:4096`
CONTAINER_NETWORK   one that can publish ports, where the engine's own default cannot
IMAGE               the image's name, whatever revision it is of; else fcts-bridge of this one.
                    fcts-localservices is used beside it
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("IMAGE", "fcts-bridge")
LOCAL_SERVICES = "fcts-localservices"
OPTIONS = shlex.split(os.environ.get("CONTAINER_OPTIONS", ""))
NETWORK = [f"--network={name}" for name in [os.environ.get("CONTAINER_NETWORK")] if name]
SECONDS = 120.0


@cache
def engine() -> tuple[str, ...]:
    """The command of an engine that works. Skips the test where there is none."""
    given = os.environ.get("CONTAINER_ENGINE")
    for command in [given] if given else ["podman", "docker"]:
        words = tuple(shlex.split(command))
        if _works((*words, "info")):
            return words
    pytest.skip("no container engine works here (CONTAINER_ENGINE names another)")


def require_images() -> None:
    """Skips the test where the images of this very revision are not built, or cannot be run."""
    for image in (IMAGE, LOCAL_SERVICES):
        if not _works((*engine(), "image", "inspect", image)):
            pytest.skip(f"the image {image} is not built: make image")
    labels = inspect(IMAGE).get("Labels") or {}
    built, here = labels.get("org.opencontainers.image.revision"), _revision()
    if "IMAGE" not in os.environ and built != here:
        pytest.skip(f"the image is of revision {built}, and this is {here}: make image")
    tried = call("run", "--rm", *OPTIONS, IMAGE, "true")
    if tried.returncode:
        pytest.skip(f"this machine's engine cannot run a container: {tried.stderr.strip()}")


def _revision() -> str:
    done = subprocess.run(
        ("git", "rev-parse", "HEAD"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _works(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=SECONDS).returncode == 0
    except OSError:
        return False


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The engine's command with these arguments. Blocks; does not raise when it fails."""
    return subprocess.run(
        (*engine(), *arguments), capture_output=True, text=True, timeout=SECONDS, check=False
    )


def must(*arguments: str) -> str:
    """The same, with what it printed; AssertionError when it fails."""
    done = call(*arguments)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def inspect(image: str) -> Any:
    """The image's configuration, in Docker's form."""
    document = json.loads(must("image", "inspect", image))[0]
    # Podman has it beside the rest.
    return {"Healthcheck": document.get("Healthcheck"), **document["Config"]}


class Container:
    """One that was started. A context manager: leaving it removes it, with its volumes."""

    def __init__(self, image: str, *options: str, command: Sequence[str] = ()) -> None:
        self.id = must("run", "--detach", *OPTIONS, *options, image, *command).splitlines()[-1]

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        call("rm", "--force", "--volumes", self.id)

    @property
    def output(self) -> str:
        """Standard output, as the engine has collected it."""
        return call("logs", self.id).stdout

    @property
    def errors(self) -> str:
        return call("logs", self.id).stderr

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command inside."""
        return call("exec", self.id, *command)

    def stop(self, seconds: int) -> int:
        """SIGTERM, and SIGKILL after the seconds; the exit code."""
        must("stop", "--time", str(seconds), self.id)
        return self.finish()

    def finish(self) -> int:
        """Wait until it ends by itself; the exit code."""
        return int(must("wait", self.id))
