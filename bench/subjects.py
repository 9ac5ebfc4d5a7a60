"""What is measured, each as a process: the bare client, the original design, the bridge."""

from __future__ import annotations

import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.stage import ROOT, Stage
from bridge.cli.processes import Program
from chaos.bridge_process import Bridge

START_SECONDS = 60.0


class Running(ABC):
    """A subject at work on a stage."""

    def __init__(self, stage: Stage, program: Program) -> None:
        self._stage = stage
        self._program = program
        stage.ends(program.kill)

    @property
    def pid(self) -> int:
        return self._program.pid

    def pause(self) -> None:
        """It does nothing any more; its connections stay, and the broker queues for it."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def finish(self, count: int) -> None:
        """Blocks until `count` readings in all have gone all their way. Raises ProgramFailed when
        the subject ends before, Stuck."""
        self._stage.wait_until(lambda: self._alive() and self._done(count), f"{count} readings")

    def _alive(self) -> bool:
        if self._program.exit_code is not None:
            raise self._program.failure(f"ended with exit code {self._program.exit_code}")
        return True

    @abstractmethod
    def _done(self, count: int) -> bool: ...


class RunningCeiling(Running):
    def _done(self, count: int) -> bool:
        return "done" in self._program.output.read_text()


class RunningOriginal(Running):
    def _done(self, count: int) -> bool:
        return min(self._stage.held()) >= count


class RunningBridge(Running):
    """held: whether what it forwards is looked for in the services first, which costs the bridge
    nothing; in the end its ledger is asked."""

    def __init__(self, stage: Stage, bridge: Bridge, held: bool) -> None:
        super().__init__(stage, bridge.program)
        self.bridge = bridge
        self._held = held

    def _done(self, count: int) -> bool:
        return (not self._held or min(self._stage.held()) >= count) and self.bridge.settled(count)


@dataclass(frozen=True)
class Ceiling:
    name: str = "bare paho client"
    delay_seconds: float = 0.0

    def start(self, stage: Stage, count: int) -> Running:
        words = ("-m", "bench.ceiling", f"--port={stage.broker.port}", f"--count={count}")
        return RunningCeiling(stage, _subscribed(stage, words))


@dataclass(frozen=True)
class Original:
    name: str = "original design"
    delay_seconds: float = 0.0

    def start(self, stage: Stage, count: int) -> Running:
        stage.slow_down(self.delay_seconds)
        return RunningOriginal(stage, _subscribed(stage, ("-m", "bench.original")))


@dataclass(frozen=True)
class TheBridge:
    """delay_seconds: how much later than at once the services answer. settings: variables."""

    name: str = "bridge, all on"
    delay_seconds: float = 0.0
    settings: Mapping[str, str] = field(default_factory=dict)

    def start(self, stage: Stage, count: int = 0) -> RunningBridge:
        """count: not needed here."""
        stage.slow_down(self.delay_seconds)
        bridge = Bridge(stage.directory, {**stage.environment, **self.settings})
        bridge.start()
        return RunningBridge(stage, bridge, self.settings.get("APP_ENV") != "LOCAL")


Subject = Ceiling | Original | TheBridge
CEILING = Ceiling()
BRIDGE = TheBridge()
INSERT_ALL = TheBridge("bridge, insert_all", settings={"BIGQUERY_WRITE_METHOD": "insert_all"})
LOCAL = TheBridge("bridge, LOCAL", settings={"APP_ENV": "LOCAL"})
ORIGINAL = Original()
SLOW_SECONDS = 0.02
SLOW_ORIGINAL = Original("original design, services at 20 ms", SLOW_SECONDS)
SLOW_BRIDGE = TheBridge("bridge, services at 20 ms", SLOW_SECONDS)


def _subscribed(stage: Stage, arguments: tuple[str, ...]) -> Program:
    command = (sys.executable, *arguments)
    program = Program("subject", command, stage.directory, stage.environment, ROOT)
    stage.ends(program.kill)
    program.wait_until(lambda: "subscribed" in program.output.read_text(), START_SECONDS)
    return program
