"""The programs of the demo: broker, local Google services and bridge, each a process of its own."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError

from bridge import settings
from bridge.cli.broker import Broker
from bridge.cli.processes import Program, free_port
from bridge.settings import PLATFORM_VARIABLES, Settings

ROOT = Path(__file__).resolve().parents[2]
ENTRANCE = ROOT / "mqtt_subscriber.py"
START_SECONDS = 30.0
PROVISION_SECONDS = 60.0
DRAIN_SECONDS = 40.0
ANSWER_SECONDS = 10.0
NAMES = {
    "APP_ENV": "DEV",
    "GCP_PROJECT_ID": "demo-project",
    "PUBSUB_TOPIC": "kpi-events",
    "PUBSUB_SUBSCRIPTION": "kpi-events-demo",
    "PUBSUB_DEAD_LETTER_TOPIC": "kpi-dead-letters",
    "BIGQUERY_DATASET": "fcts",
    "BIGQUERY_TABLE": "readings",
    "MQTT_BROKER": "127.0.0.1",
}
LETTERS_SUBSCRIPTION = "kpi-dead-letters-demo"


@dataclass(frozen=True)
class Stage:
    """Everything in place, and the bridge running and ready."""

    settings: Settings
    services: Program
    bridge: Program
    address: str

    def require_running(self) -> None:
        """Raise ProgramFailed when one of the programs has ended."""
        for program in (self.services, self.bridge):
            if program.exit_code is not None:
                raise program.failure(f"ended with exit code {program.exit_code}")

    def ledger(self) -> dict[str, Any]:
        """What the bridge answers on `/ledger`. Raises OSError."""
        with urllib.request.urlopen(f"{self.address}/ledger", timeout=ANSWER_SECONDS) as answer:
            document: dict[str, Any] = json.load(answer)
            return document


@contextmanager
def prepared() -> Iterator[tuple[Path, dict[str, str], Program]]:
    """A directory, with broker, local services and what `provision` makes there; the environment
    for the bridge, and the process of the services. Everything is stopped and removed after."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="fcts-demo-")))
        broker = Broker(directory)
        broker.start()
        stack.enter_context(broker.program)
        services = stack.enter_context(_services(directory))
        environment = _environment(directory, broker.port, _announced(services))
        _provision(directory, environment)
        yield directory, environment, services


@contextmanager
def running(directory: Path, environment: dict[str, str], services: Program) -> Iterator[Stage]:
    """The bridge in that environment, once it is ready; it is drained and stopped after."""
    bridge = _python("bridge", directory, environment, ENTRANCE, "run")
    address = f"http://127.0.0.1:{environment['PORT']}"
    with bridge:
        bridge.wait_until(lambda: _answers(f"{address}/readyz"), START_SECONDS)
        yield Stage(settings.load(environment), services, bridge, address)


def drained(bridge: Program) -> int:
    """Ask the bridge to stop and wait for it; its exit code."""
    return bridge.stop(DRAIN_SECONDS)


def _services(directory: Path) -> Program:
    data = directory / "services"
    data.mkdir()
    ports = ("--pubsub-port", "--bigquery-port", "--storage-port", "--control-port")
    arguments = [word for port in ports for word in (port, "0")]
    return _python(
        "localgcp", directory, _inherited(), "-m", "localgcp", *arguments, "--data-dir", data
    )


def _announced(services: Program) -> dict[str, str]:
    """The variables that lead Google's clients to the local services, once these are ready."""

    def line() -> str | None:
        first, end, _ = services.output.read_text().partition("\n")
        return first if end else None

    announced: dict[str, str] = json.loads(services.wait_until(line, START_SECONDS))["environment"]
    return announced


def _environment(directory: Path, mqtt_port: int, emulators: dict[str, str]) -> dict[str, str]:
    return {
        **_inherited(),
        **NAMES,
        **emulators,
        "MQTT_PORT": str(mqtt_port),
        "JOURNAL_PATH": str(directory / "journal.db"),
        "HTTP_HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "LOG_FORMAT": "text",
    }


def _inherited() -> dict[str, str]:
    """This process' environment without anything that configures a bridge: the demo is the same
    wherever it runs, and never touches a real project."""
    own = {name.upper() for name in Settings.model_fields} | set(PLATFORM_VARIABLES)
    return {name: value for name, value in os.environ.items() if name not in own}


def _provision(directory: Path, environment: dict[str, str]) -> None:
    with _python("provision", directory, environment, ENTRANCE, "provision") as program:
        code = program.finish(PROVISION_SECONDS)
        if code != 0:
            raise program.failure(f"ended with exit code {code}")


def _python(
    name: str, directory: Path, environment: dict[str, str], *arguments: str | Path
) -> Program:
    return Program(name, (sys.executable, *arguments), directory, environment, ROOT)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):
            return True
    except (URLError, OSError):
        return False
