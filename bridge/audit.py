"""The ledger by day against BigQuery, beside a running daemon and without racing it.

Of each span of days the journal is asked first, at one moment, and then the table, for the rows
that were received up to a cut a little before (`bridge.journal.account`). What can still come in
between is rare (a former instance's readings that are taken over), so a difference counts only when
a second look finds the very same one, for which all that was young at the first is old enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from bridge.clock import Clock
from bridge.errors import Transient
from bridge.journal.account import CUT_US, Account, Accounts, Key
from bridge.journal.days import Tally
from bridge.sinks.bigquery_sums import Rows, Span, TableSums
from bridge.snapshot import OTHER_SITE

EQUAL, DIFFERENT, UNSETTLED = "equal", "different", "unsettled"
DAYS_A_QUERY = 7
LOOKS = 4
ATTEMPTS = 4  # at one query
NAMED = 20  # ids, of each kind
NAMED_LINES = 20
HELD_MOST = 20_000

T = TypeVar("T")

_NOTHING = Rows(0, 0, 0)


class Ids(NamedTuple):
    """Up to `NAMED` ids of each kind, as far as they can be told: of missing and foreign ones only
    among readings that the journal still has."""

    missing: Sequence[str] = ()
    foreign: Sequence[str] = ()
    doubled: Sequence[str] = ()


class Line(NamedTuple):
    """One site and day (days since 1970). until_us: up to when what was received is compared.
    pending: how many readings keep it from being judged."""

    site: str
    day: int
    until_us: int
    settled: Tally
    found: Rows
    verdict: str
    words: str = ""
    ids: Ids = Ids()

    @property
    def key(self) -> Key:
        return self.site, self.day

    @property
    def difference(self) -> tuple[int, int, int]:
        """Nothing but zeros where ledger and table agree."""
        settled, found = self.settled, self.found
        checksum = (found.checksum - settled.checksum) % (1 << 128)
        return found.rows - settled.readings, found.ids - settled.readings, checksum


class Audit:
    """sites: those to look at; empty for all. wait: sleeps so many seconds."""

    def __init__(
        self,
        accounts: Accounts,
        table: TableSums,
        sites: Sequence[str],
        clock: Clock,
        wait: Callable[[float], None],
    ) -> None:
        self._accounts = accounts
        self._table = table
        self._sites = sites
        self._clock = clock
        self._wait = wait
        self._named = 0

    def lines(self, first: int, last: int) -> Iterator[list[Line]]:
        """Of the days from `first` to `last`, some days at a time. Blocks for the queries. Raises
        JournalError, SinkError."""
        for start in range(first, last + 1, DAYS_A_QUERY):
            yield self._confirmed(start, min(last, start + DAYS_A_QUERY - 1))

    def _confirmed(self, first: int, last: int) -> list[Line]:
        account, lines = self._look(first, last)
        before: dict[Key, tuple[int, int, int]] = {}
        for _ in range(LOOKS - 1):
            found = _differences(lines)
            if all(before.get(key) == difference for key, difference in found.items()):
                break
            before = found
            self._wait(CUT_US / 1e6)
            account, lines = self._look(first, last)
        return [self._judged(line, before.get(line.key), account) for line in lines]

    def _look(self, first: int, last: int) -> tuple[Account, list[Line]]:
        account = self._accounts.take(first, last, self._clock.now_us())
        span = Span(first, last, account.since_us, account.cut_us, self._sites)
        rows = self._asked(lambda: self._table.sums(span, account.pending))
        return account, compared(account, rows, self._sites)

    def _judged(self, line: Line, before: tuple[int, int, int] | None, account: Account) -> Line:
        if line.verdict != DIFFERENT:
            return line
        if line.difference != before:
            return line._replace(verdict=UNSETTLED, words="changed with every look")
        self._named += 1
        if self._named > NAMED_LINES:
            return line
        return line._replace(ids=self._name(line, account))

    def _name(self, line: Line, account: Account) -> Ids:
        """Which ids are not as they should be. A line of folded sites has none of its own."""
        if line.site == OTHER_SITE:
            return Ids()
        span = Span(line.day, line.day, account.since_us, account.cut_us, [line.site])
        doubled = self._asked(lambda: self._table.doubled(span, NAMED))
        held = self._accounts.held(line.key, account, HELD_MOST)
        if held.first_us > account.cut_us:
            return Ids(doubled=doubled)
        recent = span._replace(since_us=held.first_us)
        there = set(self._asked(lambda: self._table.ids(recent, 2 * HELD_MOST)))
        # Not all of them were answered: what is not among them may be there.
        cut_short = len(there) == 2 * HELD_MOST
        missing = [] if cut_short else sorted(held.settled - there)[:NAMED]
        foreign = sorted(there - held.settled - held.others)[:NAMED]
        return Ids(missing, foreign, doubled)

    def _asked(self, ask: Callable[[], T]) -> T:
        for attempt in range(1, ATTEMPTS):
            try:
                return ask()
            except Transient:
                self._wait(2.0**attempt)
        return ask()


def compared(account: Account, rows: dict[Key, Rows], sites: Sequence[str] = ()) -> list[Line]:
    """A line for each site and day that either of them knows. Pure."""
    found: dict[Key, Rows] = {}
    for (site, day), more in rows.items():
        key = account.line_of(site), day
        one = found.get(key, _NOTHING)
        checksum = (one.checksum + more.checksum) % (1 << 128)
        found[key] = Rows(one.rows + more.rows, one.ids + more.ids, checksum)
    crowded: dict[Key, int] = {}
    for (site, day), count in account.crowded.items():
        key = account.line_of(site), day
        crowded[key] = crowded.get(key, 0) + count
    keys = sorted({*account.lines, *found}, key=lambda key: (key[1], key[0]))
    return [
        _line(account, key, found.get(key, _NOTHING), crowded.get(key, 0))
        for key in keys
        if not sites or key[0] in sites
    ]


def _line(account: Account, key: Key, found: Rows, pending: int) -> Line:
    line = Line(*key, account.cut_us, account.lines.get(key, Tally()), found, EQUAL)
    if not any(line.difference):
        return line
    if pending:
        return line._replace(verdict=UNSETTLED, words=f"not settled yet: {pending} readings")
    return line._replace(verdict=DIFFERENT, words=_words(line.settled, found))


def _words(settled: Tally, found: Rows) -> str:
    words = []
    if copies := found.rows - found.ids:
        words.append(f"{copies} rows more than ids: written more than once")
    if found.ids < settled.readings:
        words.append(f"{settled.readings - found.ids} readings fewer than the bridge has settled")
    elif found.ids > settled.readings:
        words.append(f"{found.ids - settled.readings} ids more than the bridge has settled")
    elif not copies:
        words.append("as many ids as the bridge has settled, but not the same ones")
    return "; ".join(words)


def _differences(lines: Sequence[Line]) -> dict[Key, tuple[int, int, int]]:
    return {line.key: line.difference for line in lines if line.verdict == DIFFERENT}
