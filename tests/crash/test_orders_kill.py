"""A process that is killed while it carries orders out: each is carried out once, or not at all."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.crash.test_journal_kill import ROOT
from tests.support.journals import Limits, audit, opened, rows

ROUNDS = 8

# Makes letters of both kinds, orders their replay (some twice) and carries the orders out.
WORKER = """
import random, sys
from pathlib import Path
from bridge.clock import SystemClock
from bridge.intake import Intake
from bridge.journal import Journal, LaneProgress, Settlement
from bridge.journal.letters import Refused
from bridge.journal.orders import Order
from bridge.reading import Limits
from tests.support.journals import SINKS, is_for_another
from tests.support.journals import Limits as JournalLimits
from tests.support.orders import give
from tests.support.readings import reading, rejection, text

path, seed = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(seed)
journal = Journal(path, JournalLimits(retention_us=10**15), SystemClock())
journal.open()
journal.activate(SINKS)
intake = Intake(journal, Limits())
number = 1_000_000 * (seed + 1)
last = [0]

def letters():
    rows = journal._db.execute("SELECT id, sink FROM dead_letters WHERE id > ?", last)
    found = rows.fetchall()
    last[0] = max([last[0], *(id_ for id_, _ in found)])
    return found

letters()
print("ready", flush=True)
while True:
    journal.append([reading(number + n) for n in range(8)], [rejection(b"%d" % number)] * 2)
    number += 8
    for sink in SINKS:
        entries = journal.read(journal.resume(sink).position, 1_000)
        own = [entry for entry in entries if not is_for_another(entry, sink)]
        refused = [Refused(entry, "refused", "no") for entry in own if chance.random() < 0.3]
        gone = {letter.entry.seq for letter in refused}
        settled = [entry for entry in own if entry.seq not in gone]
        progress = LaneProgress(entries[-1].seq, ())
        journal.settle(sink, [Settlement("", progress, settled, refused)], progress.position)
    orders = []
    for id_, sink in letters():
        number += 1
        payload = text(value=number).encode() if sink is None else None
        orders += [Order(id_, payload=payload)] * chance.choice([1, 1, 2])
    give(path, *orders)
    print("given", len(orders), flush=True)
    intake.upkeep()
"""


@pytest.mark.slow
def test_orders_are_carried_out_once_wherever_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    chance = random.Random(7)
    given = 0
    for round_ in range(ROUNDS):
        given += run_and_kill(path, round_, chance.uniform(0.02, 0.4))
        assert_each_once(path)
    assert given > 100


def run_and_kill(path: Path, seed: int, seconds: float) -> int:
    """Answers how many orders were given."""
    command = [sys.executable, "-c", WORKER, str(path), str(seed)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert worker.stdout is not None
    given = 0
    try:
        assert worker.stdout.readline() == "ready\n"
        killed_at = time.monotonic() + seconds
        for line in worker.stdout:
            given += int(line.split()[1]) if line.endswith("\n") else 0
            if worker.poll() is None and time.monotonic() >= killed_at:
                worker.send_signal(signal.SIGKILL)
    finally:
        worker.kill()
        worker.wait(timeout=30)
        worker.stdout.close()
    return given


def assert_each_once(path: Path) -> None:
    """What the outcomes say is what is in the tables, for nothing was forgotten in between."""
    with opened(path, Limits(retention_us=10**15)) as journal:
        assert journal.loss is None
        assert all(site.balanced for site in journal.sites().values())
    found = rows(path, "SELECT outcome, count(*) FROM orders GROUP BY outcome")
    by_outcome = {str(outcome): count for outcome, count in found}
    marked = "SELECT count(*) FROM dead_letters WHERE replayed_us IS NOT NULL AND sink IS "
    assert rows(path, "SELECT count(*) FROM again") == [(by_outcome.get("pending", 0),)]
    assert rows(path, f"{marked} NOT NULL") == [(by_outcome.get("pending", 0),)]
    assert rows(path, f"{marked} NULL") == [(by_outcome.get("accepted", 0),)]
    twice = "SELECT letter FROM orders WHERE outcome IN ('accepted', 'pending') GROUP BY letter "
    assert rows(path, f"{twice} HAVING count(*) > 1") == []
    audit(path)
