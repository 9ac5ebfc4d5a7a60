"""A process that is killed between any two lines: what it was told is there, is there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.journals import SINKS, Limits, audit, audit_by_day, counted, opened, rows

ROOT = Path(__file__).parents[2]
ROUNDS = 10

# Appends, settles and prunes for as long as it lives; says what it did after each call returned.
WORKER = """
import random, sys
from pathlib import Path
from bridge.clock import SystemClock
from bridge.journal import AppendIntent, Journal, LaneProgress, Settlement
from bridge.journal.journal import Limits
from bridge.journal.letters import Refused
from tests.support.journals import SINKS
from tests.support.readings import reading, rejection

path, first, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
journal = Journal(path, Limits(retention_us=10**15), SystemClock())
journal.open()
journal.activate(SINKS)
number = first
print("ready", flush=True)
while True:
    now = SystemClock().now_us()
    numbers = range(number, number + chance.randrange(1, 40))
    batch = [reading(n, "ABC"[n % 3])._replace(received_us=now) for n in numbers]
    known = chance.randrange(number + 1)
    again = [reading(known, "ABC"[known % 3])] if known < number else []
    letters = [rejection(b"%d" % number)] if chance.random() < 0.3 else []
    result = journal.append(batch + again, letters)
    number += len(batch)
    print("appended", number, flush=True)
    for _ in letters:
        print("rejected", flush=True)
    sink = chance.choice(list(SINKS))
    entries = journal.read(journal.resume(sink).position, chance.randrange(1, 60))
    if entries and chance.random() < 0.8:
        refused = [Refused(entries[-1], "row", "no")] if chance.random() < 0.2 else []
        settled = entries[: len(entries) - len(refused)]
        position = entries[-1].seq
        journal.record_append(sink, AppendIntent("s", position, tuple(e.seq for e in entries)))
        print("intended", sink, position, flush=True)
        progress = LaneProgress(position, ())
        journal.settle(sink, [Settlement("", progress, settled, refused)], position)
        print("settled", sink, position, flush=True)
    journal.acknowledged(result.last_seq)
    journal.maintain()
"""


class Told:
    """What the worker said before it was killed."""

    def __init__(self) -> None:
        self.appended = 0
        self.rejected = 0
        self.positions = dict.fromkeys(SINKS, 0)
        self.intents = dict.fromkeys(SINKS, 0)

    def hear(self, line: str) -> None:
        words = line.split()
        if words[0] == "appended":
            self.appended = int(words[1])
        elif words[0] == "rejected":
            self.rejected += 1
        elif words[0] == "settled":
            self.positions[words[1]] = int(words[2])
        elif words[0] == "intended":
            self.intents[words[1]] = int(words[2])


def run_and_kill(path: Path, told: Told, seed: int, seconds: float) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), str(told.appended), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline() == "ready\n"
        killed_at = time.monotonic() + seconds
        for line in worker.stdout:
            if line.endswith("\n"):
                told.hear(line)
            if worker.poll() is None and time.monotonic() >= killed_at:
                worker.send_signal(signal.SIGKILL)
    finally:
        worker.kill()
        worker.wait(timeout=30)
        worker.stdout.close()


@pytest.mark.slow
def test_a_journal_killed_at_any_moment_has_everything_it_answered_for(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    told = Told()
    chance = random.Random(20_260_921)
    for round_ in range(ROUNDS):
        run_and_kill(path, told, round_, seconds=chance.uniform(0.0, 0.4))
        assert_as_told(path, told)


def assert_as_told(path: Path, told: Told) -> None:
    with opened(path, Limits(retention_us=10**15)) as journal:
        assert journal.loss is None
        values = [row[0] for row in rows(path, "SELECT value FROM entries ORDER BY seq")]
        # Each once, in the order of arrival, none missing; the last batch may have come further
        # than could be told.
        assert values == [float(number) for number in range(len(values))]
        assert len(values) >= told.appended
        assert counted(path, "ids") == len(values)
        assert sum(journal.rejected_by_reason().values()) >= told.rejected
        for sink in SINKS:
            assert journal.resume(sink).position >= told.positions[sink]
            intent = journal.append_intent(sink)
            assert (intent.offset if intent else 0) >= told.intents[sink]
        sites = journal.sites().values()
        assert all(site.balanced for site in sites)
        assert sum(site.accepted for site in sites) == len(values)
        told.appended = len(values)
        told.rejected = sum(journal.rejected_by_reason().values())
    audit(path)
    audit_by_day(path)
