"""Lines to a stream that may be slow, stuck, full or gone, without taking the process along.

Standard output is most often a pipe, and whoever reads it may stop reading: a plain write then
blocks for ever, and with it every thread that logs. Here a thread of its own writes, from a queue
with a bound. A reader that is only slow slows the logging threads down; one that has stopped
makes them wait once, for `PATIENCE_SECONDS`, and from then on lines are counted instead of queued
until it reads again.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

MAX_LINES = 10_000
PATIENCE_SECONDS = 5.0


class Output:
    """A queue of lines before `stream`.

    explain_loss: makes the line that tells of so many lost ones, written as soon as the stream
    takes lines again. `put` may be called from any thread, from a signal handler as well.
    """

    def __init__(
        self,
        stream: TextIO,
        explain_loss: Callable[[int], str],
        max_lines: int = MAX_LINES,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._write = _writer(stream)
        self._explain_loss = explain_loss
        self._max_lines = max_lines
        self._patience = patience
        # Its lock can be taken again by the same thread, as a signal handler would.
        self._changed = threading.Condition()
        self._lines: deque[str] = deque()
        self._writing = False
        self._stuck = False
        self._closed = False
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue one line, without its line end. Waits for room at most `patience` seconds."""
        with self._changed:
            if not self._stuck and not self._changed.wait_for(self._has_room, self._patience):
                self._stuck = True
            if self._has_room() and not self._closed:
                self._lines.append(line)
                self._changed.notify_all()
            else:
                self._lost += 1

    def drain(self, seconds: float) -> bool:
        """Wait until everything queued is written, at most so long. False: it is not."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._writing, seconds)

    def close(self) -> None:
        """Take no more lines; what is queued is still written while the process lasts."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return len(self._lines) < self._max_lines

    def _run(self) -> None:
        while (line := self._next()) is not None:
            written = self._tell_loss() and self._written(line)
            with self._changed:
                self._writing = False
                self._stuck = False
                self._lost += not written
                self._changed.notify_all()

    def _next(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
            if not self._lines:
                return None
            self._writing = True
            return self._lines.popleft()

    def _tell_loss(self) -> bool:
        with self._changed:
            lost, self._lost = self._lost, 0
        if not lost or self._written(self._explain_loss(lost)):
            return True
        with self._changed:
            self._lost += lost
        return False

    def _written(self, line: str) -> bool:
        try:
            self._write(line + "\n")
        except (OSError, ValueError):  # full disk, reader gone, file closed: `_lost` counts it
            return False
        return True


def _writer(stream: TextIO) -> Callable[[str], None]:
    try:
        descriptor = stream.fileno()
    except (OSError, AttributeError):
        return _StreamWriter(stream).write
    stream.flush()
    return _DescriptorWriter(descriptor, stream.encoding or "utf-8").write


class _StreamWriter:
    """For streams without a file descriptor (in memory)."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _DescriptorWriter:
    """Past Python's own buffer: what that could not get rid of would be tried once more at the
    exit and turn the exit code into 120."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._torn = False

    def write(self, text: str) -> None:
        if self._torn:
            self._write_all(b"\n")
        self._torn = False
        self._write_all(text.encode(self._encoding, "backslashreplace"))

    def _write_all(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody made the shared descriptor non-blocking
                select.select([], [self._descriptor], [], 1)
            except OSError:
                self._torn = self._torn or len(left) < len(data)
                raise
