"""`run`: the daemon."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

import click

from bridge import logs, settings
from bridge.errors import EXIT_FATAL, FatalError

log = logging.getLogger(__name__)

Daemon = Callable[[settings.Settings, bool], int]


@click.command(short_help="Run the bridge (the default).")
@click.option(
    "--accept-destination-change",
    is_flag=True,
    help="Go on although readings in the journal were meant for another project, topic or table: "
    "they are sent to the one that is configured now.",
)
@click.pass_obj
def command(daemon: Daemon, accept_destination_change: bool) -> None:
    """Run the bridge until SIGTERM or SIGINT.

    Exit code 0: everything is settled; 75: readings are left in the journal, and are sent after
    the next start; 78: something is to be set right in the configuration; 70: anything else.
    """
    configured = settings.load()
    logs.setup(configured.log_level, configured.log_format)
    try:
        code = daemon(configured, accept_destination_change)
    except FatalError as error:
        log.critical(str(error))
        click.echo(str(error), err=True)
        code = error.exit_code
    except Exception:
        log.critical(
            "the bridge has failed in a way that nobody expected: the process ends, and readings "
            "in the journal are kept. Start it again, and report this line with its trace",
            exc_info=True,
        )
        code = EXIT_FATAL
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit: a call to Google that hangs in a thread must not hold up the end.
    os._exit(code)
