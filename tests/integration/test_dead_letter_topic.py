"""The whole daemon and its dead letters: to the topic, and beyond the limit of size."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.sinks import connect
from chaos.bridge_process import Bridge
from localgcp.faults import Fault
from tests.support.plant import DATASET, PROJECT, TABLE, Plant, numbered, plant, settle
from tests.support.poll import eventually

LETTER_TOPIC = "refused"
FULL_LETTER_TOPIC = f"projects/{PROJECT}/topics/{LETTER_TOPIC}"
GOOD_TOPIC = "FCTS/FAE/MOR/SolvExtract/SX1-FLOW"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Plant]:
    with plant(tmp_path) as made:
        publisher = connect.publisher(made.settings())
        # Without retention or a subscription Pub/Sub keeps nothing.
        publisher.create_topic(
            request={"name": FULL_LETTER_TOPIC, "message_retention_duration": {"seconds": 604_800}}
        )
        publisher.transport.close()
        yield made


def forwarding(site: Plant, **changes: str) -> Bridge:
    return site.bridge(PUBSUB_DEAD_LETTER_TOPIC=LETTER_TOPIC, **changes)


def bad(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    return [(GOOD_TOPIC, b"bad %d" % number) for number in range(first, first + count)]


def published(site: Plant) -> list[dict[str, Any]]:
    return [
        json.loads(message.data) for message in site.services.pubsub.messages(FULL_LETTER_TOPIC)
    ]


def payloads(site: Plant) -> set[bytes]:
    return {base64.b64decode(letter["payload_base64"]) for letter in published(site)}


def wait_published(site: Plant, messages: list[tuple[str, bytes]], seconds: float = 20) -> None:
    wanted = {payload for _, payload in messages}
    eventually(lambda: payloads(site) >= wanted, f"{len(wanted)} letters are published", seconds)


def wait_rejected(bridge: Bridge, count: int) -> None:
    eventually(lambda: bridge.ledger()["totals"]["rejected"] == count, f"{count} are refused")


def journal(bridge: Bridge) -> sqlite3.Connection:
    return sqlite3.connect(bridge.environment["JOURNAL_PATH"], timeout=10, isolation_level=None)


def stored(bridge: Bridge) -> list[bytes]:
    db = journal(bridge)
    rows = db.execute("SELECT payload FROM dead_letters ORDER BY id").fetchall()
    db.close()
    return [bytes(payload) for (payload,) in rows]


def purge(bridge: Bridge) -> None:
    db = journal(bridge)
    db.execute("DELETE FROM dead_letters")
    db.close()


# --- the topic ------------------------------------------------------------------------------------


def test_a_refused_message_is_published_with_the_contracts_members(site: Plant) -> None:
    bridge = forwarding(site)
    bridge.start()
    before = time.time()
    site.publish([("FCTS/FAE/MOR/SolvExtract/SX1-FLOW", b"\xff\x00")])
    eventually(lambda: len(published(site)) == 1, "the letter is published")
    (letter,) = published(site)
    received = letter.pop("received_at")
    detail = letter.pop("detail")
    assert letter == {
        "reason": "payload_not_utf8",
        "topic": "FCTS/FAE/MOR/SolvExtract/SX1-FLOW",
        "payload_base64": base64.b64encode(b"\xff\x00").decode(),
        "payload_bytes": 2,
        "sink": None,
    }
    assert detail
    assert time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before))[:13] == received[:13]
    assert received.endswith("Z")
    assert bridge.terminate() == 0
    assert stored(bridge) == [b"\xff\x00"]


def test_a_reading_that_a_sink_refuses_is_published_with_sink_and_event_id(site: Plant) -> None:
    site.services.tables.refuse(PROJECT, DATASET, TABLE, "value", 7.0)
    bridge = forwarding(site)
    bridge.start()
    site.publish(numbered(20, ["MOR"]))
    settle(bridge, 20)
    eventually(lambda: len(published(site)) == 1, "the letter is published")
    (letter,) = published(site)
    assert letter["sink"] == "bigquery"
    assert len(letter["event_id"]) == 32
    assert json.loads(base64.b64decode(letter["payload_base64"]))["value"] == 7.0
    assert bridge.ledger()["balanced"] is True
    assert bridge.terminate() == 0
    arrived = site.arrived()
    assert arrived.events["MOR"] == [float(number) for number in range(20)]
    assert sorted(arrived.rows["MOR"]) == [float(n) for n in range(20) if n != 7]


def test_letters_from_before_the_topic_was_set_are_published_too(site: Plant) -> None:
    bridge = site.bridge()
    bridge.start()
    site.publish(bad(30))
    wait_rejected(bridge, 30)
    assert bridge.terminate() == 0
    assert published(site) == []
    bridge = forwarding(site)
    bridge.start()
    site.publish(bad(10, first=30))
    wait_published(site, bad(40))
    assert bridge.terminate() == 0
    assert len(published(site)) == 40


def test_an_outage_of_the_topic_is_survived_and_does_not_hold_up_the_readings(site: Plant) -> None:
    bridge = forwarding(site)
    bridge.start()
    fault = site.services.faults.add(
        Fault(call="pubsub.Publish", subject="", times=None)  # letters have no ordering key
    )
    site.publish([*bad(50), *numbered(200)])
    settle(bridge, 200)
    assert published(site) == []
    site.services.faults.remove(fault)
    wait_published(site, bad(50), 40)
    assert bridge.terminate() == 0
    site.require_all(200)


def test_a_kill_in_the_middle_loses_no_letter(site: Plant) -> None:
    bridge = forwarding(site)
    bridge.start()
    fault = site.services.faults.add(
        Fault(call="pubsub.Publish", kind="answer_lost", subject="", times=2)
    )
    site.publish(bad(300))
    wait_rejected(bridge, 300)
    bridge.kill()
    site.services.faults.remove(fault)
    bridge.start()
    wait_published(site, bad(300))
    assert bridge.terminate() == 0
    # One whose acknowledgement was not read comes, and is stored, again.
    assert set(stored(bridge)) == {payload for _, payload in bad(300)}


def test_a_stop_waits_for_letters_that_are_not_published_yet(site: Plant) -> None:
    bridge = forwarding(site, DRAIN_SECONDS="15")
    bridge.start()
    fault = site.services.faults.add(Fault(call="pubsub.Publish", subject="", times=2))
    site.publish(bad(20))
    wait_rejected(bridge, 20)
    assert bridge.terminate() == 0
    wait_published(site, bad(20), 1)
    site.services.faults.remove(fault)
    forever = site.services.faults.add(Fault(call="pubsub.Publish", subject="", times=None))
    bridge = forwarding(site, DRAIN_SECONDS="0.5")
    bridge.start()
    site.publish(bad(5, first=20))
    wait_rejected(bridge, 25)
    assert bridge.terminate() == 75
    site.services.faults.remove(forever)


# --- the limit of size ----------------------------------------------------------------------------


def test_without_a_topic_refused_messages_beyond_the_limit_wait_until_there_is_room(
    site: Plant,
) -> None:
    bridge = site.bridge(DEAD_LETTER_MAX_BYTES="4000")
    bridge.start()
    site.publish([*bad(40), *numbered(500)])
    settle(bridge, 500)  # the readings behind them go on
    rejected = bridge.ledger()["totals"]["rejected"]
    assert 0 < rejected < 40
    assert bridge.ready()
    assert len(stored(bridge)) == rejected
    seen: list[bytes] = []
    while len(seen) < 40:
        found = stored(bridge)
        assert found
        seen += found
        purge(bridge)
        if len(seen) < 40:
            eventually(lambda: stored(bridge) != [], "what was left is sent again and stored")
    assert sorted(seen) == sorted(payload for _, payload in bad(40))
    ledger = bridge.ledger()
    assert ledger["balanced"] is True
    assert ledger["totals"]["rejected"] == 40
    assert bridge.terminate() == 0
    site.require_all(500)


def test_what_was_left_unacknowledged_survives_a_restart_of_the_bridge(site: Plant) -> None:
    bridge = site.bridge(DEAD_LETTER_MAX_BYTES="0")
    bridge.start()
    site.publish([*bad(5), *numbered(50)])
    settle(bridge, 50)
    assert bridge.ledger()["totals"]["rejected"] == 0
    assert bridge.terminate() == 0
    bridge = site.bridge()
    bridge.start()
    wait_rejected(bridge, 5)
    assert stored(bridge) == [payload for _, payload in bad(5)]
    assert bridge.terminate() == 0


def test_with_a_topic_letters_beyond_the_limit_go_there_only(site: Plant) -> None:
    bridge = forwarding(site, DEAD_LETTER_MAX_BYTES="4000")
    bridge.start()
    site.publish([*bad(200), *numbered(200)])
    settle(bridge, 200)
    wait_published(site, bad(200))
    wait_rejected(bridge, 200)
    eventually(lambda: len(stored(bridge)) < 30, "the journal keeps no more than its limit")
    assert bridge.terminate() == 0
    site.require_all(200)
