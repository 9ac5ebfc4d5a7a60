from __future__ import annotations

import io
import json
from collections import Counter

from rich.console import Console

from bridge.cli.demo_proof import Content, Event, Found, Published, Row, proof
from bridge.cli.demo_report import Report, document, print_report

READING = Content("MOR", "FLOW", "FT-1", "2026-11-21T03:00:00.000001Z", 1.0)
LEDGER = {"balanced": True, "totals": {"duplicates": 0, "received": 2}}


def report(rows: int) -> Report:
    published = Published([READING], junk=Counter({"field_invalid": 1}))
    found = Found(
        events=[Event("m1", "e1", READING), Event("m1", "e1", READING)],
        rows=[Row("e1", READING)] * rows,
        dead_letters=["field_invalid"],
        ledger=LEDGER,
        refused=0,
        exit_code=0,
    )
    return Report(published, found, proof(published, found), log="the end")


def printed(shown: Report) -> str:
    text = io.StringIO()
    print_report(shown, Console(file=text, width=100))
    return text.getvalue()


def test_a_proof_that_holds_closes_with_the_three_counts() -> None:
    text = printed(report(rows=1))
    assert "1 readings published, 1 events in Pub/Sub, 1 rows in BigQuery: nothing lost" in text
    assert "✗" not in text
    assert "dead letters: field_invalid" in text


def test_a_proof_that_fails_marks_the_point_and_says_how_many() -> None:
    text = printed(report(rows=2))
    assert text.count("✗") == 1
    assert [line for line in text.splitlines() if "✗" in line and "copies of rows" in line]
    assert f"the proof fails in 1 of {len(report(rows=2).checks)} points" in text


def test_the_json_has_the_counts_the_checks_and_the_verdict() -> None:
    shown = json.loads(json.dumps(document(report(rows=2))))
    assert shown["proven"] is False
    assert (shown["published"], shown["pubsub"], shown["bigquery"]) == (1, 1, 2)
    assert shown["dead_letters"] == shown["junk"] == {"field_invalid": 1}
    assert shown["ledger"] == LEDGER
    failed = [check for check in shown["checks"] if not check["holds"]]
    assert failed == [
        {"name": "copies of rows in BigQuery", "expected": 0, "found": 1, "holds": False}
    ]
