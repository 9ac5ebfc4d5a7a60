"""Programs that run beside a command for as long as it needs them."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from bridge.errors import FatalError

POLL_SECONDS = 0.02
# Below those that Linux gives to outgoing connections, any of which could take a port between the
# search and the server that it is for.
SERVER_PORTS = range(20_000, 32_768)
PORT_ATTEMPTS = 100

T = TypeVar("T")


class ProgramFailed(FatalError):
    """A program did not start, or did not do its work; the message ends with its last words."""


class Program:
    """One child process, from its making until `stop`.

    It has a session of its own, so that Ctrl-C in the terminal reaches only the command, which
    then stops its programs in the right order. What it prints goes to `<name>.out` and
    `<name>.log` in `directory`, appended. A context manager: leaving it stops the program, and
    kills it when it is left in an error or by Ctrl-C, so that nobody has to wait.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str | Path],
        directory: Path,
        environment: Mapping[str, str] | None = None,
        working_directory: Path | None = None,
    ) -> None:
        self.name = name
        self.output = directory / f"{name}.out"
        self.log = directory / f"{name}.log"
        with self.output.open("ab") as output, self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env=None if environment is None else dict(environment),
                cwd=working_directory,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait_until(self, ready: Callable[[], T | None], seconds: float) -> T:
        """Poll `ready` until it answers something but None or False, and answer that. Raises
        ProgramFailed when the program ends before, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not (answer := ready()):
            if self.exit_code is not None:
                raise self.failure(f"ended with exit code {self.exit_code}")
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready after {seconds:g} s")
            time.sleep(POLL_SECONDS)
        return answer

    def finish(self, seconds: float) -> int:
        """Wait for it to end by itself; its exit code. Raises ProgramFailed after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.failure(f"was not done after {seconds:g} s") from None

    def stop(self, seconds: float = 15.0) -> int:
        """SIGTERM, and SIGKILL when it does not end within `seconds`; its exit code. Idempotent."""
        if self.exit_code is None:
            self._process.terminate()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL, to its children as well; its exit code. Idempotent."""
        if self.exit_code is None:
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()

    def failure(self, what: str) -> ProgramFailed:
        """The error that says so, with the end of its log."""
        return ProgramFailed(f"{self.name} {what}. Its last words:\n{self.last_words()}")

    def last_words(self, lines: int = 15) -> str:
        text = self.log.read_text(errors="replace") or self.output.read_text(errors="replace")
        return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (none)"


def free_port() -> int:
    """As `free_ports`, of one."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many TCP ports of the loopback, no two the same, that nobody listens on just now. Raises
    ProgramFailed when there seem to be fewer."""
    tried = secrets.SystemRandom().sample(SERVER_PORTS, min(PORT_ATTEMPTS, len(SERVER_PORTS)))
    found = list(islice(filter(_is_free, tried), count))
    if len(found) < count:
        first, last = SERVER_PORTS[0], SERVER_PORTS[-1]
        raise ProgramFailed(f"no free port from {first} to {last}: end some of what listens there")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listens(port: int) -> bool:
    """Whether somebody takes connections on the loopback's port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
