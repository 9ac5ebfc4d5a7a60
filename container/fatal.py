"""Supervisor's listener: ends everything when a program cannot be kept running.

Supervisor itself gives such a program up without a word and goes on, and its exit code is 0 in the
end. Here the others are stopped in their order, and a note is left for `container/__main__.py`.

Supervisor writes events to standard input and reads answers from standard output.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TextIO

GIVEN_UP = "given-up"
STOPPING = "SUPERVISOR_STATE_CHANGE_STOPPING"


def given_up(directory: Path) -> str | None:
    """The program that could not be kept running, and why; None where there was none."""
    note = directory / GIVEN_UP
    return note.read_text() if note.exists() else None


def listen(directory: Path, events: TextIO, answers: TextIO) -> None:
    """Blocks until Supervisor hangs up."""
    stopping = False
    print("READY", file=answers, flush=True)
    while line := events.readline():
        headers = _fields(line)
        process = _fields(events.read(int(headers["len"])))
        stopping = stopping or headers["eventname"] == STOPPING
        reason = _reason(headers["eventname"], process)
        # A stop gives up those that were between two tries to start: not for any failure of theirs.
        if reason and not stopping:
            _end(directory, reason)
        print("RESULT 2\nOKREADY", file=answers, flush=True)


def _fields(line: str) -> dict[str, str]:
    return dict(word.split(":", 1) for word in line.split())


def _reason(event: str, process: dict[str, str]) -> str | None:
    if event == "PROCESS_STATE_FATAL":
        return f"{process['processname']} ended again and again at its start"
    if event == "PROCESS_STATE_EXITED" and process["expected"] == "1":
        return f"{process['processname']} says that another start would not help"
    return None


def _end(directory: Path, reason: str) -> None:
    print(f"{reason}: stopping everything. Its last lines say why.", file=sys.stderr, flush=True)
    (directory / GIVEN_UP).write_text(reason)
    os.kill(os.getppid(), signal.SIGTERM)


if __name__ == "__main__":
    listen(Path(sys.argv[1]), sys.stdin, sys.stdout)
