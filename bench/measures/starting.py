"""From the start of the process until `/readyz` says 200."""

from __future__ import annotations

import time

from bench.scale import Scale
from bench.section import Row, Section, Tell, summed_up
from bench.stage import Stage
from bench.subjects import BRIDGE, LOCAL, TheBridge
from bridge.cli.processes import ProgramFailed
from chaos.bridge_process import Bridge

POLL_SECONDS = 0.005


def measure(scale: Scale, tell: Tell) -> Section:
    trials: list[Row] = []
    with Stage() as stage:
        for _ in range(scale.starts):
            for subject in (LOCAL, BRIDGE):
                seconds = _start(stage, subject)
                trials.append({"subject": subject.name, "seconds_to_ready": seconds})
                tell(f"{subject.name} ready after {seconds:.2f} s")
    return Section(
        "start",
        "Start-up",
        "From the start of the process until it is subscribed and its journal takes readings.",
        summed_up(trials, ["subject"], "seconds_to_ready"),
        trials,
    )


def _start(stage: Stage, subject: TheBridge) -> float:
    # A journal of its own for each: its destination is the other's no more.
    path = stage.directory / f"{subject.settings.get('APP_ENV', 'DEV')}.db"
    own = {"JOURNAL_PATH": str(path)}
    bridge = Bridge(stage.directory, {**stage.environment, **subject.settings, **own})
    began = time.monotonic()
    bridge.start(wait=False)
    stage.ends(bridge.kill)
    while not bridge.ready():
        if not bridge.running:
            raise ProgramFailed(f"{subject.name} ended instead of becoming ready")
        time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - began
    bridge.terminate()
    return seconds
