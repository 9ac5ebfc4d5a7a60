from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bridge.cli.demo_proof import Content, Event, Found, Published, Row, inversions, once, proof
from bridge.cli.readings import Sample
from bridge.cli.traffic import Outgoing

READINGS = [
    Content(site, "FLOW", f"FT-{site}", f"2026-11-21T03:00:00.{number:06d}Z", number / 2)
    for number in range(5)
    for site in ("MOR", "BAG")
]


def published() -> Published:
    return Published(list(READINGS), duplicates=3, junk=Counter({"field_invalid": 2}))


def events(contents: list[Content]) -> list[Event]:
    return [Event(f"m{index}", _id(content), content) for index, content in enumerate(contents)]


def found(**changes: Any) -> Found:
    whole: dict[str, Any] = {
        "events": events(READINGS),
        "rows": [Row(_id(content), content) for content in READINGS],
        "dead_letters": ["field_invalid", "field_invalid"],
        "ledger": {"balanced": True, "totals": {"duplicates": 3, "received": 15}},
        "refused": 0,
        "exit_code": 0,
    }
    return Found(**{**whole, **changes})


def _id(content: Content) -> str:
    return f"{content.site}/{content.event_time}"


def failing(**changes: Any) -> list[str]:
    return [check.name for check in proof(published(), found(**changes)) if not check.holds]


def test_the_proof_holds_when_all_that_was_sent_is_there_once_and_in_order() -> None:
    assert failing() == []


def test_the_order_between_sites_does_not_matter() -> None:
    assert failing(events=events(sorted(READINGS, key=lambda content: content.site))) == []


def test_a_message_that_pubsub_hands_out_twice_is_one() -> None:
    twice = events(READINGS)
    assert failing(events=[twice[0], *twice, twice[3]]) == []
    assert once([twice[0], *twice, twice[3]]) == twice


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"events": events(READINGS[1:])}, "events in Pub/Sub, as they were sent"),
        ({"events": events([*READINGS, READINGS[2]])}, "copies of events in Pub/Sub"),
        (
            {"events": events([READINGS[2], READINGS[0], READINGS[1], *READINGS[3:]])},
            "events out of order within their site",
        ),
        (
            {"events": events([READINGS[0]._replace(value=-1.0), *READINGS[1:]])},
            "events in Pub/Sub, as they were sent",
        ),
        ({"rows": found().rows[:-1]}, "rows in BigQuery, as they were sent"),
        ({"rows": [*found().rows, found().rows[0]]}, "copies of rows in BigQuery"),
        (
            {"rows": [found().rows[0]._replace(event_id="other"), *found().rows[1:]]},
            "rows whose id no event has",
        ),
        ({"dead_letters": ["field_invalid"]}, "dead letters: field_invalid"),
        (
            {"dead_letters": ["field_invalid"] * 2 + ["field_missing"]},
            "dead letters: field_missing",
        ),
        (
            {"ledger": {"balanced": False, "totals": {"duplicates": 3, "received": 15}}},
            "the ledger balances",
        ),
        (
            {"ledger": {"balanced": True, "totals": {"duplicates": 2, "received": 15}}},
            "duplicates recognised",
        ),
        (
            {"ledger": {"balanced": True, "totals": {"duplicates": 3, "received": 14}}},
            "messages the bridge counted",
        ),
        ({"refused": 1}, "messages the broker refused"),
        ({"exit_code": 75}, "exit code of the bridge, drained"),
    ],
)
def test_the_proof_fails_in_the_point_that_does_not_hold(
    changes: dict[str, Any], failed: str
) -> None:
    assert failed in failing(**changes)


def test_two_readings_with_one_event_id_are_seen() -> None:
    same = [event._replace(event_id="same") for event in events(READINGS)]
    assert "event ids in Pub/Sub" in failing(events=same)


def test_a_copy_behind_later_readings_is_no_inversion() -> None:
    assert inversions(published(), [*READINGS, READINGS[0]]) == 0


def test_each_step_back_within_a_site_is_one_inversion() -> None:
    mor = [content for content in READINGS if content.site == "MOR"]
    assert inversions(published(), [mor[2], mor[0], mor[1], mor[4], mor[3]]) == 2


def test_what_is_published_is_noted_by_kind() -> None:
    sample = Sample("MOR", "FLOW", "FT-1", "2026-11-21T03:00:00.000001Z", "12.50")
    noted = Published()
    noted.add(Outgoing("t", b"", "reading", sample))
    noted.add(Outgoing("t", b"", "duplicate", sample))
    noted.add(Outgoing("t", b"", "junk", sample, "field_missing"))
    assert noted.readings == [Content("MOR", "FLOW", "FT-1", "2026-11-21T03:00:00.000001Z", 12.5)]
    assert noted.duplicates == 1
    assert noted.junk == {"field_missing": 1}
    assert noted.messages == 3
