from __future__ import annotations

import os
import signal

import pytest

from bridge.cli.pacing import Pace, stopped_by_signal
from bridge.cli.progress import Every
from tests.support.waiting_clock import WaitingClock


def test_what_is_due_later_is_waited_for() -> None:
    clock = WaitingClock()
    assert Pace(clock, clock).due(2.5)
    assert clock.elapsed == pytest.approx(2.5)


def test_who_is_late_does_not_wait() -> None:
    clock = WaitingClock()
    pace = Pace(clock, clock)
    clock.pass_(10)
    assert pace.due(3)
    assert clock.elapsed == pytest.approx(10)


def test_a_run_ends_after_its_duration_whether_it_waits_or_is_late() -> None:
    clock = WaitingClock()
    pace = Pace(clock, clock, duration=5)
    assert pace.due(4.9)
    assert not pace.due(5)
    assert clock.elapsed == pytest.approx(4.9)
    clock.pass_(1)
    assert not pace.due(0)


def test_a_stop_ends_the_run_also_in_the_middle_of_a_wait() -> None:
    clock = WaitingClock()
    pace = Pace(clock, clock)
    clock.stopped = True
    assert not pace.due(0)
    assert not pace.due(1)


def test_the_first_signal_stops_in_order_and_the_second_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopped_by_signal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_progress_is_drawn_only_now_and_then_and_asks_for_its_words_only_then() -> None:
    clock = WaitingClock()
    drawn: list[str] = []
    progress = Every(clock, 5, drawn.append)
    asked = 0

    def words() -> str:
        nonlocal asked
        asked += 1
        return f"at {clock.elapsed:g}"

    for _ in range(26):
        progress.show(words)
        clock.pass_(0.5)
    assert drawn == ["at 5", "at 10"]
    assert asked == 2
