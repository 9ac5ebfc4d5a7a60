"""A stop of the container while sensors go on sending: what they were told is in the cloud."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.container import Stack, stack
from tests.support.container_plant import cloud, load_on, wait_for_readings
from tests.support.poll import eventually

STOPPED = r"stopped: (\w+) \("


def test_a_stop_goes_from_the_sensors_way_in_to_the_broker(tmp_path: Path) -> None:
    with stack(tmp_path) as programs:
        assert programs.stop() == 0
        assert programs.order(STOPPED) == ["sensors", "bridge", "broker", "fatal"]


def test_what_is_acknowledged_before_and_during_a_stop_is_in_the_cloud_when_it_is_over(
    tmp_path: Path,
) -> None:
    with (
        cloud(tmp_path / "cloud") as google,
        stack(tmp_path, **google.environ) as programs,
    ):
        with load_on(programs.ports.mqtt) as load:
            wait_for_readings(load, 500)
            assert programs.stop() == 0
            google.require_all(load)

            programs.start()
            wait_for_readings(load, 100)
        google.wait_for_all(load)


def test_what_only_the_broker_has_at_a_stop_is_in_the_cloud_when_it_is_over(
    tmp_path: Path,
) -> None:
    with (
        cloud(tmp_path / "cloud") as google,
        stack(tmp_path, **google.environ) as programs,
    ):
        with load_on(programs.ports.mqtt) as load:
            wait_for_readings(load, 100)
            pile_up_in_the_broker(programs, lambda: wait_for_readings(load, 1000))
            assert programs.finish() == 0
            google.require_all(load)

            programs.start()
            wait_for_readings(load, 100)
        google.wait_for_all(load)


def pile_up_in_the_broker(programs: Stack, wait: Callable[[], None]) -> None:
    """The bridge is frozen until the way in is closed, so it has read none of what came."""
    os.kill(programs.pid("bridge"), signal.SIGSTOP)
    wait()
    programs.terminate()
    eventually(lambda: "sensors" in programs.order(STOPPED), "the way in is closed")
    os.kill(programs.pid("bridge"), signal.SIGCONT)


def test_a_stop_right_after_the_start_is_a_stop_as_well(tmp_path: Path) -> None:
    with Stack(tmp_path, {}) as programs:
        programs.start()
        eventually(lambda: "spawned: 'bridge'" in programs.log, "the bridge is started")
        assert programs.stop() == 0
