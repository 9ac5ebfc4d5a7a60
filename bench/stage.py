"""Broker and local services, made anew for each trial, so that no trial pays for the one before."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from bench.generator import Load, Sent
from bench.meter import Meter
from bridge.cli.broker import Broker
from bridge.cli.processes import Program
from bridge.settings import PLATFORM_VARIABLES, Settings, load
from chaos.services import Services, create_table, create_topic, table_path, topic_path

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.02
PATIENCE_SECONDS = 600.0
SLOW_CALLS = ("pubsub.Publish", "storage.AppendRows", "bigquery.tabledata.insertAll")


class Stuck(RuntimeError):
    """Something did not come about in time; the message says what."""


class Stage:
    """A context manager: leaving it ends everything and removes what it left on disk.

    The local services keep nothing on disk: theirs is not what is measured. metered: what goes to
    them passes through `meters`, which count bytes, and cost time.
    """

    def __init__(self, metered: bool = False) -> None:
        self._metered = metered
        self._stack = ExitStack()
        self._generators = count()
        self.meters: list[Meter] = []

    def __enter__(self) -> Self:
        try:
            self.directory = Path(self._stack.enter_context(TemporaryDirectory(prefix="bench-")))
            self.broker = Broker(self.directory)
            self._stack.callback(self.broker.stop)
            self.broker.start()
            self.services = Services(self.directory, in_memory=True)
            self._stack.callback(self.services.kill)
            self.services.start()
            self.environment = self._environment()
            self.settings: Settings = load(self.environment)
            create_topic(self.settings)
            create_table(self.settings)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ends(self, end: Callable[[], object]) -> None:
        """What is to be called when the stage is left, before the services and the broker end."""
        self._stack.callback(end)

    def _environment(self) -> dict[str, str]:
        own = {name.upper() for name in Settings.model_fields} | set(PLATFORM_VARIABLES)
        inherited = {name: value for name, value in os.environ.items() if name not in own}
        return {
            **inherited,
            "APP_ENV": "DEV",
            "GCP_PROJECT_ID": "bench-project",
            "PUBSUB_TOPIC": "kpi-events",
            "BIGQUERY_DATASET": "bench",
            "BIGQUERY_TABLE": "readings",
            "MQTT_BROKER": "127.0.0.1",
            "MQTT_PORT": str(self.broker.port),
            "JOURNAL_PATH": str(self.directory / "journal.db"),
            "JOURNAL_MAX_BYTES": str(16 * 1024**3),
            "HTTP_HOST": "127.0.0.1",
            "LOG_FORMAT": "json",
            **{name: self._led(address) for name, address in self.services.environment.items()},
        }

    def _led(self, address: str) -> str:
        """The address by way of a meter, if there are to be any."""
        if not self._metered:
            return address
        host, _, port = address.rpartition(":")
        meter = self._stack.enter_context(Meter(int(port)))
        self.meters.append(meter)
        return f"{host}:{meter.port}"

    def slow_down(self, seconds: float) -> None:
        """From now on each call that brings readings is answered so much later."""
        for call in SLOW_CALLS if seconds else ():
            self.services.add_fault(call, kind="delay", seconds=seconds, times=None)

    def begin(self, load: Load) -> Generator:
        """A generator that sends a load, from now on."""
        return Generator(self.directory, next(self._generators), self.broker.port, load)

    def send(self, load: Load) -> Sent:
        """Blocks until the broker has acknowledged all of it."""
        return self.begin(load).finish()

    def held(self) -> tuple[int, int]:
        """How many events and rows the services hold."""
        paths = (topic_path(self.settings), table_path(self.settings))
        events, rows = (self.services.count(path) for path in paths)
        return events, rows

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Poll; an OSError (nobody answers) counts as no. Raises Stuck."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _holds(condition):
            if time.monotonic() > deadline:
                raise Stuck(f"after {PATIENCE_SECONDS:g} s still not: {what}")
            time.sleep(POLL_SECONDS)


class Generator:
    """The process that sends one load."""

    def __init__(self, directory: Path, number: int, port: int, load: Load) -> None:
        words = [f"--{name}={value}" for name, value in asdict(load).items()]
        command = [sys.executable, "-m", "bench.generator", f"--port={port}", *words]
        self._program = Program(f"generator-{number}", command, directory, None, ROOT)

    def finish(self) -> Sent:
        """Blocks until everything is acknowledged. Raises ProgramFailed."""
        with self._program as program:
            if program.finish(PATIENCE_SECONDS) != 0:
                raise program.failure("could not send")
            return Sent(**json.loads(program.output.read_text()))


def _holds(condition: Callable[[], object]) -> object:
    try:
        return condition()
    except OSError:
        return False
