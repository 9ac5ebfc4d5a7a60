from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bridge.cli import main
from bridge.cli.main import COMMANDS, VERSION, Commands, cli
from bridge.errors import BridgeError, ConfigurationError

ROOT = Path(__file__).resolve().parents[2]


def group(command: click.Command, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The command line with this one command, which is also the default."""
    monkeypatch.setattr(Commands, "get_command", lambda _self, _ctx, _name: command)
    assert isinstance(cli, Commands)
    return cli


def failing_with(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_command_has_help_and_the_name_it_is_called_by(entry: main.Entry) -> None:
    result = CliRunner().invoke(cli, [entry.name, "--help"])
    assert result.exit_code == 0
    assert entry.name in result.output.splitlines()[0]
    assert len(result.output.splitlines()) > 4


def test_the_overview_lists_every_command_and_imports_none_of_them() -> None:
    code = (
        "import sys\n"
        "from bridge.cli.main import COMMANDS, cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "print(*[entry.module for entry in COMMANDS if entry.module in sys.modules])\n"
        "print(*[name for name in sys.modules if name.split('.')[0] in ('google', 'paho')])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = result.stdout.splitlines()
    assert lines[-2:] == ["", ""]
    for entry in COMMANDS:
        assert any(entry.name in line and entry.summary in line for line in lines)


def test_without_a_command_the_bridge_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def get(_self: Commands, _ctx: click.Context, name: str) -> click.Command:
        seen.append(name)
        return click.Command(name, params=[click.Option(["--flag"], is_flag=True)])

    monkeypatch.setattr(Commands, "get_command", get)
    assert CliRunner().invoke(cli, []).exit_code == 0
    assert CliRunner().invoke(cli, ["--flag"]).exit_code == 0
    assert set(seen) == {"run"}


@pytest.mark.parametrize("arguments", [["no-such-command"], ["simulate", "--no-such-option"]])
def test_wrong_usage_ends_with_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "no-such" in result.stderr


def test_a_fatal_error_is_said_on_stderr_and_ends_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = failing_with(ConfigurationError("MQTT_PORT='x': is no port. Remedy: set one."))
    result = CliRunner().invoke(group(command, monkeypatch), ["run"])
    assert result.exit_code == 78
    assert result.stderr == "MQTT_PORT='x': is no port. Remedy: set one.\n"
    assert result.stdout == ""


def test_any_other_error_of_the_bridge_ends_with_70_and_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = failing_with(BridgeError("the disk is gone"))
    result = CliRunner().invoke(group(command, monkeypatch), ["run"])
    assert result.exit_code == 70
    assert result.stderr == "the disk is gone\n"


def test_an_error_that_is_none_of_the_bridge_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = failing_with(ZeroDivisionError())
    result = CliRunner().invoke(group(command, monkeypatch), ["run"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_the_version_is_the_one_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert CliRunner().invoke(cli, ["--version"]).output == f"fcts-bridge {VERSION}\n"


def test_a_table_in_a_pipe_is_not_folded() -> None:
    code = (
        "from bridge.cli.output import print_table;"
        "print_table('t', ['one', 'two'], [['x' * 100, 'y' * 60]])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "x" * 100 in done.stdout, done.stderr
    assert "y" * 60 in done.stdout
