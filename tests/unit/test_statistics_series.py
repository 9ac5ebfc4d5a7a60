"""Rates, percentiles, trends and forecasts out of samples."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from bridge.histogram import LATENCY_BOUNDS, Histogram
from bridge.snapshot import State
from bridge.statistics import Statistics
from bridge.statistics.latency import percentile
from bridge.statistics.sampler import Since
from bridge.statistics.series import (
    KeyTrends,
    Recorder,
    Sample,
    SiteCounters,
    seconds_until,
    slope,
)
from tests.support.clock import ManualClock
from tests.support.daemon import calm_state, sink_state
from tests.support.journals import Limits, opened, settle_everything
from tests.support.readings import reading


def recorded(*received: int) -> Recorder:
    recorder = Recorder()
    for number, count in enumerate(received):
        recorder.add(Sample(10.0 * number, 1_000 + 10 * number, count, 0, {}))
    return recorder


def test_a_rate_is_over_the_last_minute_and_unknown_before_the_second_sample() -> None:
    assert recorded().series().rate(lambda sample: sample.received) is None
    assert recorded(50).series().rate(lambda sample: sample.received) is None
    assert recorded(50, 70).series().rate(lambda sample: sample.received) == 2.0
    series = recorded(0, 9_000, *range(9_010, 9_070, 10)).series()
    assert series.rate(lambda sample: sample.received) == pytest.approx(1.0)


def test_rates_between_samples_begin_with_none_and_a_counter_that_fell_gives_zero() -> None:
    series = recorded(0, 20, 20, 5, 15).series()
    assert series.rates(lambda sample: sample.received) == [None, 2.0, 0.0, 0.0, 1.0]
    assert recorded().series().rates(lambda sample: sample.received) == []


def test_samples_go_back_35_minutes_and_no_further() -> None:
    samples = recorded(*range(500)).series().samples
    assert samples[-1].at - samples[0].at == 35 * 60


def test_a_sample_is_due_every_ten_seconds() -> None:
    recorder = Recorder()
    assert recorder.due(0.0)
    recorder.add(Sample(0.0, 0, 0, 0, {}))
    assert not recorder.due(9.9)
    assert recorder.due(10.0)


def test_sites_that_appeared_in_between_had_nothing_before() -> None:
    counters = SiteCounters()
    counters.add(0.0, array("q", [100]))
    assert counters.rates() == []
    counters.add(10.0, array("q", [150, 20]))
    assert counters.rates() == [5.0, 2.0]


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 0.0075), (0.9, 0.0095), (0.99, 0.00995), (1.0, 0.01)]
)
def test_a_percentile_lies_evenly_within_its_bucket(share: float, expected: float) -> None:
    histogram = Histogram(LATENCY_BOUNDS)
    before = histogram.counts()
    histogram.observe_ascending([0.008] * 100)
    after = histogram.counts()
    found = percentile(share, after.bounds, before.cumulative, after.cumulative)
    assert found == pytest.approx(expected)


def test_a_percentile_knows_only_what_came_in_between() -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe_ascending([0.5] * 100)
    before = histogram.counts()
    assert percentile(0.5, before.bounds, before.cumulative, before.cumulative) is None
    histogram.observe_ascending([1.5, 99.0, 99.0])
    after = histogram.counts()
    assert percentile(0.3, after.bounds, before.cumulative, after.cumulative) == pytest.approx(1.9)
    assert percentile(0.99, after.bounds, before.cumulative, after.cumulative) == 2.0


def test_a_key_that_grows_has_a_forecast_from_the_fifth_sample_on() -> None:
    trends = KeyTrends()
    for minute in range(1, 6):
        assert trends.growth("MOR") is None
        trends.look(60.0 * minute, {"MOR": 1_000.0 * minute, "BAG": 500.0})
    growth = trends.growth("MOR")
    assert growth == pytest.approx(1_000 / 60)
    assert seconds_until(1_000_000, 4_000, growth) == pytest.approx(996_000 * 60 / 1_000)
    assert seconds_until(1_000_000, 500, trends.growth("BAG")) is None
    assert seconds_until(1_000_000, 1_200_000, growth) == 0.0


def test_keys_are_sampled_once_a_minute_bounded_and_forgotten_when_unused() -> None:
    trends = KeyTrends()
    trends.look(0.0, {f"S{number}": 1.0 for number in range(1_500)})
    trends.look(30.0, {"S0": 99.0})
    for minute in range(1, 45):
        trends.look(60.0 * minute, {"S0": 1.0, "S1400": 1.0})
    assert trends.growth("S0") == pytest.approx(0.0)
    assert trends.growth("S1400") == pytest.approx(0.0)  # room was made by those that ended
    assert trends.growth("S1") is None


def test_the_slope_of_a_single_point_is_none() -> None:
    assert slope([(1.0, 5.0)]) == 0.0


def test_since_tells_when_something_began_and_a_counter_when_it_last_grew() -> None:
    since = Since()
    since.see(1, {"held": False, "error": True, "lost": 0, "letters": 7})
    assert [since.of(name) for name in ("held", "error", "lost", "letters", "?")] == [
        *(None, 1, None, None, None)
    ]
    since.see(2, {"held": True, "error": True, "lost": 1, "letters": 7})
    since.see(3, {"held": True, "error": False, "lost": 1, "letters": 8})
    assert [since.of(name) for name in ("held", "error", "lost", "letters")] == [2, None, 2, 3]


# --- the sampler over a journal -------------------------------------------------------------------


def test_the_journal_lasts_as_long_as_what_it_takes_per_entry_says(tmp_path: Path) -> None:
    clock = ManualClock()
    with opened(tmp_path / "journal.db", Limits(max_bytes=8 * 1024**2), clock) as journal:

        def state() -> State:
            each = (sink_state(name, pending=journal.pending(name)) for name in PENDING)
            return calm_state(sinks=tuple(each))

        statistics = Statistics(journal, state, clock)
        statistics.samples.look()
        assert statistics.seconds_until_full_without_sinks() is None
        journal.append([reading(n) for n in range(5_000)], [])
        settle_everything(journal)
        clock.pass_(10)
        statistics.samples.look()
        size = statistics.samples.bytes_per_entry()
        assert size is not None
        assert size == pytest.approx(journal.live_bytes / 5_000)
        # 500 a second, and what is settled makes room.
        expected = 8 * 1024**2 / (size * 500)
        assert statistics.seconds_until_full_without_sinks() == pytest.approx(expected)
        journal.append([reading(n) for n in range(5_000, 10_000)], [])
        clock.pass_(10)
        statistics.samples.look()
        size = statistics.samples.bytes_per_entry()
        assert size is not None
        left = (8 * 1024**2 - 5_000 * size) / (size * 500)
        assert statistics.seconds_until_full_without_sinks() == pytest.approx(left)


PENDING = ("pubsub", "bigquery")


def test_a_sample_has_what_the_ledger_and_the_sinks_count(tmp_path: Path) -> None:
    clock = ManualClock()
    with opened(tmp_path / "journal.db", clock=clock) as journal:
        statistics = Statistics(journal, calm_state, clock)
        for number in range(3):
            journal.append([reading(number), reading(number, "BAG")], [])
            settle_everything(journal, ["pubsub"])
            statistics.samples.look()
            statistics.samples.look()  # not due again
            clock.pass_(10)
        samples = statistics.samples.series().samples
        assert [sample.received for sample in samples] == [2, 4, 6]
        assert [sample.sinks["pubsub"].settled for sample in samples] == [2, 4, 6]
        assert [sample.sinks["bigquery"].settled for sample in samples] == [0, 0, 0]
        assert statistics.samples.site_rates() == [pytest.approx(0.1), pytest.approx(0.1)]
