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
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TextIO

MAX_LINES = 10_000
MAX_CHARACTERS = 16 * 1024**2
MAX_BATCH = 500
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
        self._characters = 0
        self._writing = False
        self._stuck = False
        self._closed = False
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Queue one line, without its line end. Waits for room at most `patience` seconds."""
        with self._changed:
            if not self._stuck and not self._has_room():
                self._stuck = not self._changed.wait_for(self._has_room, self._patience)
            if self._has_room() and not self._closed:
                self._lines.append(line)
                self._characters += len(line)
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
        return len(self._lines) < self._max_lines and self._characters < MAX_CHARACTERS

    def _run(self) -> None:
        while lines := self._next():
            unwritten = self._write_with_loss(lines)
            with self._changed:
                self._lost += unwritten
                # Only now: what is being written still takes up memory.
                self._characters -= sum(map(len, lines))
                self._writing = False
                self._stuck = False
                self._changed.notify_all()

    def _next(self) -> list[str]:
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
            lines = [self._lines.popleft() for _ in range(min(MAX_BATCH, len(self._lines)))]
            self._writing = bool(lines)
            return lines

    def _write_with_loss(self, lines: list[str]) -> int:
        """How many lines are lost now, counting those of before that could not be told."""
        with self._changed:
            lost, self._lost = self._lost, 0
        if not lost:
            return len(lines) - self._write(lines)
        written = self._write([self._explain_loss(lost), *lines])
        return len(lines) + 1 - written if written else lost + len(lines)


def _writer(stream: TextIO) -> Callable[[Sequence[str]], int]:
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

    def write(self, lines: Sequence[str]) -> int:
        """How many of the lines were taken; it stops at the first failure."""
        for number, line in enumerate(lines):
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # ValueError: the stream is closed
                return number
        return len(lines)


class _DescriptorWriter:
    """Past Python's own buffer: what that could not get rid of would be tried once more at the
    exit and turn the exit code into 120."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._torn = False

    def write(self, lines: Sequence[str]) -> int:
        """How many of the lines were taken whole; a torn one is ended before the next."""
        encoded = [(line + "\n").encode(self._encoding, "backslashreplace") for line in lines]
        if self._torn:
            encoded[0] = b"\n" + encoded[0]
        ends = list(accumulate(map(len, encoded)))
        taken = self._write_all(b"".join(encoded))
        if taken:
            self._torn = taken not in ends
        return bisect_right(ends, taken)

    def _write_all(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody made the shared descriptor non-blocking
                select.select([], [self._descriptor], [], 1)
            except OSError:  # full disk, reader gone: the lines that are left count as lost
                break
        return len(data) - len(left)
