"""The whole daemon with a journal, or a disk, that has no more room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from chaos.bridge_process import Bridge
from localgcp.faults import Fault
from tests.support.disk import small_disk
from tests.support.plant import SITES, Plant, numbered, plant, settle
from tests.support.poll import eventually

MIB = 1024**2
COUNT = 10_000  # about twice what fits into a mebibyte


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Plant]:
    with plant(tmp_path) as made:
        yield made


def lines(bridge: Bridge, part: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in bridge.log.splitlines() if line.startswith("{")]
    return [line for line in found if part in line["message"]]


def accepted(bridge: Bridge) -> int:
    return int(bridge.ledger()["totals"]["accepted"])


def reason(bridge: Bridge) -> str:
    """Why it is not ready; empty when it is."""
    if bridge.status("/readyz") == 200:
        return ""
    findings = json.loads(bridge.text("/api/overview"))["findings"]
    said = " ".join(finding["what"] for finding in findings)
    return next((word for word in ("the journal is full", "subscribed") if word in said), "other")


def metric(bridge: Bridge, name: str) -> float:
    (line,) = [line for line in bridge.text("/metrics").splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[-1])


def send_qos_0(port: int, count: int) -> None:
    """Readings that only this knows of."""
    client = Client(CallbackAPIVersion.VERSION2, "careless")
    client.connect("127.0.0.1", port)
    client.loop_start()
    for topic, payload in numbered(count, ["CARELESS"]):
        client.publish(topic, payload, qos=0).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def wait_accepted(bridge: Bridge, count: int) -> None:
    eventually(lambda: accepted(bridge) >= count, f"{count} are accepted")


def wait_full(bridge: Bridge) -> None:
    eventually(lambda: reason(bridge) == "the journal is full", "the journal is full", 40)


def test_with_a_sink_away_and_the_journal_full_all_waits_with_the_broker_and_follows(
    site: Plant,
) -> None:
    bridge = site.bridge(JOURNAL_MAX_BYTES=str(MIB))
    bridge.start()
    fault = site.services.faults.add(Fault(call="pubsub.Publish", times=None))
    site.publish(numbered(COUNT))
    wait_full(bridge)
    assert bridge.status("/livez") == 200
    eventually(lambda: lines(bridge, "the journal is full") != [], "it is said in the log")
    (line, *_) = lines(bridge, "the journal is full")
    assert line["severity"] == "ERROR"
    assert line["sink"] == "pubsub"
    assert line["site"] in SITES
    held = accepted(bridge)
    assert held < COUNT

    send_qos_0(site.broker.port, 20)
    eventually(lambda: metric(bridge, "bridge_qos0_dropped_total") == 20, "QoS 0 is counted")
    assert accepted(bridge) == held

    site.services.faults.remove(fault)
    settle(bridge, COUNT, 60)
    assert bridge.ready()
    ledger = bridge.ledger()
    assert ledger["balanced"] is True
    assert ledger["totals"]["accepted"] == COUNT
    assert bridge.terminate() == 0
    site.require_all(COUNT)


def test_a_full_journal_is_still_full_after_a_kill_and_nothing_is_lost_or_doubled(
    site: Plant,
) -> None:
    bridge = site.bridge(JOURNAL_MAX_BYTES=str(MIB))
    bridge.start()
    fault = site.services.faults.add(Fault(call="storage.*", times=None))
    site.publish(numbered(COUNT))
    wait_full(bridge)
    bridge.kill()
    bridge.start(wait=False)
    eventually(lambda: answers(bridge), "it runs")
    wait_full(bridge)
    site.services.faults.remove(fault)
    settle(bridge, COUNT, 60)
    assert bridge.terminate() == 0
    site.require_all(COUNT)


def answers(bridge: Bridge) -> bool:
    try:
        return bridge.status("/livez") == 200
    except OSError:
        return False


def test_before_it_is_full_the_sink_and_the_site_that_fill_it_are_named(site: Plant) -> None:
    bridge = site.bridge(JOURNAL_MAX_BYTES=str(2 * MIB))
    bridge.start()
    fault = site.services.faults.add(Fault(call="storage.*", times=None))
    sent = 0

    def said() -> bool:
        # Again and again: the log counts as well, and gets shorter by itself.
        nonlocal sent
        if metric(bridge, "bridge_journal_bytes") < 0.85 * 2 * MIB:
            site.publish(numbered(200, first=sent))
            sent += 200
            wait_accepted(bridge, sent)
        return lines(bridge, "the journal fills up") != []

    eventually(said, "it is said in the log", 60)
    assert bridge.ready()
    (line, *_) = lines(bridge, "the journal fills up")
    assert line["severity"] == "WARNING"
    assert line["sink"] == "bigquery"
    assert line["site"] in SITES
    assert line["percent"] >= 80
    site.services.faults.remove(fault)
    settle(bridge, sent)
    assert bridge.terminate() == 0
    site.require_all(sent)


def test_settled_readings_never_make_it_full(site: Plant) -> None:
    bridge = site.bridge(JOURNAL_MAX_BYTES=str(MIB), JOURNAL_RETENTION_MINUTES="600")
    bridge.start()
    for first in range(0, 2 * COUNT, 2_000):
        site.publish(numbered(2_000, first=first))
        settle(bridge, first + 2_000)
        assert bridge.ready()
    assert lines(bridge, "the journal is full") == []
    assert lines(bridge, "the journal fills up") == []
    assert metric(bridge, "bridge_dedupe_window_seconds") > 0
    assert bridge.terminate() == 0
    site.require_all(2 * COUNT)


@pytest.mark.slow
def test_on_a_full_disk_nothing_is_acknowledged_and_nothing_is_lost(
    site: Plant, tmp_path: Path
) -> None:
    # A quarter of a MiB each is for the log and the reserve.
    with small_disk(tmp_path / "disk", 2 * MIB) as disk:
        path = str(disk / "journal.db")
        bridge = site.bridge(JOURNAL_PATH=path, JOURNAL_MAX_BYTES=str(64 * MIB))
        bridge.start()
        fault = site.services.faults.add(Fault(call="pubsub.Publish", times=None))
        site.publish(numbered(2 * COUNT))
        eventually(lambda: bridge.status("/readyz") == 503, "it is not ready", 40)
        assert bridge.status("/livez") == 200
        assert accepted(bridge) < 2 * COUNT
        site.services.faults.remove(fault)
        settle(bridge, 2 * COUNT, 60)
        assert bridge.ready()
        assert bridge.terminate() == 0
    site.require_all(2 * COUNT)
