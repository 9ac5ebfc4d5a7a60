"""`python -m chaos.steps`: the bridge, ending as by `kill -9` at a chosen point.

CHAOS_STEP names the point, CHAOS_STEP_AT how many times it is passed before (default 0). The
bridge itself has no switches for this: here some of its functions are wrapped before it starts.

CHAOS_CLOCK_FILE, if set, names a file with a number of seconds by which the wall clock is wrong;
it is read again at each look at the clock.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

ENTRANCE = ("-m", "chaos.steps")


class Step(NamedTuple):
    """A point on the way of a reading: before or after a function of the bridge."""

    module: str
    function: str
    side: Literal["before", "after"]


STEPS = {
    "received": Step("bridge.intake", "Intake.take", "before"),
    "committed": Step("bridge.intake", "Intake.take", "after"),
    "acknowledged": Step("bridge.subscriber", "Subscriber._write", "after"),
    "loaded": Step("bridge.lanes", "Lane.next_batch", "after"),
    "published": Step("bridge.sinks.pubsub", "Publisher._result", "before"),
    "stream-created": Step("bridge.sinks.bigquery", "StorageWriteSink._create_stream", "after"),
    "intent-recorded": Step("bridge.journal", "Journal.record_append", "after"),
    "appended": Step("bridge.sinks.append_stream", "AppendStream.append", "after"),
    "inserted": Step("bridge.sinks.bigquery_insert", "InsertAllSink._insert", "after"),
    "settling": Step("bridge.journal", "Journal.settle", "before"),
    "settled": Step("bridge.journal", "Journal.settle", "after"),
    "tidied": Step("bridge.journal", "Journal.maintain", "after"),
}


def die_at(step: Step, passes: int) -> None:
    """Have this process kill itself at the point, after it was passed so many times."""
    owner, name = _owner(step)
    original: Callable[..., Any] = getattr(owner, name)
    passed = count()

    def pass_by() -> None:
        if next(passed) == passes:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if step.side == "before":
            pass_by()
        result = original(*arguments, **named)
        if step.side == "after":
            pass_by()
        return result

    setattr(owner, name, wrapped)


def _owner(step: Step) -> tuple[Any, str]:
    owner: Any = importlib.import_module(step.module)
    *path, name = step.function.split(".")
    for part in path:
        owner = getattr(owner, part)
    return owner, name


def set_clock(file: Path, seconds: float) -> None:
    """Say, in one step for whoever reads it, how wrong the clock is to be."""
    new = file.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(file)


def put_clock_wrong(file: Path) -> None:
    """Have the bridge's wall clock differ by the seconds that the file says."""
    from bridge.clock import SystemClock

    right = SystemClock.now_us

    def wrong(self: SystemClock) -> int:
        return right(self) + int(float(file.read_text()) * 1e6)

    SystemClock.now_us = wrong  # type: ignore[method-assign]


def main() -> None:
    from bridge.cli.main import main as entrance
    from mqtt_subscriber import run_daemon

    if file := os.environ.get("CHAOS_CLOCK_FILE"):
        put_clock_wrong(Path(file))
    if name := os.environ.get("CHAOS_STEP"):
        die_at(STEPS[name], int(os.environ.get("CHAOS_STEP_AT", "0")))
    entrance(run_daemon)


if __name__ == "__main__":
    main()
