"""`python -m chaos` as one types it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from click.testing import CliRunner

from chaos.__main__ import main
from chaos.scenarios import ALL, in_order


def test_the_list_names_every_scenario() -> None:
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == [s.name for s in ALL]


def test_a_name_that_does_not_exist_is_told_with_a_remedy() -> None:
    result = CliRunner().invoke(main, ["run", "nonsense"])
    assert result.exit_code == 2
    assert "nonsense" in result.output
    assert "python -m chaos list" in result.output


def test_logs_are_not_left_among_other_things(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    result = CliRunner().invoke(main, ["run", "kill-9", "--keep", str(tmp_path)])
    assert result.exit_code == 2
    assert "empty" in result.output


def test_names_are_unique_and_no_group_is_called_like_a_scenario() -> None:
    names = [scenario.name for scenario in ALL]
    assert len(set(names)) == len(names)
    assert not {scenario.group for scenario in ALL} & set(names)


def test_scenarios_of_one_stage_follow_each_other() -> None:
    stages = [scenario.stage for scenario in in_order(ALL)]
    changes = sum(one != other for one, other in pairwise(stages))
    assert changes == len(set(stages)) - 1
    assert {s.name for s in in_order(ALL)} == {s.name for s in ALL}
