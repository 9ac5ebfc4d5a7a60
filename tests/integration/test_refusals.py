"""What sensors really send wrong: each reason from the broker to the dead letters, the ledger, the
metrics and the commands."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.reading import REASONS
from chaos.bridge_process import ROOT, Bridge
from tests.support.plant import Plant, numbered, plant, settle
from tests.support.poll import eventually

TOPIC = "FCTS/FAE/MOR/SolvExtract/SX1-FLOW"
LIMIT = 2_000


def payload(**changes: Any) -> bytes:
    members = {"site_code": "MOR", "sensor_id": "FT-1", "timestamp": time.time(), "value": 1.5}
    return json.dumps({**members, **changes}).encode()


def without(*names: str) -> bytes:
    members = json.loads(payload())
    return json.dumps({k: v for k, v in members.items() if k not in names}).encode()


BAD: dict[str, list[tuple[str, bytes]]] = {
    "topic_malformed": [
        ("FCTS/FAE/MOR/SolvExtract/ TAG", payload()),
        ("FCTS/FAE//SolvExtract/TAG", payload()),
        (f"FCTS/FAE/{'M' * 129}/SolvExtract/TAG", payload()),
        ("FCTS/FAE/MOR /SolvExtract/TAG", b"junk"),
    ],
    "payload_too_large": [
        (TOPIC, payload(note="x" * LIMIT)),
        (TOPIC, b"[" * (LIMIT + 1)),
        (TOPIC, b"\xff" * (LIMIT + 1)),
    ],
    "payload_not_utf8": [
        (TOPIC, payload().decode().encode("utf-16")),
        (TOPIC, b"\xff"),
        (TOPIC, payload(sensor_id="X").replace(b"X", b"\xe9")),
    ],
    "payload_not_json": [
        (TOPIC, b""),
        (TOPIC, b"{'site_code': 'MOR', 'value': 1}"),
        (TOPIC, payload().replace(b"1.5", b"NaN")),
        (TOPIC, payload().replace(b"1.5", b"-Infinity")),
        (TOPIC, b"\xef\xbb\xbf" + payload()),
        (TOPIC, b"[" * 900),
        (TOPIC, payload().replace(b"FT-1", b"\\ud800")),
        (TOPIC, b"Bad Input"),
    ],
    "payload_not_object": [(TOPIC, b"12.5"), (TOPIC, b'"Bad Input"'), (TOPIC, b"[1, 2]")],
    "field_missing": [
        (TOPIC, b"{}"),
        (TOPIC, without("value")),
        (TOPIC, without("timestamp", "site_code")),
    ],
    "field_invalid": [
        (TOPIC, payload(value="Bad Input")),
        (TOPIC, payload(value=None)),
        (TOPIC, payload(value=True)),
        (TOPIC, payload().replace(b"1.5", b"1e999")),
        (TOPIC, payload(timestamp="2026-11-21")),
        (TOPIC, payload(sensor_id="")),
        (TOPIC, payload().replace(b'"value": 1.5', b'"value": 1.5, "value": "x"')),
    ],
    "site_mismatch": [
        (TOPIC, payload(site_code="BAG")),
        (TOPIC, payload(site_code="mor")),
        (TOPIC, payload(site_code="MORENCI")),
    ],
    "timestamp_out_of_range": [
        (TOPIC, payload(timestamp=0)),
        (TOPIC, payload(timestamp=time.time() + 90_000)),
        (TOPIC, payload(timestamp=1e300)),
        (TOPIC, payload(timestamp="1999-12-31T23:59:59Z")),
    ],
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Plant]:
    with plant(tmp_path) as made:
        yield made


def listed(site: Plant, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(ROOT / "mqtt_subscriber.py"), "dead-letters", *arguments]
    done = subprocess.run(
        command, env=site.environment, capture_output=True, check=True, timeout=30
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def rejected(bridge: Bridge) -> dict[str, float]:
    families = text_string_to_metric_families(bridge.text("/metrics"))
    return {
        sample.labels["reason"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "bridge_readings_rejected_total"
    }


def test_every_reason_is_stored_shown_and_counted_and_good_readings_go_on(site: Plant) -> None:
    assert tuple(BAD) == REASONS
    assert all(len(messages) >= 3 for messages in BAD.values())
    bridge = site.bridge(MAX_PAYLOAD_BYTES=str(LIMIT))
    bridge.start()
    good = list(numbered(len(REASONS)))
    sent = [message for messages in BAD.values() for message in messages]
    for index, messages in enumerate(BAD.values()):
        site.publish([*messages, good[index]])
    settle(bridge, len(good))
    expected = Counter({reason: len(messages) for reason, messages in BAD.items()})

    letters = listed(site, "list", "--format", "json", "--limit", "-1")
    assert Counter(letter["reason"] for letter in letters) == expected
    assert [letter["topic"] for letter in reversed(letters)] == [topic for topic, _ in sent]
    for letter, (_, content) in zip(reversed(letters), sent, strict=True):
        assert letter["payload_bytes"] == len(content)
        assert letter["detail"]
        assert letter["sink"] is None
    assert {
        letter["reason"]
        for letter in listed(site, "list", "--reason", "site_mismatch", "--format", "json")
    } == {"site_mismatch"}

    totals = bridge.ledger()["totals"]
    assert totals["rejected"] == len(sent)
    assert totals["received"] == len(sent) + len(good)
    assert bridge.ledger()["balanced"] is True
    assert bridge.ledger()["sites"][""]["rejected"] == len(BAD["topic_malformed"])
    assert rejected(bridge) == {reason: float(count) for reason, count in expected.items()}
    assert bridge.status("/livez") == 200
    assert bridge.terminate() == 0
    site.require_all(len(good))


def test_members_beyond_the_four_arrive_in_both_sinks_as_equal_values(site: Plant) -> None:
    extra = {
        "unit": "m³/h",
        "quality": {"good": True, "code": 192, "notes": [None, "ok", 0.1, -3]},
        "n": 12345678901234567890,
        "float": 1e-7,
    }
    bridge = site.bridge()
    bridge.start()
    site.publish([(TOPIC, payload(**extra))])
    settle(bridge, 1)
    event = json.loads(
        site.services.pubsub.messages("projects/plant-project/topics/kpi-events")[0].data
    )
    assert event["attributes"] == extra
    (row,) = site.services.tables.rows("plant-project", "plant", "readings")
    assert json.loads(row["attributes"]) == extra
    assert row["event_id"] == event["event_id"]
    assert bridge.terminate() == 0


def test_a_flood_of_junk_does_not_keep_good_readings_out(site: Plant) -> None:
    bridge = site.bridge()
    bridge.start()
    junk = [(TOPIC, b"Bad Input %d" % number) for number in range(3_000)]
    site.publish([*junk, *numbered(500)])
    settle(bridge, 500)
    eventually(lambda: bridge.ledger()["totals"]["rejected"] == 3_000, "junk is counted")
    assert bridge.terminate() == 0
    site.require_all(500)
