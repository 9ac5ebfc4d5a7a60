"""A stop of the whole daemon while a service does not answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localgcp.faults import Fault
from tests.support.plant import Plant, numbered, plant, settle
from tests.support.poll import eventually


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Plant]:
    with plant(tmp_path) as made:
        yield made


def test_sinks_that_hang_hold_up_a_stop_for_no_longer_than_was_said(site: Plant) -> None:
    bridge = site.bridge(DRAIN_SECONDS="1.5")
    bridge.start()
    site.publish(numbered(100))
    settle(bridge, 100)
    for call in ("pubsub.Publish", "storage.AppendRows"):
        site.services.faults.add(Fault(call=call, kind="hang", times=None))
    site.publish(numbered(200, first=100))
    eventually(lambda: bridge.ledger()["totals"]["accepted"] == 300, "all are in")
    began = time.monotonic()
    assert bridge.terminate() == 75
    assert 1.4 <= time.monotonic() - began < 12
    assert "readings in the journal" in bridge.log
    site.services.faults.clear()
    bridge.start()
    settle(bridge, 300)
    assert bridge.terminate() == 0
    site.require_all(300)


def test_a_stop_waits_for_a_sink_that_comes_back_in_time(site: Plant) -> None:
    bridge = site.bridge(DRAIN_SECONDS="30")
    bridge.start()
    site.services.faults.add(Fault(call="storage.AppendRows", times=3))
    site.publish(numbered(500))
    eventually(lambda: bridge.ledger()["totals"]["accepted"] == 500, "all are in")
    assert bridge.terminate() == 0
    site.require_all(500)


def test_what_the_broker_holds_is_taken_before_a_stop_where_it_goes_down_as_well(
    site: Plant,
) -> None:
    bridge = site.bridge(DRAIN_BROKER="true", DRAIN_SECONDS="60")
    bridge.start()  # for the session
    assert bridge.terminate() == 0
    site.publish(numbered(20_000))
    bridge.start()
    assert bridge.terminate() == 0
    site.require_all(20_000)


def test_without_a_broker_there_is_nothing_to_take_and_the_stop_is_bounded(site: Plant) -> None:
    bridge = site.bridge(DRAIN_BROKER="true", DRAIN_SECONDS="1")
    bridge.start()
    site.publish(numbered(100))
    settle(bridge, 100)
    site.broker.kill()
    assert bridge.terminate() == 0
    assert "the broker may still hold messages" in bridge.log
