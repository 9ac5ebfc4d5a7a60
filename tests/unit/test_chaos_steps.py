"""The points at which the bridge can be made to die, and its wrong clock."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.clock import SystemClock
from chaos.scenarios.bridge import STORIES
from chaos.steps import STEPS, Step, die_at, put_clock_wrong, set_clock

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from chaos.steps import Step, die_at
die_at(Step("tests.unit.test_chaos_steps", "Example.act", sys.argv[1]), int(sys.argv[2]))
from tests.unit.test_chaos_steps import Example
example = Example()
for number in range(3):
    example.act(number)
"""


class Example:
    """Something to die in."""

    def act(self, number: int) -> None:
        print("acted", number, flush=True)


@pytest.mark.parametrize(("side", "acted"), [("before", 1), ("after", 2)])
def test_the_process_is_killed_at_the_point_once_it_was_passed_so_often(
    side: str, acted: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, side, "1"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout.splitlines() == [f"acted {number}" for number in range(acted)]


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_every_point_is_a_function_of_the_bridge(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = __import__(step.module, fromlist=["_"])
    owner_name, name = step.function.split(".")
    owner = getattr(module, owner_name)
    monkeypatch.setattr(owner, name, getattr(owner, name))  # put back afterwards
    before = getattr(owner, name)
    die_at(step, 0)
    assert getattr(owner, name) is not before


def test_every_point_is_a_scenario() -> None:
    assert set(STORIES) == set(STEPS)


def test_the_clock_is_wrong_by_what_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SystemClock, "now_us", SystemClock.now_us)
    right, file = SystemClock().now_us(), tmp_path / "clock"
    set_clock(file, 3_600)
    put_clock_wrong(file)
    assert 3_590e6 < SystemClock().now_us() - right < 3_700e6
    set_clock(file, -3_600)
    assert -3_610e6 < SystemClock().now_us() - right < -3_500e6
