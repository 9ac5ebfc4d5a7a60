"""The disk, the clock, other programs on the machine."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from chaos import steps
from chaos.bridge_process import ENTRANCE, ROOT
from chaos.disk import filled
from chaos.rig import Rig
from chaos.scenario import Scenario

GROUP = "machine"
MIB = 1024**2
HOUR = 3_600
DESCRIPTORS = 256
PAGE = 4096


def fill_disk(rig: Rig) -> None:
    """The broker keeps what the journal cannot take."""
    with rig.services.fault("*", status="UNAVAILABLE"), filled(rig.journal.parent):
        rig.wait_until(lambda: rig.bridge.status("/readyz") == 503, "the bridge is not ready")
        rig.require(rig.bridge.status("/livez") == 200, "a full disk made it seem dead")
        rig.rest(1.0, 30)
    rig.wait_until(rig.bridge.ready, "the bridge takes readings again")


def fill_journal(rig: Rig) -> None:
    """Both sinks are away until the journal has no room left."""
    with rig.services.fault("*", status="UNAVAILABLE"):
        rig.wait_until(
            lambda: "the journal is full" in rig.bridge.text("/readyz"), "the journal is full", 90
        )
        rig.rest(1.0, 30)
    rig.wait_until(rig.bridge.ready, "the bridge takes readings again", 90)


def damage_journal(truncate: bool, rig: Rig) -> None:
    """While it is stopped, all settled, but with readings that the broker will send again: set
    aside with a clear message, shown until cleared."""
    rig.proxy.mute()
    rig.rest(0.3)
    code = rig.bridge.terminate()
    rig.require(code == 0, f"a stop under load ended with {code}")
    _truncate(rig.journal) if truncate else _garble(rig.journal)
    rig.bridge.start()
    aside = list(rig.journal.parent.glob(rig.journal.name + ".corrupt-*"))
    rig.proxy.cut()
    rig.require(aside, "the damaged journal was not set aside")
    rig.require("corrupt-" in rig.bridge.log, "nothing was said of the damage")
    rig.require(rig.bridge.metric("bridge_journal_loss") == 1, "the loss is not in the metrics")
    _command(rig, "check", "--clear-journal-loss")
    rig.wait_until(lambda: rig.bridge.metric("bridge_journal_loss") == 0, "the loss is cleared")
    rig.ledger_began_anew()


def _truncate(journal: Path) -> None:
    with journal.open("r+b") as file:
        file.truncate(journal.stat().st_size // 2)


def _garble(journal: Path) -> None:
    with journal.open("r+b") as file:
        for page in range(2, max(3, journal.stat().st_size // PAGE), 2):
            file.seek(page * PAGE)
            file.write(bytes(range(256)) * 4)


def jump_clock(rig: Rig) -> None:
    """An hour back and forth."""
    clock = rig.directory / "clock"
    steps.set_clock(clock, 0)
    rig.bridge.terminate()
    rig.bridge.start("run", entrance=steps.ENTRANCE, CHAOS_CLOCK_FILE=str(clock))
    for seconds in (HOUR, 0, -HOUR, 0, HOUR, -HOUR, 0):
        steps.set_clock(clock, seconds)
        rig.rest(0.3, 10)


def run_commands(rig: Rig) -> None:
    """Other commands read the journal and reach broker and services beside the daemon."""
    until = time.monotonic() + rig.either(1, 30)
    while time.monotonic() < until:
        _command(rig, "dead-letters", "list", "--format", "json")
        _command(rig, "check")


def _command(rig: Rig, *arguments: str) -> None:
    environment = {**rig.bridge.environment, "PORT": str(rig.bridge.port)}
    done = subprocess.run(
        [sys.executable, *ENTRANCE, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    name = " ".join(arguments)
    rig.require(done.returncode == 0, f"{name} ended with {done.returncode}: {done.stderr}")


def use_up_descriptors(rig: Rig) -> None:
    """HTTP clients that connect and say nothing, more than the process may have files."""
    limits = (DESCRIPTORS, DESCRIPTORS)
    resource.prlimit(rig.bridge.program.pid, resource.RLIMIT_NOFILE, limits)
    with ExitStack() as stack:
        for _ in range(2 * DESCRIPTORS):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", rig.bridge.port))
        rig.rest(1.0, 60)
        # The broker's connection must survive this, and be made anew if it ends.
        rig.proxy.cut()
        rig.rest(1.0, 30)
    rig.wait_until(rig.bridge.ready, "the bridge answers again")


SCENARIOS = (
    Scenario(
        "disk-full",
        GROUP,
        "the disk is full while both sinks are away, then has room again",
        fill_disk,
        disk_bytes=16 * MIB,
        padding=2_000,
    ),
    Scenario(
        "journal-full",
        GROUP,
        "the journal is at its limit, then drained",
        fill_journal,
        {"JOURNAL_MAX_BYTES": str(4 * MIB)},
        padding=4_000,
    ),
    Scenario(
        "journal-truncated",
        GROUP,
        "half of the journal's file is gone",
        partial(damage_journal, True),
        alone=True,
    ),
    Scenario(
        "journal-garbled",
        GROUP,
        "every second page of the journal is overwritten",
        partial(damage_journal, False),
        alone=True,
    ),
    Scenario(
        "clock-jumps",
        GROUP,
        "the wall clock jumps an hour back and forth",
        jump_clock,
        {"TIMESTAMP_MAX_FUTURE_SECONDS": "7300"},
    ),
    Scenario("commands-beside", GROUP, "commands run beside the daemon", run_commands),
    Scenario(
        "descriptors-used-up",
        GROUP,
        "idle HTTP clients use up the file descriptors",
        use_up_descriptors,
        alone=True,
    ),
)
