from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.cli.main import cli
from bridge.cli.simulate import Sites


def test_sites_are_a_number_or_names() -> None:
    assert Sites().convert("2", None, None) == ("MOR", "BAG")
    assert Sites().convert("Sierrita,Süd 2", None, None) == ("Sierrita", "Süd 2")


@pytest.mark.parametrize("sites", ["0", "A,", "A/B", "+", " A", "x" * 129])
def test_sites_that_the_bridge_would_refuse_are_wrong_usage(sites: str) -> None:
    result = CliRunner().invoke(cli, ["simulate", "--sites", sites])
    assert result.exit_code == 2
    assert "--sites" in result.stderr


@pytest.mark.parametrize("option", ["--sites=2", "--tags=2", "--rate=2", "--attributes"])
def test_options_for_made_up_readings_do_not_go_with_a_recording(
    tmp_path: Path, option: str
) -> None:
    path = tmp_path / "recording.csv"
    path.write_text("timestamp,site_code,pi_tag,sensor_id,value\n")
    result = CliRunner().invoke(cli, ["simulate", "--csv", str(path), option])
    assert result.exit_code == 2
    assert option.split("=")[0] in result.stderr


def test_a_speed_goes_with_a_recording_only() -> None:
    result = CliRunner().invoke(cli, ["simulate", "--speed", "2"])
    assert result.exit_code == 2
    assert "--csv" in result.stderr


@pytest.mark.parametrize("option", ["--rate=-1", "--count=0", "--duration=0", "--junk=101"])
def test_numbers_out_of_their_range_are_wrong_usage(option: str) -> None:
    assert CliRunner().invoke(cli, ["simulate", option]).exit_code == 2
