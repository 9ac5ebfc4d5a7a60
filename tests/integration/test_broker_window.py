from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from bridge.cli.broker import Broker, find_mosquitto
from chaos.broker_window import SHIPPED, Bench, State, Variant, account, main

NEVER_WRITTEN = Variant("never", ("autosave_interval 0",))


def bench(binary: Path | None = None) -> Bench:
    return Bench(Random(1), messages=600, rate=1_000, binary=binary)


@pytest.mark.parametrize("state", State)
def test_whatever_was_acknowledged_before_a_kill_is_handed_over_or_counted_as_lost(
    state: State,
) -> None:
    result = bench().run(SHIPPED, state)
    assert result.acknowledged > 0
    assert result.acknowledged == result.handed_over + result.lost
    assert result.session_survived


@pytest.mark.parametrize("state", State)
def test_a_broker_that_is_stopped_in_order_loses_nothing(state: State) -> None:
    result = bench().run(SHIPPED, state, Broker.stop)
    assert result.acknowledged > 0
    assert (result.handed_over, result.lost) == (result.acknowledged, 0)
    assert result.session_survived


@pytest.mark.parametrize("state", [State.ABSENT, State.SILENT])
def test_without_a_snapshot_a_kill_loses_everything_but_the_session(state: State) -> None:
    result = bench().run(NEVER_WRITTEN, state)
    assert result.acknowledged > 0
    assert (result.handed_over, result.lost) == (0, result.acknowledged)
    assert result.session_survived
    # 600 messages at 1,000 a second, cut short in the second half.
    assert 0.1 < result.window < 10


def test_the_window_is_the_age_of_the_oldest_message_that_is_lost() -> None:
    result = account({1: 10.0, 2: 11.0, 3: 12.0, 4: 13.0}, {1, 3, 99}, ended=13.5)
    assert (result.acknowledged, result.handed_over, result.lost) == (4, 2, 2)
    assert result.window == 2.5


def test_where_nothing_is_lost_there_is_no_window() -> None:
    assert account({1: 10.0}, {1}, ended=13.5).window == 0


def test_an_acknowledgement_that_was_read_after_the_kill_is_no_older_than_it() -> None:
    assert account({1: 13.6}, set(), ended=13.5).window == 0


def test_another_broker_than_the_machines_can_be_measured(tmp_path: Path) -> None:
    binary = tmp_path / "other"
    binary.write_text(f'#!/bin/sh\ntouch {tmp_path}/ran\nexec {find_mosquitto()} "$@"\n')
    binary.chmod(0o755)
    assert bench(binary).full_speed(SHIPPED) > 0
    assert (tmp_path / "ran").exists()


def test_the_command_prints_a_row_for_each_state_of_the_session() -> None:
    few = ["--rounds", "1", "--messages", "200", "--settings", "as shipped"]
    printed = CliRunner().invoke(main, [*few, "--format", "json"], catch_exceptions=False)
    document = json.loads(printed.stdout)
    assert document["broker"].startswith("mosquitto version")
    rows = document["rows"]
    assert [row["state"] for row in rows] == ["absent", "silent", "present"]
    assert all(row["acknowledged"] == row["handed_over"] + row["lost"] for row in rows)
    assert all(row["full_speed"] > 0 for row in rows)


def test_the_table_keeps_its_figures_whole() -> None:
    few = ["--rounds", "1", "--messages", "200", "--settings", "every 100 changes"]
    printed = CliRunner().invoke(main, few, catch_exceptions=False)
    assert printed.exit_code == 0
    assert sum(" every 100 changes " in line for line in printed.stdout.splitlines()) == 3


def test_settings_that_are_not_in_the_table_are_refused_with_those_that_are() -> None:
    printed = CliRunner().invoke(main, ["--settings", "by magic"])
    assert printed.exit_code == 2
    assert "by magic" in printed.stderr
    assert "as shipped" in printed.stderr
