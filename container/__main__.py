"""`python -m container`: what the container runs. Writes the programs' configuration, has
Supervisor run them, passes a stop on to it, and says by its exit code what became of them.

    0   stopped because it was told to
    70  a program could not be kept running, or Supervisor itself failed
    78  the configuration is to be set right; nothing was started
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bridge.environment import matching, read
from bridge.errors import EXIT_FATAL, EXIT_OK, ConfigurationError
from container import fatal
from container.opening import OPENED
from container.ports import Ports
from container.render import USUAL_PORTS, render
from container.settings import SECRETS

SUPERVISORD_CONF = Path(__file__).resolve().parents[1] / "supervisord.conf"
HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)

# As a word of a command line in supervisord.conf.
PlainPath = Annotated[str, matching(r"/[\w./-]+", "an absolute path of letters, digits and ._-/")]


class Settings(BaseModel):
    """What the entry itself needs to know."""

    model_config = ConfigDict(frozen=True)

    run_directory: PlainPath = Field(
        "/run/fcts", description="name a directory in memory (a tmpfs), by its absolute path"
    )


def main(environ: Mapping[str, str], ports: Ports = USUAL_PORTS) -> int:
    """Blocks until everything has ended; the exit code. From the main thread, and before there are
    others: it takes the signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    try:
        directory = Path(read(Settings, environ).run_directory)
        _allow_open_files()
        variables = {**_without_secrets(environ), **render(environ, directory, ports)}
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return _supervise(directory, variables)


def _allow_open_files() -> None:
    """As many as there may be at all: Mosquitto keeps to the soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """What is written down for the broker is no business of the other programs."""
    return {name: value for name, value in environ.items() if name not in SECRETS}


def _supervise(directory: Path, variables: Mapping[str, str]) -> int:
    _clear(directory)
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(SUPERVISORD_CONF)]
    # The root file system may be read-only.
    places = {"RUN_DIRECTORY": str(directory), "TMPDIR": str(directory)}
    environ = {**variables, **places, "PYTHONUNBUFFERED": "1"}
    code = _wait(os.posix_spawn(sys.executable, command, environ, setsigmask=()))
    return EXIT_OK if code == 0 and fatal.given_up(directory) is None else EXIT_FATAL


def _clear(directory: Path) -> None:
    """What an earlier start in the same directory has left."""
    for name in (fatal.GIVEN_UP, OPENED):
        (directory / name).unlink(missing_ok=True)


def _wait(child: int) -> int:
    """Pass signals on to the child until it has ended; its exit code."""
    while True:
        number = signal.sigwait(HEARD)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(os.environ))
