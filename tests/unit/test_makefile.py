from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Not what the make that runs these tests has set for its own children.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=directory, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "requirements-dev.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_make_alone_lists_what_can_be_made() -> None:
    result = make(ROOT)
    assert result.returncode == 0
    for target in ("demo", "test", "run", "lint", "lock", "format", "clean"):
        assert f"make {target} " in result.stdout


def test_a_python_that_is_too_old_is_refused_with_the_remedy(clone: Path) -> None:
    old = clone / "python2"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = make(clone, "lint", f"PYTHON={old}")
    assert result.returncode != 0
    assert f"No Python of 3.11 or later was found at {old}" in result.stderr
    assert "Remedy" in result.stderr


def test_what_is_installed_is_installed_again_only_for_other_requirements(clone: Path) -> None:
    ready = clone / ".venv" / ".ready"
    ready.parent.mkdir()
    ready.touch()
    os.utime(clone / "requirements-dev.txt", (1, 1))
    assert "is up to date" in make(clone, "--dry-run", ".venv/.ready", "--old-file=machine").stdout
    os.utime(ready, (0, 0))
    assert "pip install" in make(clone, "--dry-run", ".venv/.ready", "--old-file=machine").stdout


def test_cleaning_keeps_the_journal(clone: Path) -> None:
    journal = clone / "data" / "journal.db"
    journal.parent.mkdir()
    journal.touch()
    (clone / ".venv").mkdir()
    assert make(clone, "clean").returncode == 0
    assert journal.exists()
    assert not (clone / ".venv").exists()


def test_the_checks_of_the_pipeline_can_be_run_as_a_program() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")]).returncode == 0
