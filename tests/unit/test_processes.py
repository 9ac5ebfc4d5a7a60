from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

from bridge.cli import processes
from bridge.cli.processes import Program, ProgramFailed, free_port, free_ports, listens

DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('deaf', flush=True); time.sleep(600)"
)


def python(code: str, folder: Path) -> Program:
    return Program("child", (sys.executable, "-c", code), folder)


def test_its_output_and_its_log_can_be_read(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('log', file=sys.stderr)"
    with python(code, tmp_path) as program:
        assert program.finish(20) == 0
    assert program.output.read_text() == "out\n"
    assert program.log.read_text() == "log\n"


def test_leaving_the_block_ends_it(tmp_path: Path) -> None:
    with python("import time; time.sleep(600)", tmp_path) as program:
        assert program.exit_code is None
    assert program.exit_code == -signal.SIGTERM
    assert program.stop() == -signal.SIGTERM


def test_leaving_the_block_in_an_error_ends_it_at_once(tmp_path: Path) -> None:
    def interrupted(program: Program) -> None:
        with program:
            program.wait_until(lambda: "deaf" in program.output.read_text(), 20)
            raise KeyboardInterrupt

    program = python(DEAF, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        interrupted(program)
    assert program.exit_code == -signal.SIGKILL


def test_what_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    program = python(DEAF, tmp_path)
    program.wait_until(lambda: "deaf" in program.output.read_text(), 20)
    assert program.stop(seconds=0.1) == -signal.SIGKILL


def test_waiting_answers_what_became_ready(tmp_path: Path) -> None:
    with python("import time; print('ready', flush=True); time.sleep(600)", tmp_path) as program:
        assert program.wait_until(lambda: program.output.read_text().strip(), 20) == "ready"


def test_one_that_ends_too_early_is_shown_with_its_last_words(tmp_path: Path) -> None:
    with (
        python("raise SystemExit('no disk')", tmp_path) as program,
        pytest.raises(ProgramFailed, match=r"(?s)child ended with exit code 1.*no disk"),
    ):
        program.wait_until(lambda: None, 20)


def test_one_that_is_never_ready_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    with python("import time; time.sleep(600)", tmp_path) as program:
        with pytest.raises(ProgramFailed, match=r"not ready after 0\.1 s"):
            program.wait_until(lambda: False, 0.1)
        with pytest.raises(ProgramFailed, match=r"not done after 0\.1 s"):
            program.finish(0.1)


def test_a_free_port_is_one_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken, free = server.getsockname()[1], free_port()
        assert not listens(free)
        monkeypatch.setattr(processes, "SERVER_PORTS", [taken, free])
        assert {free_port() for _ in range(20)} == {free}
        with pytest.raises(ProgramFailed, match="no free port"):
            free_ports(2)
        monkeypatch.setattr(processes, "SERVER_PORTS", [taken])
        with pytest.raises(ProgramFailed, match="no free port"):
            free_port()
