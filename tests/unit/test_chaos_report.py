"""What the report says."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console

from chaos import report
from chaos.runner import Result
from chaos.scenario import Scenario
from chaos.verdict import Arrived, judge

SCENARIO = Scenario("kill-9", "bridge", "kill -9 again and again", lambda _rig: None)
SENT = {"MOR": range(1_234)}
GOOD = Result(
    SCENARIO, 3.2, judge(SENT, Arrived({"MOR": range(1_234)}, {"MOR": range(1_234)}), {}, 0.4)
)
BAD = Result(
    Scenario("cut", "broker", "the connection ends", lambda _rig: None),
    5.0,
    judge(SENT, Arrived({"MOR": range(1_234)}, {"MOR": [*range(1_200), 7]}), {}, 0.0, ["odd"]),
)
BROKEN = Result(Scenario("hang", "broker", "hangs", lambda _rig: None), 60.0, None, "not ready")


def test_the_summary_says_how_many_readings_came_through_what() -> None:
    assert report.summary([GOOD, GOOD]) == (
        "2 scenarios, 2,468 readings: nothing lost, nothing doubled, nothing out of order."
    )


def test_the_summary_counts_what_fails() -> None:
    assert report.summary([GOOD, BAD, BROKEN]).startswith("2 of 3 scenarios fail")


def test_flaws_are_said_in_words() -> None:
    assert report.flaws(GOOD) == ""
    assert report.flaws(BAD) == "34 lost in BigQuery; 1 rows doubled; odd"
    assert report.flaws(BROKEN) == "not ready"


def test_the_page_has_a_section_a_group_and_a_line_a_scenario(tmp_path: Path) -> None:
    report.write([GOOD, BAD, BROKEN], tmp_path / "out")
    page = (tmp_path / "out" / "report.md").read_text()
    assert "## bridge" in page
    assert "## broker" in page
    assert "`kill-9`: kill -9 again and again | 1,234 |" in page
    assert "✗ 34 lost in BigQuery" in page


def test_the_document_has_every_figure(tmp_path: Path) -> None:
    report.write([GOOD, BROKEN], tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["holds"] is False
    good, broken = document["scenarios"]
    assert good["verdict"]["acknowledged"] == 1_234
    assert good["verdict"]["lost"] == 0
    assert good["verdict"]["recovery_seconds"] == 0.4
    assert (broken["verdict"], broken["error"]) == (None, "not ready")


def test_the_table_shows_each_scenario() -> None:
    console = Console(record=True, width=160)
    console.print(report.table([GOOD, BAD, BROKEN]))
    text = console.export_text()
    assert "kill-9" in text
    assert text.count("✗") == 2
