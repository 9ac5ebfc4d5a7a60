"""What was acknowledged to the sensors against what arrived. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Numbers = Mapping[str, Collection[int]]


@dataclass(frozen=True)
class Arrived:
    """By site, the numbers found, in the order in which the service got them, copies included."""

    events: Mapping[str, Sequence[int]]
    rows: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Verdict:
    """One scenario's outcome, in readings.

    acknowledged: by the broker, to the sensors. pubsub, bigquery: of these, how many are there.
    lost_*: acknowledged, not there, and not refused by the service either. dead_letters: refused
    by a service for good, as the scenario meant it. inversions: how often the first occurrence of
    an event comes after a later one of its site. doubled_rows: rows beyond one a reading.
    strange: arrived, but never sent. recovery_seconds: from the end of the fault until all that
    was acknowledged by then was settled in both sinks. findings: what else is not as it must be.
    """

    acknowledged: int
    pubsub: int
    lost_pubsub: int
    copies: int
    inversions: int
    bigquery: int
    lost_bigquery: int
    doubled_rows: int
    dead_letters: int
    strange: int
    recovery_seconds: float = 0.0
    findings: tuple[str, ...] = field(default=())

    @property
    def lost(self) -> int:
        return self.lost_pubsub + self.lost_bigquery

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled in BigQuery, or out of order, and nothing is odd."""
        bad = self.lost + self.inversions + self.doubled_rows + self.strange
        return bad == 0 and not self.findings


def judge(
    acknowledged: Numbers,
    arrived: Arrived,
    refused: Numbers,
    recovery_seconds: float = 0.0,
    findings: Sequence[str] = (),
) -> Verdict:
    """refused: by site, what BigQuery is meant to refuse in this scenario: each of these must be
    absent from the table, and only these may be."""
    events = {site: _first_occurrences(numbers) for site, numbers in arrived.events.items()}
    rows = {site: Counter(numbers) for site, numbers in arrived.rows.items()}
    wanted = {site: set(numbers) for site, numbers in acknowledged.items()}
    meant = {site: set(refused.get(site, ())) for site in wanted}
    in_pubsub = sum(len(wanted[site] & set(events.get(site, ()))) for site in wanted)
    in_bigquery = sum(len(wanted[site] & set(rows.get(site, ()))) for site in wanted)
    absent = {site: wanted[site] - set(rows.get(site, ())) for site in wanted}
    total = sum(map(len, wanted.values()))
    return Verdict(
        acknowledged=total,
        pubsub=in_pubsub,
        lost_pubsub=total - in_pubsub,
        copies=sum(map(len, arrived.events.values())) - sum(map(len, events.values())),
        inversions=sum(len(_steps_back(numbers)) for numbers in events.values()),
        bigquery=in_bigquery,
        lost_bigquery=sum(len(absent[site] - meant[site]) for site in wanted),
        doubled_rows=sum(count - 1 for counts in rows.values() for count in counts.values()),
        dead_letters=sum(len(absent[site] & meant[site]) for site in wanted),
        strange=_strange(wanted, events) + _strange(wanted, rows),
        recovery_seconds=recovery_seconds,
        findings=(*findings, *_not_refused(meant, rows), *_out_of_order(events)),
    )


def _first_occurrences(numbers: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


def _steps_back(numbers: Iterable[int]) -> list[tuple[int, int]]:
    return [(before, number) for before, number in pairwise(numbers) if number < before]


def _out_of_order(events: Mapping[str, Sequence[int]]) -> Iterable[str]:
    """Of each site the first, to look for in logs and journal."""
    for site, numbers in events.items():
        for before, number in _steps_back(numbers)[:1]:
            yield f"{site}: {number} arrived right after {before}"


def _strange(wanted: Numbers, found: Numbers) -> int:
    """What nobody sent. One reading a site may be there without its acknowledgement: the broker
    has it, and the sensor that was stopped does not know."""
    strange = 0
    for site, numbers in found.items():
        first = min(wanted.get(site, ()), default=0)
        last = max(wanted.get(site, ()), default=-1)
        strange += sum(not first <= number <= last + 1 for number in numbers)
    return strange


def _not_refused(meant: Numbers, rows: Numbers) -> Iterable[str]:
    there = sum(len(set(numbers) & set(rows.get(site, ()))) for site, numbers in meant.items())
    if there:
        yield f"{there} rows are there that BigQuery was told to refuse"
