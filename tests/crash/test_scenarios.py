"""The quick form of every scenario: whatever breaks, nothing is lost, doubled or out of order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import report
from chaos.backlog import Measured, backlog
from chaos.runner import Runner
from chaos.scenario import Scenario
from chaos.scenarios import ALL, in_order
from chaos.soak import scenario as random_mix
from tests.support.disk import small_disk


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with Runner(tmp_path_factory.mktemp("chaos"), quick=True) as made:
        yield made


@pytest.mark.parametrize("scenario", in_order(ALL), ids=lambda scenario: str(scenario.name))
def test_nothing_is_lost_doubled_or_reordered(
    runner: Runner, scenario: Scenario, tmp_path: Path
) -> None:
    if scenario.disk_bytes:
        with small_disk(tmp_path / "disk", 1024**2):
            pass  # or the test is skipped
    result = runner.run(scenario)
    assert result.holds, report.flaws(result)
    assert result.verdict is not None
    assert result.verdict.acknowledged > 0


@pytest.mark.parametrize("number", [1, 2])
def test_a_random_mix_loses_doubles_and_reorders_nothing(runner: Runner, number: int) -> None:
    result = runner.run(random_mix(7, number))
    assert result.holds, report.flaws(result)


def test_a_backlog_drains_and_its_measurements_add_up(runner: Runner) -> None:
    measured = Measured()
    result = runner.run(backlog(4_000, measured, lambda _line: None))
    assert result.holds, report.flaws(result)
    assert result.verdict is not None
    assert result.verdict.acknowledged > 4_000
    assert list(measured.resident) == [0, 1_000, 2_000, 3_000, 4_000]
    assert all(measured.resident.values())
    assert set(measured.rates) == {"pubsub", "bigquery"}
    assert len(measured.latencies) == 3
