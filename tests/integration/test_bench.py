"""The whole benchmark on a tiny load: that it works and adds up. How fast anything is, is not
looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.__main__ import main
from bench.measures import ALL
from bench.report import DOCUMENT, PAGE
from bench.scale import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# A backlog of nothing cost nothing.
MAY_BE_MISSING = {("growth", "cpu_us_per_reading", 0)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bench")
    done = CliRunner().invoke(main, ["--tiny", "--out", str(directory)], catch_exceptions=False)
    assert done.exit_code == 0
    return directory


@pytest.fixture(scope="module")
def found(results: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((results / DOCUMENT).read_text())
    return document


@pytest.fixture(scope="module")
def rows(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {name: section["rows"] for name, section in found["sections"].items()}


def test_every_part_was_measured(rows: dict[str, list[dict[str, Any]]]) -> None:
    assert list(rows) == list(ALL)
    assert all(rows.values())


def test_every_figure_is_present(rows: dict[str, list[dict[str, Any]]]) -> None:
    missing = {
        (section, name, row.get("size"))
        for section, found in rows.items()
        for row in found
        for name, value in row.items()
        if value is None or value == ""
    }
    assert missing <= MAY_BE_MISSING


def test_every_target_is_decided(found: dict[str, Any]) -> None:
    assert len(found["targets"]) == 21
    assert [target["words"] for target in found["targets"] if target["met"] is None] == []


def test_every_subject_takes_all_that_was_queued_for_it(
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    counts = {row["subject"]: row["readings"] for row in rows["throughput"]}
    assert len(counts) == 7
    assert counts.pop("original design") == TINY.original
    assert counts.pop("original design, services at 20 ms") == TINY.slow_original
    assert set(counts.values()) == {TINY.drained}


def test_what_is_compared_with_itself_is_equal(rows: dict[str, list[dict[str, Any]]]) -> None:
    by_subject = {row["subject"]: row for row in rows["throughput"]}
    assert by_subject["bare paho client"]["cpu_to_ceiling"] == 1
    slow = by_subject["original design, services at 20 ms"]
    assert slow["times_original_at_20_ms"] == 1


def test_each_reading_after_the_warm_up_has_a_latency_in_each_sink(
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    (rate,) = TINY.rates
    assert [(row["sites"], row["sink"], row["readings"]) for row in rows["latency"]] == [
        (sites, sink, rate * TINY.latency_seconds)
        for sites in (20, 5)
        for sink in ("pubsub", "bigquery")
    ]
    for row in rows["latency"]:
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["most_ms"]


def test_an_outage_leaves_a_backlog_that_both_sinks_catch_up(
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    assert [row["sink"] for row in rows["outage"]] == ["pubsub", "bigquery"]
    sent = TINY.live_rate * (2 + 2 * TINY.outage_seconds)
    for row in rows["outage"]:
        assert 0 < row["backlog"] <= sent
        assert row["readings_per_second"] > 0


def test_what_grows_is_measured_at_each_size(rows: dict[str, list[dict[str, Any]]]) -> None:
    sizes = [(row["of"], row["size"]) for row in rows["growth"]]
    assert sizes == [
        *(("backlog", size) for size in (0, *TINY.backlog)),
        *(("sites", size) for size in TINY.sites),
        *(("tags", size) for size in TINY.tags),
    ]


def test_each_reading_was_in_some_request_and_on_disk(
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    assert len(rows["weight"]) == 4
    for row in rows["weight"]:
        for sink in ("pubsub", "bigquery"):
            assert 0 < row[f"{sink}_requests_per_1000"] <= 1_000
        # An event is about 300 bytes of data alone, a row about 120.
        assert row["pubsub_kb_per_1000"] > 300
        assert row["bigquery_kb_per_1000"] > 100
        assert row["disk_bytes_per_reading"] > 0
        assert row["live_bytes_per_reading"] > 100


def test_what_is_billed_is_at_least_the_smallest_request_and_row(
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    assert len(rows["cost"]) == 4
    for row in rows["cost"]:
        # Gigabytes a billion are bytes a reading.
        assert row["pubsub_billed_gb_per_billion"] >= row["message_bytes"] > 150
        assert row["pubsub_billed_gb_per_billion"] >= 1_000 / row["messages_per_request"]
        assert row["bigquery_billed_gb_per_billion"] >= row["row_bytes"] > 100
        parts = row["pubsub_usd_per_billion"] + row["bigquery_usd_per_billion"]
        assert row["usd_per_billion"] == pytest.approx(parts)


def test_the_page_shows_every_part_and_every_target(results: Path, found: dict[str, Any]) -> None:
    page = (results / PAGE).read_text()
    for section in found["sections"].values():
        assert f"## {section['title']}\n" in page
    for target in found["targets"]:
        assert f"| {target['words']} | {target['wanted']} | " in page
