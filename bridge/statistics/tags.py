"""Asking the statistics file, beside its writer.

Every call opens it for itself: a few queries of milliseconds each, in whatever thread asks.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bridge.journal.letters import ENTRANCE
from bridge.statistics.rules import (
    HALF_US,
    KEPT_MINUTES,
    MINUTE_US,
    STATES,
)

BUSY_SECONDS = 0.25
MAX_SITES = 10_000  # the ledger has no more
ORDERS = {
    "tag": "site {0}, pi_tag {0}",
    "age": "received_us {1}, site, pi_tag",
    "value": "value {0}, site, pi_tag",
    "average": "average IS NULL, average {0}, site, pi_tag",
}
_COLUMNS = (
    *("id", "site", "pi_tag", "value", "event_us", "received_us", "readings"),
    *("since_us", "interval_us", "offset_us"),
)
_FIELDS = (*_COLUMNS[1:], "average_1m")
# Of the two half minutes before now, and of the one that now is.
_LAST_MINUTE = """
    (iif(:half - half <= 2, total0, 0) + iif(:half - half <= 1, total1, 0)
        + iif(:half - half <= 0, total2, 0))
    / nullif(iif(:half - half <= 2, count0, 0) + iif(:half - half <= 1, count1, 0)
        + iif(:half - half <= 0, count2, 0), 0)"""
_ROW = f"SELECT {', '.join((*_COLUMNS, _LAST_MINUTE, *STATES.values()))} FROM tags WHERE id = :id"
# Of the last five minutes: only made where it is asked for.
_WITH_AVERAGE = """tags LEFT JOIN (
    SELECT tag, sum(total) / sum(count) AS average FROM all_minutes
    WHERE minute BETWEEN :minute - 5 AND :minute GROUP BY tag
) ON tag = id"""

T = TypeVar("T")


class Wanted(NamedTuple):
    """Which tags, in which order. search: part of site/tag, upper and lower case alike."""

    search: str = ""
    site: str | None = None
    state: str | None = None
    sort: str = "tag"
    descending: bool = False
    offset: int = 0
    limit: int = 50


class Minute(NamedTuple):
    """The readings that came in one minute (number of minutes since 1970)."""

    minute: int
    readings: int
    total: float | None
    low: float
    high: float
    late: int


def average(minutes: Sequence[Minute]) -> float | None:
    """Of all values in these minutes; None where there are none, or their sum is no number."""
    if not minutes or any(minute.total is None for minute in minutes):
        return None
    total = sum(minute.total or 0.0 for minute in minutes)
    return total / sum(minute.readings for minute in minutes)


@dataclass
class Tag:
    """One tag, now. average_1m: of the values received in the last 60 to 90 seconds; None without
    any. minutes: up to 35, oldest first; those without a reading are left out."""

    site: str
    pi_tag: str
    value: float
    event_us: int
    received_us: int
    readings: int
    since_us: int
    interval_us: float
    offset_us: float
    average_1m: float | None
    states: list[str]
    minutes: list[Minute] = field(default_factory=list)


class NoFigures(Exception):
    """There are no figures of tags just now; `str()` says why."""


class Tags:
    """Every call raises NoFigures where the file is not there, damaged or busy. problem: why it is
    known not to be there, in words; None when it is. rounds: a number that is another one after the
    file was brought up to date: what takes all tags to answer is asked once a round."""

    def __init__(
        self, path: Path, problem: Callable[[], str | None], rounds: Callable[[], int]
    ) -> None:
        self._path = path
        self._problem = problem
        self._rounds = rounds
        self._answers: dict[str, tuple[int, Any]] = {}

    # --- tags -------------------------------------------------------------------------------------

    def page(self, wanted: Wanted, now_us: int) -> tuple[int, list[Tag]]:
        """How many there are, and those of one page."""
        where, values = _where(wanted, now_us)
        with self._open() as db:
            total = db.execute(f"SELECT count(*) FROM tags WHERE {where}", values).fetchone()[0]
            ids = [row[0] for row in db.execute(_ordered(wanted, where), values)]
            found = _tags(db, ids, now_us)
        return total, [found[id] for id in ids]

    def one(self, site: str, pi_tag: str, now_us: int) -> Tag | None:
        with self._open() as db:
            row = db.execute(
                "SELECT id FROM tags WHERE site = ? AND pi_tag = ?", (site, pi_tag)
            ).fetchone()
            return None if row is None else _tags(db, [row[0]], now_us)[row[0]]

    def by_state(self, now_us: int) -> tuple[int, dict[str, int]]:
        """How many tags there are, and in each state, as of the latest round."""
        return self._once("states", lambda: self._by_state(now_us))

    def _by_state(self, now_us: int) -> tuple[int, dict[str, int]]:
        sums = ", ".join(f"total({condition})" for condition in STATES.values())
        with self._open() as db:
            total, *counts = db.execute(
                f"SELECT count(*), {sums} FROM tags", {"now": now_us}
            ).fetchone()
        return total, dict(zip(STATES, map(int, counts), strict=True))

    # --- sites ------------------------------------------------------------------------------------

    def last_received(self) -> dict[str, int]:
        """When each site's last reading came, as of the latest round; of some 10,000 sites."""
        return self._once("sites", self._last_received)

    def _last_received(self) -> dict[str, int]:
        query = f"SELECT site, max(received_us) FROM tags GROUP BY site LIMIT {MAX_SITES}"
        with self._open() as db:
            return dict(db.execute(query))

    # --- dead letters -----------------------------------------------------------------------------

    def refused(self, sites: Sequence[str]) -> dict[str, dict[str, int]]:
        """The dead letters that the journal holds of these sites, by reason."""
        found: dict[str, dict[str, int]] = defaultdict(dict)
        with self._open() as db:
            for site in sites:
                for reason, count in db.execute(
                    "SELECT reason, sum(count) FROM letters WHERE site = ? GROUP BY 1", (site,)
                ):
                    found[site][reason] = count
        return found

    def reasons(
        self, site: str | None = None, sink: str | None = None, reason: str | None = None
    ) -> dict[str, int]:
        """The dead letters that the journal holds, by reason. sink: `entrance` for those that no
        sink refused."""
        with self._open() as db:
            return dict(
                db.execute(
                    "SELECT reason, sum(count) FROM letters WHERE (?1 IS NULL OR site = ?1) "
                    "AND (?2 IS NULL OR sink = ?2) AND (?3 IS NULL OR reason = ?3) GROUP BY 1",
                    (site, "" if sink == ENTRANCE else sink, reason),
                )
            )

    def _once(self, name: str, ask: Callable[[], T]) -> T:
        rounds = self._rounds()
        known = self._answers.get(name)
        if known is None or known[0] != rounds or self._problem():
            known = self._answers[name] = (rounds, ask())
        answer: T = known[1]
        return answer

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if problem := self._problem():
            raise NoFigures(problem)
        try:
            with closing(self._connection()) as db:
                db.execute("BEGIN")  # all queries of one answer see the same moment
                yield db
        except sqlite3.Error as error:
            raise NoFigures(f"they cannot be read ({error})") from error

    def _connection(self) -> sqlite3.Connection:
        name = f"{self._path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(name, uri=True, isolation_level=None, timeout=BUSY_SECONDS)


