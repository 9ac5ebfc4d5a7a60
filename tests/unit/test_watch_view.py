"""What `watch` shows of given documents."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from bridge.cli.watch_view import View, lines, room_for_tags, screen

OVERVIEW: dict[str, Any] = {
    "now": "2026-11-21T15:00:00.000000Z",
    "environment": "PRD",
    "verdict": "wrong",
    "findings": [
        {
            "level": "wrong",
            "what": "bigquery needs an operator",
            "since": "2026-11-21T14:00:00.000000Z",
            "remedy": "Run provision.",
        }
    ],
    "rates": {"received": 1234.5},
    "sinks": [
        {
            "name": "bigquery",
            "pending": 12_000,
            "oldest_pending_seconds": 3_700.0,
            "held": "no table",
            "last_error": "not_found: x",
            "settled_per_second": 0.0,
            "latency_p50_seconds": 0.012,
            "latency_p99_seconds": None,
        }
    ],
    "journal": {"bytes": 50, "max_bytes": 200, "seconds_until_full_without_sinks": 90_000.0},
    "dead_letters_total": 3,
    "sites_total": 2,
    "tags_total": None,
}
TAG: dict[str, Any] = {
    "site": "MOR",
    "pi_tag": "SX1-\x1b[31mFLOW",
    "last_value": 12.25,
    "average_1m": 12.5,
    "average_5m": None,
    "average_30m": 1234567.8,
    "count_30m": 30,
    "age_seconds": 2.0,
    "states": ["stale", "behind"],
}
WHOLE = View(OVERVIEW, {"total": 1, "tags": [TAG]})


def drawn(view: View, width: int = 120) -> str:
    file = io.StringIO()
    Console(file=file, width=width, height=40, force_terminal=True, color_system=None).print(
        screen(view)
    )
    return file.getvalue()


def test_a_block_of_lines_has_everything_and_nothing_for_a_terminal() -> None:
    block = list(lines(WHOLE))
    assert block == [
        "2026-11-21T15:00:00.000000Z PRD ✗ something is wrong; received 1,234.5/s, journal 25.0% "
        "full, lasts 25 h without sinks, dead letters 3, sites 2, tags –",
        "  wrong: bigquery needs an operator (since 2026-11-21T14:00:00Z). Run provision.",
        "  sink bigquery, settled/s 0, backlog 12,000, oldest 62 min, p50 12 ms, p99 –, "
        "error no table",
        "  tag MOR/SX1-\\x1b[31mFLOW, last 12.25, 1 min 12.5, 5 min –, 30 min 1,234,567.8, "
        "count 30, age 2.00 s, state stale behind",
    ]
    assert all(line.isprintable() for line in block)


def test_why_there_are_no_tags_is_said() -> None:
    view = View(OVERVIEW, None, missing="there are no figures of tags just now: no room")
    assert "no room" in list(lines(view))[-1]
    assert "no room" in drawn(view)


@pytest.mark.parametrize("words", ["✗ something is wrong", "12,000", "62 min", "no table", "12.5"])
def test_the_screen_shows_the_same(words: str) -> None:
    assert words in drawn(WHOLE)


def test_what_a_sensor_is_called_moves_no_terminal() -> None:
    assert "\x1b[31m" not in drawn(WHOLE)
    assert "\\x1b[31mFLOW" in drawn(WHOLE)


def test_while_there_is_no_answer_the_last_one_stays_below_the_reason() -> None:
    shown = drawn(WHOLE._replace(problem="no answer since 15:00"))
    assert shown.index("no answer since 15:00") < shown.index("12,000")
    assert "no answer" in drawn(View(problem="no answer since 15:00"))


@pytest.mark.parametrize("height", [24, 50])
def test_the_screen_is_no_higher_than_the_terminal(height: int) -> None:
    tags = [TAG] * room_for_tags(height, OVERVIEW)
    shown = drawn(View(OVERVIEW, {"total": 900, "tags": tags}, problem="no answer"))
    assert len(shown.splitlines()) <= height


def test_a_narrow_terminal_still_shows_one_line_a_tag() -> None:
    shown = drawn(View(OVERVIEW, {"total": 2, "tags": [TAG, TAG]}), width=60)
    assert sum("MOR" in line for line in shown.splitlines()) == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (-0.5, "-0.5"), (1e-7, "1e-07"), (12345.6789, "12,345.679"), (2.5e12, "2.5e+12")],
)
def test_values_are_short_and_never_rounded_to_nothing(value: float, shown: str) -> None:
    block = list(lines(View(OVERVIEW, {"total": 1, "tags": [TAG | {"last_value": value}]})))
    assert f"last {shown}," in block[-1]
