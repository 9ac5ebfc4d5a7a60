"""A small disk, where one can be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from chaos.disk import NoDisk
from chaos.disk import small_disk as mounted


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[Path]:
    """As `chaos.disk.small_disk`; skips the test where mounting is not allowed."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(mounted(directory, size))
        except NoDisk as error:
            pytest.skip(str(error))
        yield made
