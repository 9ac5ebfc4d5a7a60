"""Many rows of one INSERT."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

GROUP = 50


def insert(db: sqlite3.Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """As `executemany`, of a statement with `VALUES (?, ...)` in it, with many rows in one step:
    with each step Python's module gives the interpreter away, and has to get it back from threads
    that are busy."""
    whole = len(rows) - len(rows) % GROUP
    for first in range(0, whole, GROUP):
        values = list(chain.from_iterable(rows[first : first + GROUP]))
        db.execute(_grouped(statement), values)
    db.executemany(statement, rows[whole:])


@cache
def _grouped(statement: str) -> str:
    head, row, tail = re.split(r"VALUES (\([?, ]+\))", statement)
    return f"{head}VALUES {', '.join([row] * GROUP)}{tail}"
