"""Where the microseconds of a reading go: the bridge under a full broker, looked at by py-spy.

    PYTHONPATH=build/bench python -m bench.stages

Samples tell in which stage a thread was at work; the process' CPU time, as Linux counts it, is
shared out by their numbers. Threads of gRPC's own, which have no Python frames, are counted by
Linux alone.
Needs the right to look into another process (root, or kernel.yama.ptrace_scope 0).
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from bench import process
from bench.generator import Load
from bench.stage import Stage
from bench.subjects import BRIDGE, RunningBridge
from bridge.cli.output import print_table

PY_SPY = Path("build/bench/bin/py-spy")
SAMPLES_A_SECOND = 200
# A stack belongs to the first stage of which it has a word.
STAGES = (
    ("parse and validate", ("bridge/reading.py", "bridge/parsing/")),
    ("journal: append", ("Journal._append",)),
    ("journal: upkeep", ("JournalFile.maintain",)),
    ("receive and acknowledge", ("bridge/mqtt_client.py", "paho/", "bridge/subscriber.py")),
    ("Pub/Sub: make messages", ("_message (bridge/sinks/pubsub.py",)),
    ("Pub/Sub: requests", ("Publisher.publish", "channel_spin")),
    ("journal: settle", ("SinkSide.settle",)),
    ("journal: intent of an append", ("SinkSide.record_append",)),
    ("journal: read", ("Journal.read",)),
    ("BigQuery: make rows", ("serialized_rows",)),
    ("BigQuery: append", ("append_stream.py", "consume_request_iterator", "bigquery.py")),
    ("delivery: lanes and rounds", ("bridge/delivery.py",)),
)
# Where a thread waits, though it may look busy for a moment.
WAITS = (
    *("Condition.wait", "wait_for_tstate", "_ready (", "SimpleQueue", "poll", "Worker._run ("),
    *("Output._next", "_run_channel_spin_thread.<locals>.channel_spin"),
)


def stage_of(stack: str) -> str | None:
    """Of one line of py-spy's raw form, without its count; None for a thread that waits."""
    if any(word in stack.rpartition(";")[2] for word in WAITS):
        return None
    for name, words in STAGES:
        if any(word in stack for word in words):
            return name
    return "the rest"


def shares(lines: Iterable[str]) -> Counter[str]:
    """Samples by stage."""
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if stage := stage_of(stack):
            found[stage] += int(count)
    return found


def native_seconds(pid: int) -> float:
    """CPU time of the threads that Python has not started: they have names of their own."""
    seconds = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (task / "stat").read_text().rpartition(")")
        if not name.partition("(")[2].startswith("python"):
            fields = rest.split()
            seconds += (int(fields[11]) + int(fields[12])) / process.TICKS
    return seconds


def measured(count: int, directory: Path) -> tuple[float, float, Counter[str]]:
    """CPU seconds of the bridge and of its native threads for so many readings, and samples."""
    with Stage() as stage:
        running = BRIDGE.start(stage)
        running.pause()
        stage.send(Load(count))
        before = process.cpu_seconds(running.pid), native_seconds(running.pid)
        raw = directory / "stacks.txt"
        watching = _watch(running, raw)
        running.go_on()
        running.finish(count)
        cpu = process.cpu_seconds(running.pid) - before[0]
        native = native_seconds(running.pid) - before[1]
        watching.send_signal(signal.SIGINT)
        watching.wait(60)
    return cpu, native, shares(raw.read_text().splitlines())


def _watch(running: RunningBridge, raw: Path) -> subprocess.Popen[bytes]:
    command = [str(PY_SPY), "record", "--pid", str(running.pid), "--nonblocking", "--threads"]
    command += ["--rate", str(SAMPLES_A_SECOND), "--duration", "600", "--format", "raw"]
    return subprocess.Popen([*command, "--output", str(raw)], stdout=subprocess.DEVNULL)


@click.command()
@click.option("--count", default=200_000, show_default=True, help="How many readings.")
def main(count: int) -> None:
    """Print CPU microseconds a reading by stage."""
    if not os.access(PY_SPY, os.X_OK):
        raise click.ClickException("py-spy is missing. Remedy: `make bench` installs it.")
    directory = Path("build")
    cpu, native, found = measured(count, directory)
    each = (cpu - native) / count * 1e6 / found.total()
    rows = [(name, f"{samples * each:.1f}") for name, samples in found.most_common()]
    rows.append(("gRPC's own threads", f"{native / count * 1e6:.1f}"))
    rows.append(("all", f"{cpu / count * 1e6:.1f}"))
    print_table("CPU of a reading", ("stage", "µs"), rows)


if __name__ == "__main__":
    main()
