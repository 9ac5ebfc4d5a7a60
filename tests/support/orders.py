"""Orders about dead letters, given behind a journal's back as a command gives them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from bridge.intake import Intake, judged
from bridge.journal import Journal, orders, store
from bridge.journal.letters import DeadLetter, Refused
from bridge.journal.orders import Order, Outcome, Verdict
from bridge.reading import Entry, Limits
from tests.support.clock import START_US
from tests.support.journals import rows, settle
from tests.support.readings import text

GOOD = text().encode()


def give(path: Path, *some: Order) -> list[int]:
    """Answers their numbers."""
    with closing(store.connect_writer_beside(path)) as db, store.transaction(db):
        return orders.give(db, some, START_US)


def outcomes(path: Path, numbers: Sequence[int]) -> list[Outcome]:
    with closing(store.connect_reader(path)) as db:
        return orders.outcomes(db, numbers)


def judge(order: Order, letter: DeadLetter, now_us: int) -> Verdict:
    return judged(order, letter, now_us, Limits())


def carried_out(journal: Journal, *some: Order) -> list[str]:
    """Have these carried out by the journal's own process. Answers the outcomes."""
    numbers = give(journal.path, *some)
    Intake(journal, Limits()).upkeep()
    return [outcome.outcome for outcome in outcomes(journal.path, numbers)]


def refuse(journal: Journal, sink: str, entry: Entry) -> int:
    """Have a sink refuse an entry for good, the first that it has not resolved. Answers the
    letter's number."""
    settle(journal, sink, [], refused=[Refused(entry, "refused", "no")])
    number = rows(journal.path, "SELECT max(id) FROM dead_letters")[0][0]
    assert isinstance(number, int)
    return number


def everything(path: Path, but: Sequence[str] = ("orders", "sqlite_sequence")) -> dict[str, object]:
    """All tables but the orders themselves."""
    tables = sorted(store.tables_of(store.SCHEMA_VERSION) - set(but))
    return {table: rows(path, f"SELECT * FROM {table}") for table in tables}
