"""The daemon as a process, started again and again on one journal."""

from __future__ import annotations

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.cli.processes import Program, free_port

ROOT = Path(__file__).resolve().parents[1]
ENTRANCE = (str(ROOT / "mqtt_subscriber.py"),)
START_SECONDS = 60.0


class Bridge:
    """One daemon at a time, in `environment`, which the next start takes as it then is.

    It listens on one port of the loopback for all its lives. `start` waits until it is ready and
    raises ProgramFailed when it does not become so.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self.environment = dict(environment)
        self.port = free_port()
        self._program: Program | None = None

    @property
    def program(self) -> Program:
        """The process of the latest start."""
        if self._program is None:
            raise RuntimeError("the bridge was never started")
        return self._program

    @property
    def running(self) -> bool:
        return self._program is not None and self._program.exit_code is None

    def start(
        self,
        *arguments: str,
        wait: bool = True,
        entrance: tuple[str, ...] = ENTRANCE,
        **changes: str,
    ) -> None:
        """entrance: what Python is to run instead of `mqtt_subscriber.py`. changes: variables of
        this life alone."""
        environment = {**self.environment, "PORT": str(self.port), **changes}
        command = [sys.executable, *entrance, *arguments]
        self._program = Program("bridge", command, self._directory, environment, ROOT)
        if wait:
            self._program.wait_until(self.ready, START_SECONDS)

    def kill(self) -> None:
        """SIGKILL; nothing happens where it does not run."""
        if self._program is not None:
            self._program.kill()

    def terminate(self, seconds: float = 40) -> int:
        """SIGTERM; its exit code."""
        return self.program.stop(seconds)

    def pause(self) -> None:
        """SIGSTOP: it does nothing any more, and its connections stay."""
        os.kill(self.program.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.program.pid, signal.SIGCONT)

    def ready(self) -> bool:
        try:
            return self.status("/readyz") == 200
        except OSError:
            return False

    def status(self, path: str) -> int:
        """The HTTP status of a path. Raises OSError when nobody answers."""
        try:
            with urllib.request.urlopen(self._url(path), timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def text(self, path: str) -> str:
        """What is answered on a path, whatever the status. Raises OSError."""
        try:
            with urllib.request.urlopen(self._url(path), timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def ledger(self) -> dict[str, Any]:
        """What `/ledger` answers. Raises OSError."""
        document: dict[str, Any] = json.loads(self.text("/ledger"))
        return document

    def metric(self, name: str) -> float:
        """The sum of a metric's samples. Raises OSError."""
        lines = self.text("/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if _is_sample(line, name))

    def settled(self, accepted: int) -> bool:
        """Whether this many readings were accepted since the journal began, and all are settled."""
        totals = self.ledger()["totals"]
        return totals["accepted"] >= accepted and all(
            sink["pending"] == 0 for sink in totals["sinks"].values()
        )

    @property
    def resident_bytes(self) -> int:
        """Memory in use by the process now (Linux)."""
        fields = Path(f"/proc/{self.program.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def log(self) -> str:
        """All that its lives have printed."""
        return self.program.output.read_text() + self.program.log.read_text()


def _is_sample(line: str, name: str) -> bool:
    return line.startswith((name + " ", name + "{"))
