"""What keeps the container's programs running, and what ends them all."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bridge.cli.processes import listens
from tests.support.container import Stack, stack
from tests.support.container_plant import cloud, load_on, wait_for_readings
from tests.support.poll import eventually


def test_the_way_in_opens_only_once_the_bridge_is_subscribed(tmp_path: Path) -> None:
    with Stack(tmp_path, {}) as programs:
        programs.start()
        programs.wait_until_open()
        assert programs.ready
        assert programs.log.index('"message":"subscribed: ') >= 0


def test_every_program_is_started_again_after_a_kill_and_nothing_is_lost(tmp_path: Path) -> None:
    with (
        cloud(tmp_path / "cloud") as google,
        stack(tmp_path, **google.environ) as programs,
    ):
        with load_on(programs.ports.mqtt) as load:
            for name in ("bridge", "sensors", "broker"):
                wait_for_readings(load, 100)
                programs.kill(name)
            wait_for_readings(load, 100)
        google.wait_for_all(load)
        eventually(lambda: programs.ready, "the bridge is ready")
        assert programs.stop() == 0


def test_every_program_is_heard_on_standard_output(tmp_path: Path) -> None:
    with stack(tmp_path) as programs:
        assert listens(programs.ports.mqtt)  # which HAProxy tells of, as of everybody
        eventually(lambda: "New client connected from" in programs.log, "the broker is heard")
        eventually(lambda: '"message":"subscribed: ' in programs.log, "the bridge is heard")
        eventually(lambda: "supervisord started with pid" in programs.log, "Supervisor is heard")
        assert programs.stop() == 0


def test_a_broker_that_cannot_be_kept_running_ends_the_container(tmp_path: Path) -> None:
    # Without a broker, the bridge waits for all of its time to take what the broker holds.
    with stack(tmp_path, DRAIN_SECONDS="1") as programs:
        (programs.run_directory / "mosquitto.conf").write_text("no_such_option\n")
        programs.kill("broker")
        assert programs.finish() == 70
        assert "broker ended again and again at its start: stopping everything" in programs.log
        assert programs.order(r"stopped: (\w+) \(")[:2] == ["sensors", "bridge"]


def test_a_way_in_that_cannot_be_opened_ends_the_container(tmp_path: Path) -> None:
    with Stack(tmp_path, {}) as programs, socket.socket() as taken:
        taken.bind(("127.0.0.1", programs.ports.mqtt))
        taken.listen()
        programs.start()
        assert programs.finish() == 70
        assert "sensors ended again and again at its start: stopping everything" in programs.log


def test_a_bridge_whom_another_start_would_not_help_ends_the_container(tmp_path: Path) -> None:
    with Stack(tmp_path, {"JOURNAL_PATH": str(tmp_path)}) as programs:  # a directory
        programs.start()
        assert programs.finish() == 70
        assert "bridge ended again and again at its start: stopping everything" in programs.log


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MQTT_SECURITY", "none"), ("PORT", "no port"), ("RUN_DIRECTORY", "run"), ("APP_ENV", "TEST")],
)
def test_a_bad_variable_ends_the_start_with_78_before_anything_runs(
    variable: str, value: str, tmp_path: Path
) -> None:
    with Stack(tmp_path, {variable: value}) as programs:
        programs.start()
        assert programs.finish() == 78
        assert f"{variable}={value!r}: " in programs.errors
        assert "Remedy: " in programs.errors
        assert programs.log == ""
