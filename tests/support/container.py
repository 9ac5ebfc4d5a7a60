"""The container's programs as processes of this machine."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from bridge.cli.broker import PLACES
from bridge.cli.processes import Program, free_ports, listens
from container import probe
from container.ports import Ports
from tests.support.poll import eventually

ROOT = Path(__file__).resolve().parents[2]
ENTRY = """
import os, sys
from container.__main__ import main
from container.ports import Ports
sys.exit(main(os.environ, Ports(**{ports!r})))
"""
START_SECONDS = 60.0
STOP_SECONDS = 60.0  # a deadline of the test, not what the container promises


class Stack:
    """Broker, bridge, the sensors' way in and Supervisor, on free ports, in `directory`. A context
    manager: leaving it kills whatever still runs."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self.run_directory = directory / "run"
        mqtt, bridge, sensors, http = free_ports(4)
        self.ports = Ports(mqtt=mqtt, bridge=bridge, sensors=sensors, address="127.0.0.1")
        self.environ = {
            "PATH": os.pathsep.join(
                (str(Path(sys.executable).parent), os.environ["PATH"], *PLACES)
            ),
            "APP_ENV": "LOCAL",
            "PORT": str(http),
            "RUN_DIRECTORY": str(self.run_directory),
            "JOURNAL_PATH": str(directory / "data" / "journal.db"),
            "MOSQUITTO_DATA": str(directory / "data" / "mosquitto"),
            **environ,
        }
        self._program: Program | None = None

    @property
    def program(self) -> Program:
        """The process of the latest start."""
        assert self._program is not None
        return self._program

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *_: object) -> None:
        if self._program is not None:
            self._program.kill()  # first: it would start anew what dies
            for pid in self._pids.values():
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    def start(self) -> None:
        """Does not wait."""
        entry = ENTRY.format(ports=asdict(self.ports))
        command = (sys.executable, "-c", entry)
        self._program = Program("container", command, self.directory, self.environ, ROOT)

    def wait_until_open(self) -> None:
        self.program.wait_until(lambda: listens(self.ports.mqtt), START_SECONDS)

    @property
    def log(self) -> str:
        """What it printed on standard output."""
        return self.program.output.read_text(errors="replace")

    @property
    def errors(self) -> str:
        """What it printed on standard error."""
        return self.program.log.read_text(errors="replace")

    @property
    def ready(self) -> bool:
        return probe.status("/readyz", self.environ) == 200

    @property
    def _pids(self) -> dict[str, int]:
        spawned = re.findall(r"spawned: '(\w+)' with pid (\d+)", self.log)
        return {name: int(pid) for name, pid in spawned}

    def pid(self, name: str) -> int:
        """Of a program's latest start."""
        return self._pids[name]

    def kill(self, name: str) -> None:
        """SIGKILL, as it may come at any time; returns when Supervisor has started it anew."""
        killed = self.pid(name)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: self.pid(name) != killed, f"{name} is started again")

    def terminate(self) -> None:
        """SIGTERM; does not wait."""
        os.kill(self.program.pid, signal.SIGTERM)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.terminate()
        return self.finish()

    def finish(self) -> int:
        """Wait until it ends by itself; the exit code."""
        return self.program.finish(STOP_SECONDS)

    def order(self, pattern: str) -> list[str]:
        """What the pattern's group found in what Supervisor said, in its order."""
        return re.findall(pattern, self.log)


@contextmanager
def stack(directory: Path, **environ: str) -> Iterator[Stack]:
    """Started, with the way in open."""
    with Stack(directory, environ) as made:
        made.start()
        made.wait_until_open()
        yield made
