"""Budgets, and Pub/Sub's limit of bytes per ordering key, on a clock that only the test moves."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.budget import Budget
from bridge.sinks import key_limit
from bridge.sinks.key_limit import LIMIT, PACE, KeyLimit
from tests.support.clock import ManualClock

PIECE = 100_000


def test_what_is_not_spent_adds_up_to_the_burst_and_no_further() -> None:
    budget = Budget(per_second=10.0, burst=5.0)
    budget.spend(5.0, now=100.0)
    assert budget.left(100.0) == 0.0
    assert budget.left(100.2) == pytest.approx(2.0)
    assert budget.left(1_000.0) == 5.0


def test_who_spends_more_than_there_is_waits_until_the_debt_is_paid() -> None:
    budget = Budget(per_second=10.0, burst=5.0)
    budget.spend(25.0, now=100.0)
    assert budget.wait(100.0, 0.0) == pytest.approx(2.0)
    assert budget.wait(101.5, 0.0) == pytest.approx(0.5)
    assert budget.wait(102.0, 0.0) == 0.0
    assert budget.wait(102.0, 1.0) == pytest.approx(0.1)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100)), min_size=1, max_size=50))
def test_over_any_time_no_more_is_spent_than_the_rate_the_burst_and_the_last_piece(
    steps: list[tuple[float, float]],
) -> None:
    budget, now, spent = Budget(per_second=7.0, burst=20.0), 0.0, 0.0
    for pause, amount in steps:
        now += pause + budget.wait(now + pause, 0.0)
        assert spent <= 20.0 + 7.0 * now + 1e-6
        budget.spend(amount, now)
        spent += amount


def use(limit: KeyLimit, clock: ManualClock, key: str, seconds: float, rate: float) -> float:
    """Write pieces as a sink would, wanting so many bytes a second; how many were written."""
    written = 0.0
    for _ in range(int(seconds * rate / PIECE)):
        clock.pass_(max(PIECE / rate, limit.ready_in(key)))
        limit.spend(key, PIECE)
        written += PIECE
    return written


def test_a_key_never_gets_more_than_the_service_takes() -> None:
    clock = ManualClock()
    limit = KeyLimit(clock)
    began = clock.monotonic()
    written = use(limit, clock, "MOR", 60, rate=5e6)
    assert written / (clock.monotonic() - began) == pytest.approx(PACE, rel=0.05)
    assert limit.usage()["MOR"] < LIMIT


def test_a_key_that_stays_below_the_limit_never_waits(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    limit = KeyLimit(clock)
    for _ in range(1_000):
        clock.pass_(0.2)
        assert limit.ready_in("MOR") == 0.0
        limit.spend("MOR", PIECE)
    assert limit.usage()["MOR"] == pytest.approx(500_000, rel=0.05)
    assert not caplog.records


def test_one_key_at_its_limit_does_not_hold_up_another() -> None:
    clock = ManualClock()
    limit = KeyLimit(clock)
    limit.spend("MOR", 10_000_000)
    assert limit.ready_in("MOR") > 10.0
    assert limit.ready_in("SIE") == 0.0


def test_a_site_that_has_to_be_paced_is_named_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    limit = KeyLimit(clock)
    with caplog.at_level(logging.WARNING):
        use(limit, clock, "MOR", 20, rate=5e6)
    lines = [record for record in caplog.records if record.name == key_limit.__name__]
    elapsed = clock.monotonic() - 100.0
    assert 1 <= len(lines) <= elapsed / 60 + 1
    fields = lines[0].__dict__["fields"]
    assert fields["site"] == "MOR"
    assert fields["limit"] == LIMIT


def test_the_use_of_a_key_that_rests_is_forgotten() -> None:
    clock = ManualClock()
    limit = KeyLimit(clock)
    limit.spend("MOR", 600_000)
    assert limit.usage() == {"MOR": pytest.approx(10_000)}
    clock.pass_(60)
    assert limit.usage()["MOR"] == pytest.approx(10_000 / 2.718, rel=0.01)
    clock.pass_(3_600)
    assert limit.usage() == {}


def test_invented_keys_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_limit, "MAX_KEYS", 3)
    limit = KeyLimit(ManualClock())
    for key in ("A", "B", "C", "A", "D"):
        limit.spend(key, 1_000_000)
    assert set(limit.usage()) == {"A", "C", "D"}
