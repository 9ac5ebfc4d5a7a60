"""The command line: which commands there are, and how they end.

A command's module is imported when the command is used and not before, so that `run` in LOCAL
imports no Google client and `--help` answers at once. A new command is one line in `COMMANDS`
and one module that has a click command named `command`.
"""

from __future__ import annotations

import importlib
import signal
from typing import Any, NamedTuple

import click

from bridge.errors import EXIT_FATAL, BridgeError
from bridge.version import VERSION

DEFAULT_COMMAND = "run"

__all__ = ["COMMANDS", "VERSION", "Commands", "cli", "main"]


class Entry(NamedTuple):
    """One command. `summary` is its line in the overview, which must not import the module."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Entry("run", "bridge.cli.run", "Run the bridge (the default)."),
    Entry("check", "bridge.cli.check", "Check configuration, broker, topic and table."),
    Entry("provision", "bridge.cli.provision", "Create what is missing in Google Cloud."),
    Entry("simulate", "bridge.cli.simulate", "Publish plausible or recorded readings to MQTT."),
    Entry("demo", "bridge.cli.demo", "Try the whole pipeline on this machine, with proof."),
    Entry("watch", "bridge.cli.watch", "Watch a running bridge in the terminal."),
    Entry("audit", "bridge.cli.audit", "Compare the ledger with BigQuery, day by day."),
    Entry("replay", "bridge.cli.replay", "Send readings in the journal to a sink again."),
    Entry("dead-letters", "bridge.cli.dead_letters", "Look at refused messages, and replay them."),
)


class Commands(click.Group):
    """The group of `COMMANDS`. What the bridge raises on purpose ends as words and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in COMMANDS:
            if entry.name == cmd_name:
                command = importlib.import_module(entry.module).command
                assert isinstance(command, click.Command)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(entry.name, entry.summary) for entry in COMMANDS])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_command(args, self._own_options(ctx)))

    def _own_options(self, ctx: click.Context) -> set[str]:
        return {name for parameter in self.get_params(ctx) for name in parameter.opts}

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BridgeError as error:
            click.echo(str(error), err=True)
            ctx.exit(getattr(error, "exit_code", EXIT_FATAL))


def _with_command(args: list[str], own_options: set[str]) -> list[str]:
    """Without a command, `run` is meant, with whatever options are given."""
    if not args or (args[0].startswith("-") and args[0] not in own_options):
        return [DEFAULT_COMMAND, *args]
    return args


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="fcts-bridge", message="%(prog)s %(version)s")
def cli() -> None:
    """MQTT to Google Cloud, without losing, doubling or reordering a reading.

    All configuration is by environment variables. Without a command, the bridge runs.
    """


def main(daemon: Any = None) -> None:
    """Run the command line and exit the process with the command's code. `daemon`: what `run`
    runs (see `bridge.cli.run.Daemon`)."""
    _heed_sigint()
    cli.main(prog_name="mqtt_subscriber.py", obj=daemon)


def _heed_sigint() -> None:
    """A shell that is no terminal's starts what is in the background with SIGINT ignored. Whoever
    sends it to a command means it all the same."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
