"""When the watchdog ends the process, and when it knows better."""

from __future__ import annotations

import pytest

from bridge.watch import EXIT_SECONDS, STALLED_SECONDS, Watch
from tests.support.clock import ManualClock

PARTS = ("the intake", "the HTTP server")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def watch(clock: ManualClock) -> Watch:
    return Watch(clock, PARTS)


def run(watch: Watch, clock: ManualClock, seconds: int, *beating: str) -> str | None:
    """Look every second while these parts beat; the first finding."""
    for _ in range(seconds):
        clock.pass_(1)
        for part in beating:
            watch.beat(part)
        if found := watch.look():
            return found
    return None


def test_while_all_parts_beat_nothing_is_found(watch: Watch, clock: ManualClock) -> None:
    assert run(watch, clock, 300, *PARTS) is None
    assert watch.stalled() is None


@pytest.mark.parametrize("silent", PARTS)
def test_a_silent_part_is_named_before_the_health_check_fails(
    watch: Watch, clock: ManualClock, silent: str
) -> None:
    (beating,) = set(PARTS) - {silent}
    began = clock.monotonic()
    found = run(watch, clock, 100, beating)
    assert found == f"{silent} has made no progress for 50 s"
    assert clock.monotonic() - began == EXIT_SECONDS < STALLED_SECONDS
    assert watch.stalled() is None


def test_the_health_check_fails_after_a_minute_also_when_nobody_looks(
    watch: Watch, clock: ManualClock
) -> None:
    for _ in range(59):
        clock.pass_(1)
        watch.beat("the HTTP server")
        assert watch.stalled() is None
    clock.pass_(1)
    watch.beat("the HTTP server")
    assert watch.stalled() == "the intake has made no progress for 60 s"


def test_a_part_that_beats_again_is_well_again(watch: Watch, clock: ManualClock) -> None:
    assert run(watch, clock, 45, "the HTTP server") is None
    watch.beat("the intake")
    assert run(watch, clock, 45, "the HTTP server") is None


@pytest.mark.parametrize("first", ["look", "stalled", "beat"])
@pytest.mark.parametrize("seconds", [16, 60, 86_400])
def test_a_process_that_was_stopped_as_a_whole_is_forgiven_whoever_asks_first(
    watch: Watch, clock: ManualClock, seconds: float, first: str
) -> None:
    assert run(watch, clock, 40, "the HTTP server") is None
    clock.pass_(seconds)
    if first == "beat":
        watch.beat("the HTTP server")
    else:
        assert getattr(watch, first)() is None
    assert watch.look() is None
    assert watch.stalled() is None
    assert run(watch, clock, 49, "the HTTP server") is None


def test_after_a_pause_a_part_that_stays_silent_is_found_all_the_same(
    watch: Watch, clock: ManualClock
) -> None:
    clock.pass_(3600)
    assert run(watch, clock, 60, "the HTTP server") == "the intake has made no progress for 50 s"


def test_a_main_thread_that_hangs_is_no_pause_while_the_http_server_beats(
    watch: Watch, clock: ManualClock
) -> None:
    for _ in range(10):  # nobody looks; the server beats every six seconds
        clock.pass_(6)
        watch.beat("the HTTP server")
    assert watch.stalled() == "the intake has made no progress for 60 s"


def test_a_jump_of_the_wall_clock_is_no_progress_and_no_stall(
    watch: Watch, clock: ManualClock
) -> None:
    clock.jump(1e6)
    assert run(watch, clock, 10, *PARTS) is None
    clock.jump(-1e6)
    assert run(watch, clock, 40, "the HTTP server") is None
