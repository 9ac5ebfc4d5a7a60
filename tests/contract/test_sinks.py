"""What every sink promises (`bridge.sinks.base.Sink`), asked of each of them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ContentRefused, Held, SinkError, Transient
from bridge.reading import Entry
from bridge.sinks.base import Outcome, Sink
from localgcp.server import LocalServices
from tests.contract.sink_harness import (
    FALLIBLE,
    HASTY,
    KINDS,
    SITES,
    Failure,
    Fallible,
    Harness,
    entries,
    micros,
    outcome_of,
    readings,
    running,
    seen,
)
from tests.support.poll import eventually
from tests.support.readings import reading


@pytest.fixture(scope="module")
def services() -> Iterator[LocalServices]:
    with LocalServices() as started:
        yield started


@pytest.fixture
def harness(services: LocalServices, request: pytest.FixtureRequest) -> Iterator[Harness]:
    yield KINDS[request.param](services)
    services.faults.clear()


@pytest.fixture
def fallible(services: LocalServices, request: pytest.FixtureRequest) -> Iterator[Fallible]:
    yield FALLIBLE[request.param](services)
    services.faults.clear()


@pytest.fixture
def sink(request: pytest.FixtureRequest) -> Iterator[Sink]:
    """An open one of the test's harness."""
    name = "harness" if "harness" in request.fixturenames else "fallible"
    made: Sink = request.getfixturevalue(name).make()
    made.open()
    yield made
    made.close()


every_kind = pytest.mark.parametrize("harness", KINDS, indirect=True)
every_fallible_kind = pytest.mark.parametrize("fallible", FALLIBLE, indirect=True)


def values(harness: Harness, site: str = SITES[0]) -> list[float]:
    return [found.value for found in harness.arrived() if found.site == site]


# --- what is accepted -----------------------------------------------------------------------------


@every_kind
def test_what_is_accepted_is_there_once_and_in_order(harness: Harness, sink: Sink) -> None:
    for first in (1, 21, 41):
        batch = entries(20, first=first)
        outcome = sink.write(batch).result(20)
        assert list(outcome.accepted) == [entry.seq for entry in batch]
        assert not outcome.refused
    assert values(harness) == [float(number) for number in range(1, 61)]


@every_kind
def test_a_lane_is_a_site_or_the_whole_sink(harness: Harness, sink: Sink) -> None:
    lanes = {sink.lane(entry.reading) for entry in entries(9, SITES)}
    assert len(lanes) == (len(SITES) if harness.by_site else 1)


def nested(levels: int) -> Any:
    """Arrays within arrays."""
    return json.loads("[" * levels + "]" * levels)


DIFFICULT: dict[str, list[dict[str, Any]]] = {
    "extreme values": [
        {"value": value}
        for value in (5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 0.0, math.pi)
    ],
    "long and exact values": [
        {"value": value} for value in (0.1 + 0.2, 1e16, 123456789012345678.0, -1e-7, 100.0)
    ],
    "names": [
        {"pi_tag": name, "sensor_id": name[::-1]}
        for name in ("Ω-тег-標籤", "🏭 A B", "a" * 128, "'; DROP TABLE --", '\\n%41{}"', "é́")
    ],
    "sites of any length": [{"site": "標" * 128}],
    "the first and the last moment": [
        {"event_us": micros(text)}
        for text in ("0001-01-01T00:00:00.000001+00:00", "9999-12-31T23:59:59.999999+00:00")
    ],
    "attributes": [
        {"attributes": json.dumps(members, ensure_ascii=False)}
        for members in (
            {"unit": "m³/h", "nested": {"list": [1, 2.5, None, True, {"deep": "✓"}]}},
            {"big": 2**53 + 1, "low": -(2**62), "text": 'line\nbreak \u2028 \\ "', "": ""},
            {"deep": nested(95)},
        )
    ],
}


@every_kind
@pytest.mark.parametrize("kind", DIFFICULT)
def test_what_arrives_is_equal_to_what_came(harness: Harness, sink: Sink, kind: str) -> None:
    changes = DIFFICULT[kind]
    batch = [Entry(n, reading(n, **change)) for n, change in enumerate(changes, 1)]
    assert len(sink.write(batch).result(20).accepted) == len(batch)
    received = sink.name != "log"
    assert harness.arrived() == [seen(entry.reading, received) for entry in batch]


@every_fallible_kind
def test_writes_to_several_lanes_at_the_same_time_all_end(fallible: Fallible, sink: Sink) -> None:
    batches = [entries(30, [site], first) for site, first in zip(SITES, (1, 101, 201), strict=True)]
    futures = [sink.write(batch) for batch in batches]
    for batch, future in zip(batches, futures, strict=True):
        assert list(future.result(20).accepted) == [entry.seq for entry in batch]
    for site, batch in zip(SITES, batches, strict=True):
        assert values(fallible, site) == [entry.reading.value for entry in batch]


# --- failures -------------------------------------------------------------------------------------

FAILURES = [
    pytest.param(kind, failure, id=f"{kind}-{failure.code}")
    for kind, made in FALLIBLE.items()
    for failure in made.failures
]


