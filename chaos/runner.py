"""Runs scenarios, one after the other, and keeps what came of each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from bridge.errors import BridgeError
from chaos.disk import NoDisk
from chaos.rig import Rig, TookTooLong
from chaos.scenario import Scenario
from chaos.services import ControlFailed, Services
from chaos.verdict import Verdict

# What a scenario may end in besides a verdict. Anything else is a mistake of the harness.
TROUBLE = (TookTooLong, NoDisk, TimeoutError, BridgeError, ControlFailed, OSError)


@dataclass(frozen=True)
class Result:
    """verdict: None where the scenario did not come to its end; `error` then says why."""

    scenario: Scenario
    seconds: float
    verdict: Verdict | None
    error: str = ""

    @property
    def holds(self) -> bool:
        return self.verdict is not None and self.verdict.holds


class Runner:
    """Keeps one set of services, and in the quick form one rig for the scenarios of one stage
    that follow each other. A context manager; everything it starts ends with it.

    directory: where logs and journals are left, a folder for each rig.
    """

    def __init__(self, directory: Path, quick: bool) -> None:
        self._directory = directory
        self._quick = quick
        self._rig: Rig | None = None
        self._stage: tuple[object, ...] = ()
        self._rigs = 0
        (directory / "services").mkdir(parents=True, exist_ok=True)
        self._services = Services(directory / "services")

    def __enter__(self) -> Self:
        self._services.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._drop_rig()
        self._services.kill()

    def run(self, scenario: Scenario) -> Result:
        """Run one scenario to its end. Blocks, and raises nothing that the scenario caused."""
        began = time.monotonic()
        try:
            verdict = self._judged(scenario)
        except TROUBLE as error:
            self._drop_rig()
            self._services.clear_faults()
            return Result(scenario, time.monotonic() - began, None, f"{error}")
        return Result(scenario, time.monotonic() - began, verdict)

    def _judged(self, scenario: Scenario) -> Verdict:
        rig = self._rig_for(scenario)
        verdict = rig.run(scenario)
        if not (self._quick and verdict.holds):
            verdict = self._stopped(rig, verdict)
            self._drop_rig()
        return verdict

    def _rig_for(self, scenario: Scenario) -> Rig:
        if self._rig is None or self._stage != scenario.stage:
            self._drop_rig()
            self._rigs += 1
            directory = self._directory / f"{self._rigs:03}-{scenario.name}"
            rig = Rig(directory, self._services, str(self._rigs), self._quick, scenario)
            self._rig, self._stage = rig.__enter__(), scenario.stage
        return self._rig

    @staticmethod
    def _stopped(rig: Rig, verdict: Verdict) -> Verdict:
        code = rig.stop()
        if code == 0:
            return verdict
        return replace(verdict, findings=(*verdict.findings, f"the bridge ended with {code}"))

    def _drop_rig(self) -> None:
        rig, self._rig = self._rig, None
        if rig is not None:
            rig.__exit__(None, None, None)


def run_all(
    runner: Runner, scenarios: list[Scenario], tell: Callable[[Result], None]
) -> list[Result]:
    """One after the other; `tell` hears of each as it ends."""
    results = []
    for scenario in scenarios:
        result = runner.run(scenario)
        tell(result)
        results.append(result)
    return results
