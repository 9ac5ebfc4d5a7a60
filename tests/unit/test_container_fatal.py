from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest

from container.fatal import given_up, listen

STOPPING = ("SUPERVISOR_STATE_CHANGE_STOPPING", "")
FATAL = ("PROCESS_STATE_FATAL", "processname:broker groupname:broker from_state:BACKOFF")
CRASHED = ("PROCESS_STATE_EXITED", "processname:bridge from_state:RUNNING expected:0 pid:7")
REFUSED = ("PROCESS_STATE_EXITED", "processname:bridge from_state:RUNNING expected:1 pid:7")


def hear(
    monkeypatch: pytest.MonkeyPatch, directory: Path, *events: tuple[str, str]
) -> list[tuple[int, int]]:
    """The signals that were sent after these events."""
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signals.append((pid, number)))
    lines = [f"ver:3.0 eventname:{name} len:{len(text)}\n{text}" for name, text in events]
    answers = io.StringIO()
    listen(directory, io.StringIO("".join(lines)), answers)
    assert answers.getvalue() == "READY\n" + "RESULT 2\nOKREADY\n" * len(events)
    return signals


END = [(os.getppid(), signal.SIGTERM)]


def test_a_program_that_is_given_up_ends_supervisor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert hear(monkeypatch, tmp_path, FATAL) == END
    assert given_up(tmp_path) == "broker ended again and again at its start"


def test_a_bridge_that_has_been_running_and_refuses_its_configuration_ends_supervisor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert hear(monkeypatch, tmp_path, CRASHED, REFUSED) == END
    assert given_up(tmp_path) == "bridge says that another start would not help"


def test_a_program_that_is_started_again_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert hear(monkeypatch, tmp_path, CRASHED) == []
    assert given_up(tmp_path) is None


def test_what_is_given_up_because_of_a_stop_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert hear(monkeypatch, tmp_path, STOPPING, FATAL, REFUSED) == []
    assert given_up(tmp_path) is None
