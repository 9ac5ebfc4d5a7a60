"""What the daemon says of itself while it runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.journal import Journal
from bridge.parsing.identity import canonical_json
from bridge.reports import Reports
from tests.support.clock import ManualClock
from tests.support.journals import Limits, opened, settle_everything
from tests.support.readings import reading

MIB = 1024**2
NOTE = canonical_json({"note": "x" * 500})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def journal(tmp_path: Path, clock: ManualClock) -> Iterator[Journal]:
    with opened(tmp_path / "journal.db", Limits(max_bytes=MIB), clock) as made:
        yield made


def fill(journal: Journal, share: float) -> int:
    count = 0
    while journal.used_bytes < share * journal.ceiling_bytes:
        journal.append([reading(n, "NEV", attributes=NOTE) for n in range(count, count + 20)], [])
        count += 20
    return count


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, dict[str, Any]]]:
    found = [(record.levelno, vars(record).get("fields", {})) for record in caplog.records]
    caplog.clear()
    return found


def test_from_80_percent_on_the_sink_and_the_site_that_fill_it_are_named(
    journal: Journal, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    reports = Reports(journal, ["pubsub", "bigquery"], clock)
    fill(journal, 0.7)
    reports.look()
    assert lines(caplog) == []
    fill(journal, 0.82)
    settle_everything(journal, ["pubsub"])
    clock.pass_(1)  # only on its way
    reports.look()
    assert lines(caplog) == []
    clock.pass_(2)
    reports.look()
    ((level, fields),) = lines(caplog)
    assert level == logging.WARNING
    assert (fields["sink"], fields["site"]) == ("bigquery", "NEV")
    assert 80 <= fields["percent"] < 100
    fill(journal, 1.0)
    reports.look()
    ((level, fields),) = lines(caplog)
    assert level == logging.ERROR
    assert (fields["sink"], fields["site"]) == ("bigquery", "NEV")


def test_settled_readings_are_no_reason_for_a_warning(
    journal: Journal, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    reports = Reports(journal, ["pubsub", "bigquery"], clock)
    fill(journal, 0.82)
    settle_everything(journal)
    reports.look()
    assert lines(caplog) == []


def test_a_line_a_minute_says_what_came_and_went_since_the_last_one(
    journal: Journal, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    journal.append([reading(1)], [])
    reports = Reports(journal, ["pubsub", "bigquery"], clock)
    journal.append([reading(2), reading(3), reading(1)], [])
    settle_everything(journal, ["pubsub"])
    clock.pass_(59)
    reports.look()
    assert lines(caplog) == []
    clock.pass_(1)
    reports.look()
    clock.pass_(60)
    reports.look()
    (_, first), (_, second) = lines(caplog)
    assert first["received"] == 3
    assert (first["accepted"], first["duplicates"], first["rejected"]) == (2, 1, 0)
    assert (first["settled_pubsub"], first["settled_bigquery"]) == (3, 0)
    assert (first["pending_pubsub"], first["pending_bigquery"]) == (0, 3)
    assert second["received"] == second["settled_pubsub"] == 0


def test_the_time_until_it_is_full_follows_the_rate_of_growth(
    journal: Journal, clock: ManualClock
) -> None:
    reports = Reports(journal, ["pubsub", "bigquery"], clock)
    assert reports.seconds_until_full() == float("inf")
    reports.look()
    clock.pass_(10)
    reports.look()
    assert reports.seconds_until_full() == float("inf")
    before = journal.used_bytes
    fill(journal, 0.5)
    clock.pass_(10)
    reports.look()
    rate = (journal.used_bytes - before) / 20
    left = journal.ceiling_bytes - journal.used_bytes
    assert reports.seconds_until_full() == pytest.approx(left / rate)