def _where(wanted: Wanted, now_us: int) -> tuple[str, dict[str, Any]]:
    """The condition, and the values of the names in it and in what uses it."""
    values = {"now": now_us, "minute": now_us // MINUTE_US, **wanted._asdict()}
    parts = ["true"]
    if wanted.search:
        parts.append("instr(lower(site || '/' || pi_tag), lower(:search))")
    if wanted.site is not None:
        parts.append("site = :site")
    if wanted.state is not None:
        parts.append(STATES[wanted.state])
    return " AND ".join(parts), values


def _ordered(wanted: Wanted, where: str) -> str:
    """The ids of one page. Only these, so that sorting does not carry whole rows along."""
    order = ORDERS[wanted.sort].format(*("DESC", "ASC") if wanted.descending else ("ASC", "DESC"))
    source = _WITH_AVERAGE if wanted.sort == "average" else "tags"
    return f"SELECT id FROM {source} WHERE {where} ORDER BY {order} LIMIT :limit OFFSET :offset"


def _tags(db: sqlite3.Connection, ids: Sequence[int], now_us: int) -> dict[int, Tag]:
    """The rows of these ids with their averages and minutes."""
    found = {}
    for id in ids:
        values = {"id": id, "now": now_us, "half": now_us // HALF_US}
        _, *own = db.execute(_ROW, values).fetchone()
        states = [name for name, is_so in zip(STATES, own[-len(STATES) :], strict=True) if is_so]
        tag = Tag(**dict(zip(_FIELDS, own, strict=False)), states=states)
        found[id] = tag
    for id, *minute in db.execute(_minutes_of(ids), {"last": now_us // MINUTE_US}):
        found[id].minutes.append(Minute(*minute))
    return found


def _minutes_of(ids: Sequence[int]) -> str:
    """Each minute and each tag is a look-up, and of one minute in the order in which they lie."""
    named = ", ".join(map(str, sorted(ids)))
    return f"""
        SELECT tag, minute, sum(count), sum(total), min(low), max(high), sum(late)
        FROM all_minutes WHERE minute IN ({_back(KEPT_MINUTES)}) AND tag IN ({named})
        GROUP BY tag, minute ORDER BY tag, minute"""


def _back(count: int) -> str:
    return ", ".join(f":last - {number}" for number in range(count))
