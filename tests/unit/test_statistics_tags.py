"""Figures of tags: SQLite's against plain Python's, and what a page of them holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.journal import Journal
from bridge.reading import Reading
from bridge.snapshot import State
from bridge.statistics import Statistics
from bridge.statistics import collector as collector_module
from bridge.statistics.rules import STATES
from bridge.statistics.tags import Tag, Wanted
from tests.support.clock import START_US, ManualClock
from tests.support.daemon import calm_state
from tests.support.journals import opened
from tests.support.readings import reading
from tests.support.tag_oracle import HALF_US, MINUTE_US, Expected, expected

SECOND_US = 1_000_000


def no_state() -> State:
    return calm_state()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(tmp_path: Path, clock: ManualClock) -> Iterator[Journal]:
    with opened(tmp_path / "journal.db", clock=clock) as made:
        yield made


def collected(journal: Journal, clock: ManualClock) -> Statistics:
    """With all that is in the journal."""
    statistics = Statistics(journal, no_state, clock)
    catch_up(statistics)
    return statistics


def catch_up(statistics: Statistics) -> None:
    while statistics.collector.round() < collector_module.ROUND_SECONDS:
        pass


# --- against the oracle ---------------------------------------------------------------------------

# Seconds between readings; offsets of the sensors' clocks; few values, so that they repeat.
steps = st.sampled_from([0, 0, 1, 4, 14, 16, 61, 700])
offsets = st.sampled_from([0, 0, 0, 1, -2, -45, 90])
samples = st.tuples(
    steps, offsets, st.sampled_from(["A", "B"]), st.sampled_from([1.0, 1.0, 1.0, 2.5, -3.0])
)


def sequence(drawn: Sequence[tuple[int, int, str, float]]) -> list[Reading]:
    received, made = START_US, []
    for number, (step, offset, tag, value) in enumerate(drawn):
        received += step * SECOND_US
        event = received - offset * SECOND_US + number  # no two are the same reading
        made.append(reading(number, pi_tag=tag, value=value, received_us=received, event_us=event))
    return made


@settings(max_examples=60, deadline=None)
@given(st.lists(samples, min_size=1, max_size=120), st.integers(1, 50), st.integers(0, 400))
def test_tags_are_what_plain_python_makes_of_the_same_readings_in_any_steps(
    drawn: list[tuple[int, int, str, float]], step: int, silence: int
) -> None:
    readings = sequence(drawn)
    clock = ManualClock(readings[-1].received_us + silence * SECOND_US)
    with (
        pytest.MonkeyPatch.context() as patch,
        TemporaryDirectory() as directory,
        opened(Path(directory) / "journal.db", clock=clock) as journal,
    ):
        patch.setattr(collector_module, "STEP_READINGS", step)
        journal.append(readings, [])
        statistics = collected(journal, clock)
        now = clock.now_us()
        for (site, name), wanted in expected(readings).items():
            found = statistics.tags.one(site, name, now)
            assert found is not None
            require_same(found, wanted, now)
        statistics.collector.close()


def require_same(found: Tag, wanted: Expected, now_us: int) -> None:
    assert found.value == wanted.value
    assert (found.event_us, found.received_us) == (wanted.event_us, wanted.received_us)
    assert (found.readings, found.since_us) == (wanted.readings, wanted.since_us)
    assert found.interval_us == pytest.approx(wanted.interval_us)
    assert found.offset_us == pytest.approx(wanted.offset_us)
    assert found.states == wanted.states(now_us)
    last = now_us // MINUTE_US
    kept = {minute: values for minute, values in wanted.minutes.items() if minute > last - 35}
    assert {minute.minute: minute.readings for minute in found.minutes} == {
        minute: len(values) for minute, values in kept.items()
    }
    for minute in found.minutes:
        values = kept[minute.minute]
        assert minute.total == pytest.approx(sum(values))
        assert (minute.low, minute.high) == (min(values), max(values))
        assert minute.late == wanted.late[minute.minute]
    newest = now_us // HALF_US
    recent = [v for half, vs in wanted.halves.items() if half >= newest - 2 for v in vs]
    average = sum(recent) / len(recent) if recent else None
    assert found.average_1m == (None if average is None else pytest.approx(average))


# --- pages ----------------------------------------------------------------------------------------


def plant(journal: Journal, clock: ManualClock) -> Statistics:
    """Ten tags of two sites; values and ages are their numbers."""
    journal.append(
        [
            reading(
                number,
                ("MOR", "BAG")[number % 2],
                pi_tag=f"FT-{number}",
                received_us=clock.now_us() - number * SECOND_US,
                event_us=clock.now_us() - number * SECOND_US,
            )
            for number in range(10)
        ],
        [],
    )
    return collected(journal, clock)


def names(found: list[Tag]) -> list[str]:
    return [f"{tag.site}/{tag.pi_tag}" for tag in found]


@pytest.mark.parametrize(
    ("wanted", "total", "first"),
    [
        (Wanted(), 10, ["BAG/FT-1", "BAG/FT-3"]),
        (Wanted(descending=True), 10, ["MOR/FT-8", "MOR/FT-6"]),
        (Wanted(site="MOR"), 5, ["MOR/FT-0", "MOR/FT-2"]),
        (Wanted(search="mor/ft-4"), 1, ["MOR/FT-4"]),
        (Wanted(search="%"), 0, []),
        (Wanted(sort="age"), 10, ["MOR/FT-0", "BAG/FT-1"]),
        (Wanted(sort="age", descending=True), 10, ["BAG/FT-9", "MOR/FT-8"]),
        (Wanted(sort="value", descending=True), 10, ["BAG/FT-9", "MOR/FT-8"]),
        (Wanted(sort="average"), 10, ["MOR/FT-0", "BAG/FT-1"]),
        (Wanted(offset=9, limit=50), 10, ["MOR/FT-8"]),
        (Wanted(state="stale"), 0, []),
        (Wanted(limit=0), 10, []),
    ],
)
def test_a_page_holds_the_tags_that_were_asked_for_in_their_order(
    journal: Journal, clock: ManualClock, wanted: Wanted, total: int, first: list[str]
) -> None:
    statistics = plant(journal, clock)
    count, found = statistics.tags.page(wanted, clock.now_us())
    assert count == total
    assert names(found)[:2] == first


def test_tags_without_readings_in_five_minutes_come_last_by_average(
    journal: Journal, clock: ManualClock
) -> None:
    statistics = plant(journal, clock)
    clock.pass_(420)
    journal.append([reading(99, pi_tag="NEW", received_us=clock.now_us())], [])
    catch_up(statistics)
    for descending in (False, True):
        wanted = Wanted(sort="average", descending=descending)
        _, found = statistics.tags.page(wanted, clock.now_us())
        assert names(found)[0] == "MOR/NEW"


def test_states_are_counted_over_all_tags(journal: Journal, clock: ManualClock) -> None:
    for number in range(5):
        at = clock.now_us()
        journal.append(
            [
                reading(number, pi_tag="slow", received_us=at, event_us=at - 40 * SECOND_US),
                reading(number, pi_tag="fast", received_us=at, event_us=at + 50 * SECOND_US),
            ],
            [],
        )
        clock.pass_(2)
    statistics = collected(journal, clock)
    none = dict.fromkeys(STATES, 0)
    assert statistics.tags.by_state(clock.now_us()) == (2, none | {"ahead": 1, "behind": 1})
    clock.pass_(31)
    catch_up(statistics)
    _, counts = statistics.tags.by_state(clock.now_us())
    assert counts["stale"] == 2
    _, found = statistics.tags.page(Wanted(state="ahead"), clock.now_us())
    assert names(found) == ["MOR/fast"]


def test_sums_beyond_what_a_number_can_be_have_no_average_and_harm_nothing(
    journal: Journal, clock: ManualClock
) -> None:
    values = [1.7e308, 1.7e308, -1.7e308, -1.7e308, 1.7e308]
    now = clock.now_us()
    journal.append(
        [
            reading(n, value=value, received_us=now, event_us=now + n)
            for n, value in enumerate(values)
        ],
        [],
    )
    journal.append(
        [
            reading(n, value=-value, received_us=now, event_us=now + 9 + n)
            for n, value in enumerate(values)
        ],
        [],
    )
    found = collected(journal, clock).tags.one("MOR", "FT-101", now)
    assert found is not None
    assert (found.readings, found.value) == (10, -1.7e308)
