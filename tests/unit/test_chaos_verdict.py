"""What counts as lost, doubled and out of order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from chaos.verdict import Arrived, Verdict, judge

SENT = {"MOR": range(5), "BAG": range(3)}
ALL = {"MOR": [0, 1, 2, 3, 4], "BAG": [0, 1, 2]}


def judged(
    events: dict[str, Sequence[int]] = ALL,  # type: ignore[assignment]
    rows: dict[str, Sequence[int]] = ALL,  # type: ignore[assignment]
    refused: dict[str, set[int]] | None = None,
    **more: Any,
) -> Verdict:
    return judge(SENT, Arrived(events, rows), refused or {}, **more)


def test_all_there_once_and_in_order_holds() -> None:
    verdict = judged()
    assert verdict.holds
    assert (verdict.acknowledged, verdict.pubsub, verdict.bigquery) == (8, 8, 8)


def test_an_acknowledged_reading_that_is_in_one_sink_only_is_lost_in_the_other() -> None:
    verdict = judged(events={**ALL, "MOR": [0, 1, 3, 4]})
    assert (verdict.lost_pubsub, verdict.lost_bigquery) == (1, 0)
    assert not verdict.holds
    verdict = judged(rows={"MOR": [0, 1, 2, 3, 4]})
    assert (verdict.lost_pubsub, verdict.lost_bigquery) == (0, 3)
    assert not verdict.holds


def test_copies_in_pubsub_are_counted_and_allowed() -> None:
    verdict = judged(events={**ALL, "MOR": [0, 1, 2, 1, 2, 3, 4]})
    assert (verdict.copies, verdict.inversions) == (2, 0)
    assert verdict.holds


def test_a_first_occurrence_after_a_later_one_is_out_of_order() -> None:
    verdict = judged(events={**ALL, "MOR": [0, 2, 1, 3, 4, 2]})
    assert verdict.inversions == 1
    assert verdict.findings == ("MOR: 1 arrived right after 2",)
    assert not verdict.holds


def test_the_order_of_rows_and_of_sites_does_not_matter() -> None:
    assert judged(rows={"BAG": [2, 1, 0], "MOR": [4, 3, 2, 1, 0]}).holds


def test_a_second_row_is_doubled() -> None:
    verdict = judged(rows={**ALL, "BAG": [0, 1, 1, 1, 2]})
    assert verdict.doubled_rows == 2
    assert not verdict.holds


def test_what_was_never_sent_is_strange() -> None:
    assert judged(events={**ALL, "BAG": [0, 1, 2, 9]}).strange == 1
    assert not judged(rows={**ALL, "BAG": [0, 1, 2, 9]}).holds
    assert judged(rows={**ALL, "SIE": [3]}).strange == 1


def test_the_reading_whose_acknowledgement_the_sensor_did_not_wait_for_may_be_there() -> None:
    assert judged(events={**ALL, "BAG": [0, 1, 2, 3]}).holds


def test_what_bigquery_was_told_to_refuse_is_a_dead_letter_and_not_lost() -> None:
    verdict = judged(rows={**ALL, "MOR": [0, 1, 3, 4]}, refused={"MOR": {2}})
    assert (verdict.dead_letters, verdict.lost) == (1, 0)
    assert verdict.holds


def test_what_bigquery_was_told_to_refuse_and_is_there_is_a_finding() -> None:
    verdict = judged(refused={"MOR": {2}})
    assert verdict.findings
    assert not verdict.holds


@pytest.mark.parametrize("finding", ["the ledger does not balance"])
def test_a_finding_of_the_scenario_fails_it(finding: str) -> None:
    assert not judged(findings=[finding]).holds
