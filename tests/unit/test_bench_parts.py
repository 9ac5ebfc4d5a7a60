"""The benchmark's processes and what it asks of Linux."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import chart, process
from bench.__main__ import main
from bench.generator import Load
from bench.stage import Generator
from bridge.cli.processes import ProgramFailed, free_port


def test_a_process_has_memory_a_peak_of_it_and_cpu_time_that_only_grows() -> None:
    own = os.getpid()
    before = process.cpu_seconds(own)
    assert 1 < process.resident_mb(own) <= process.peak_mb(own)
    while process.cpu_seconds(own) == before:
        sum(range(10_000))
    assert process.cpu_seconds(own) > before


def test_a_process_that_has_ended_is_told() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for look in (process.cpu_seconds, process.resident_mb, process.peak_mb):
        with pytest.raises(FileNotFoundError):
            look(child.pid)


def test_a_generator_without_a_broker_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match=r"could not send(.|\n)*ConnectionRefusedError"):
        Generator(tmp_path, 0, free_port(), Load(1)).finish()


def test_charts_without_matplotlib_say_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"sections": {}}))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = CliRunner().invoke(chart.main, [str(tmp_path)])
    assert result.exit_code == 1
    assert "make bench" in result.output


def test_a_part_that_does_not_exist_is_told_with_those_that_do() -> None:
    result = CliRunner().invoke(main, ["nonsense"])
    assert result.exit_code == 2
    assert "nonsense" in result.output
    assert "'throughput'" in result.output
