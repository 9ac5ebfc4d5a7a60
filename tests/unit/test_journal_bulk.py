"""Many rows in one step are what they are one by one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from bridge.journal import bulk

ADD = "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET n = n + excluded.n"
COUNTS = [0, 1, bulk.GROUP - 1, bulk.GROUP, bulk.GROUP + 1, 3 * bulk.GROUP, 3 * bulk.GROUP + 7]


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    made.execute("CREATE TABLE counts (name TEXT PRIMARY KEY, n)")
    yield made
    made.close()


def rows(db: sqlite3.Connection) -> list[tuple[str, object]]:
    return db.execute("SELECT name, n FROM counts ORDER BY rowid").fetchall()


@pytest.mark.parametrize("count", COUNTS)
def test_all_rows_are_there_in_their_order(db: sqlite3.Connection, count: int) -> None:
    given = [(f"name-{number}", number) for number in range(count)]
    bulk.insert(db, "INSERT INTO counts VALUES (?, ?)", given)
    assert rows(db) == given


def test_what_is_ignored_is_not_counted_as_a_change(db: sqlite3.Connection) -> None:
    given = [(f"name-{number % 70}", number) for number in range(120)]
    before = db.total_changes
    bulk.insert(db, "INSERT OR IGNORE INTO counts VALUES (?, ?)", given)
    assert db.total_changes - before == 70
    assert rows(db) == given[:70]


def test_rows_of_one_key_add_up_within_a_step_and_beyond(db: sqlite3.Connection) -> None:
    bulk.insert(db, ADD, [("a", 1), ("b", 10)] * bulk.GROUP)
    bulk.insert(db, ADD, [("a", 1)])
    assert rows(db) == [("a", bulk.GROUP + 1), ("b", 10 * bulk.GROUP)]


def test_values_are_bound_and_not_written_into_the_statement(db: sqlite3.Connection) -> None:
    odd = ["a'); DROP TABLE counts; --", "VALUES (?, ?)", "", "\x00", "é"]
    given = [(f"{number}{odd[number % 5]}", b"\x00\xff") for number in range(bulk.GROUP)]
    bulk.insert(db, "INSERT INTO counts VALUES (?, ?)", given)
    assert rows(db) == given
