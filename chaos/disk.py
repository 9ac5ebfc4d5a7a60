"""A small disk of one's own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

BLOCK = 4096


class NoDisk(RuntimeError):
    """It cannot be had: mounting needs root."""


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes in memory, at `directory`, which is made. Raises NoDisk."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoDisk(f"a small disk needs the right to mount: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Somebody else's file takes all the room there is, for as long as the block lasts."""
    filler = directory / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            _fill(file)
        yield
    finally:
        filler.unlink(missing_ok=True)


def _fill(file: FileIO) -> None:
    block = bytes(BLOCK)
    while True:
        try:
            file.write(block)
        except OSError:  # no space left
            return
