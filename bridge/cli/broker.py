"""A Mosquitto of one's own on this machine, for the demo and the tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bridge.cli.processes import Program, ProgramFailed, free_port, listens
from bridge.errors import FatalError

SETTINGS_FILE = Path(__file__).resolve().parents[2] / "mosquitto.conf"
# Debian puts it where an ordinary user's PATH does not look.
PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
OWN_LINES = ("persistence_location", "pid_file", "user", "password_file", "acl_file", "include_dir")
TRIES = 5


class MosquittoMissing(FatalError):
    """There is no Mosquitto on this machine; the message says how to get it."""


class Broker:
    """Mosquitto on a free port of the loopback, set up as `mosquitto.conf` says.

    What it keeps is in `directory`, which must exist; `start` after `stop` or `kill` takes the
    same port and finds there what was kept. `extra`: further configuration lines, after all
    others, which belong to the listener where the option is one of a listener.
    """

    def __init__(self, directory: Path, extra: str = "") -> None:
        self.directory = directory
        self.port = 0
        self._extra = extra
        self._program: Program | None = None

    @property
    def program(self) -> Program:
        """The process of the latest start."""
        if self._program is None:
            raise RuntimeError("the broker was never started")
        return self._program

    def start(self) -> None:
        """Start it and wait until it listens. Raises MosquittoMissing or ProgramFailed."""
        binary = find_mosquitto()
        if self.port:
            return self._start_on(binary, self.port)
        for _ in range(TRIES - 1):
            try:
                return self._start_on(binary, free_port())
            except ProgramFailed as failed:
                # Somebody else may have taken the port since it was found free.
                if "Address already in use" not in str(failed):
                    raise
        return self._start_on(binary, free_port())

    def stop(self) -> None:
        """End it in order: it writes down what it holds. Idempotent."""
        if self._program is not None:
            self._program.stop()

    def kill(self) -> None:
        """End it as a crash would: what it had not written down is gone."""
        self.program.kill()

    def _start_on(self, binary: Path, port: int) -> None:
        conf = self.directory / "mosquitto.conf"
        conf.write_text(configuration(SETTINGS_FILE.read_text(), port, self.directory, self._extra))
        program = Program("mosquitto", (binary, "-c", conf), self.directory)
        self._program = program
        try:
            program.wait_until(lambda: listens(port), 10)
        except BaseException:
            program.kill()
            raise
        self.port = port


def find_mosquitto() -> Path:
    """Where Mosquitto is. Raises MosquittoMissing."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *PLACES))
    found = shutil.which("mosquitto", path=path)
    if found is None:
        raise MosquittoMissing(
            "Mosquitto is not installed. Remedy: apt-get install mosquitto (`make demo` and "
            "`make test` do it by themselves on Debian)."
        )
    return Path(found)


def configuration(base: str, port: int, directory: Path, extra: str = "") -> str:
    """`base` down to its first listener, without what ties it to a place, then this listener."""
    lines = []
    for line in base.splitlines():
        option = line.split(maxsplit=1)[0] if line.strip() else ""
        if option == "listener":
            break
        if option not in OWN_LINES:
            lines.append(line)
    lines += [f"persistence_location {directory}/", *_user()]
    lines += [f"listener {port} 127.0.0.1", "allow_anonymous true", extra]
    return "\n".join(lines) + "\n"


def _user() -> list[str]:
    # As root, Mosquitto becomes another user, to whom the directory does not belong.
    return ["user root"] if os.geteuid() == 0 else []