@pytest.mark.parametrize(("fallible", "failure"), FAILURES, indirect=["fallible"])
def test_a_failure_is_told_as_what_it_is_and_the_same_batch_goes_through_afterwards(
    fallible: Fallible, sink: Sink, failure: Failure
) -> None:
    batch = entries(5)
    fallible.fail(failure.code)
    error = outcome_of(sink.write(batch))
    assert type(error) is failure.error, error
    assert fallible.arrived() == []
    if isinstance(error, Held):
        assert error.remedy
    assert list(sink.write(batch).result(20).accepted) == [1, 2, 3, 4, 5]
    assert values(fallible) == [1.0, 2.0, 3.0, 4.0, 5.0]


@every_fallible_kind
def test_an_answer_that_is_lost_leaves_nothing_out_and_nothing_behind(
    fallible: Fallible, sink: Sink
) -> None:
    first, second = entries(5), entries(5, first=6)
    fallible.lose_answer()
    assert isinstance(outcome_of(sink.write(first)), Transient)
    assert list(sink.write(first).result(20).accepted) == [1, 2, 3, 4, 5]
    assert list(sink.write(second).result(20).accepted) == [6, 7, 8, 9, 10]
    # First occurrences: Pub/Sub may hold copies.
    assert list(dict.fromkeys(values(fallible))) == [float(number) for number in range(1, 11)]
    if sink.name == "bigquery":
        assert len(fallible.arrived()) == 10


@every_fallible_kind
def test_a_refused_entry_is_named_or_nothing_of_its_batch_is_applied(
    fallible: Fallible, sink: Sink
) -> None:
    good, bad = entries(4), Entry(5, fallible.poison(reading(5)))
    answer = outcome_of(sink.write([*good[:2], bad, *good[2:]]))
    if isinstance(answer, Outcome):
        assert list(answer.refused) == [5]
        assert answer.refused[5]
    else:
        assert isinstance(answer, ContentRefused)
    assert fallible.arrived() == []


@every_fallible_kind
def test_through_the_delivery_the_refused_are_dead_letters_and_their_neighbours_arrive(
    fallible: Fallible, tmp_path: Path
) -> None:
    batch = readings(60)
    bad = {0, 31, 58}
    given = [fallible.poison(r) if n in bad else r for n, r in enumerate(batch)]
    with running(tmp_path / "journal.db", lambda _journal: fallible.make()) as run:
        run.journal.append(given, [])
        run.drain()
        letters = run.journal.letters_waiting(10)
        counts = run.journal.sites()["MOR"].sinks[run.sink.name]
    assert [letter.event_id for letter in letters] == [given[n].event_id for n in sorted(bad)]
    assert all(letter.sink == run.sink.name and letter.detail for letter in letters)
    assert (counts.settled, counts.dead_lettered) == (57, 3)
    found = values(fallible)
    if run.sink.ordered_copies:
        found = list(dict.fromkeys(found))
    assert found == [r.value for n, r in enumerate(batch) if n not in bad]


# --- bounds and ends ------------------------------------------------------------------------------


@every_fallible_kind
def test_close_ends_a_write_that_hangs_and_may_be_called_again(fallible: Fallible) -> None:
    fallible.hang()
    sink = fallible.make()
    sink.open()
    hanging = sink.write(entries(3))
    begun = time.monotonic()
    sink.close()
    assert isinstance(outcome_of(hanging, 5), Transient)
    assert time.monotonic() - begun < 5
    sink.close()


@pytest.mark.parametrize("fallible", [kind for kind in FALLIBLE if kind != "memory"], indirect=True)
def test_a_write_after_the_close_ends_with_an_error_too(fallible: Fallible) -> None:
    sink = fallible.make()
    sink.open()
    sink.close()
    assert isinstance(outcome_of(sink.write(entries(1)), 5), Transient)


@pytest.mark.parametrize("fallible", [kind for kind in FALLIBLE if kind != "memory"], indirect=True)
def test_a_service_that_never_answers_ends_the_write_at_the_deadline(fallible: Fallible) -> None:
    fallible.hang()
    sink = fallible.make(HASTY)
    sink.open()
    begun = time.monotonic()
    error = outcome_of(sink.write(entries(3)), 10)
    assert isinstance(error, Transient)
    assert time.monotonic() - begun >= HASTY * 0.9
    fallible.mend()
    sink.close()


@pytest.mark.parametrize("fallible", [kind for kind in FALLIBLE if kind != "memory"], indirect=True)
def test_a_service_that_is_away_is_transient_and_works_again_when_it_is_back(
    services: LocalServices, fallible: Fallible, tmp_path: Path
) -> None:
    with running(tmp_path / "journal.db", lambda _journal: fallible.make()) as run:
        fallible.hang()
        run.journal.append(readings(40), [])
        eventually(lambda: bool(services.faults.listing()[0]["used"]), "a write hangs")
        fallible.mend()
        run.drain()
        assert run.delivery.held is None
    found = values(fallible)
    assert list(dict.fromkeys(found)) == [float(number) for number in range(1, 41)]


def test_every_error_of_a_sink_carries_a_short_reason_for_the_metrics() -> None:
    errors: list[SinkError] = [Transient("a_b", "d"), Held("c", "d", "r"), ContentRefused("e", "d")]
    assert [error.reason for error in errors] == ["a_b", "c", "e"]
    assert [str(error) for error in errors] == ["a_b: d", "c: d", "e: d"]
