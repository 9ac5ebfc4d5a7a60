"""A program on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self


class Terminal:
    """Runs a command on a new pseudo-terminal. `settings()` are the terminal's, to be compared."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], rows: int, columns: int
    ) -> None:
        self._own, self._its = pty.openpty()
        self._seen = b""
        self.resize(rows, columns)
        self._process = subprocess.Popen(
            command,
            stdin=self._its,
            stdout=self._its,
            stderr=self._its,
            env={"TERM": "xterm-256color", **environment},
            start_new_session=True,
            preexec_fn=self._take_over,
        )

    def _take_over(self) -> None:
        # So that Ctrl-C reaches it as a signal.
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._own)
        os.close(self._its)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self._its)

    def press(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    def forget(self) -> None:
        """Only what is printed from now on counts for `wait_for`."""
        self._read(0.05)
        self._seen = b""

    def wait_for(self, text: str, seconds: float = 30) -> str:
        """Everything printed, as soon as the text is in it."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self._seen:
            assert time.monotonic() < deadline, (text, self._seen[-3_000:])
            self._read(0.2)
        return self._seen.decode(errors="replace")

    def end(self, seconds: float = 30) -> int:
        """Its exit code, once it has ended by itself."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None:
            assert time.monotonic() < deadline, self._seen[-3_000:]
            self._read(0.05)
        self._read(0.05)
        return self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def printed(self) -> bytes:
        return self._seen

    def _read(self, seconds: float) -> None:
        while select.select([self._own], [], [], seconds)[0]:
            self._seen += os.read(self._own, 65_536)
            seconds = 0
