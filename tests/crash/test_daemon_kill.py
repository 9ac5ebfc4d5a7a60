"""The daemon killed with SIGKILL again and again while readings stream in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from chaos.bridge_process import Bridge
from localgcp.faults import Fault, Kind
from tests.support.plant import Plant, numbered, plant, settle
from tests.support.poll import eventually

KILLS = 10


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Plant]:
    with plant(tmp_path) as made:
        yield made


@pytest.mark.parametrize("method", ["storage_write", "insert_all"])
def test_killed_ten_times_in_50_000_readings_nothing_is_lost_doubled_or_reordered(
    site: Plant, method: str
) -> None:
    bridge = site.bridge(BIGQUERY_WRITE_METHOD=method)
    bridge.start()
    sender = threading.Thread(target=site.publish, args=(numbered(50_000),))
    sender.start()
    chance = Random(5)
    accepted = 0
    for _ in range(KILLS):
        goal = accepted + chance.randrange(500, 4_000)
        accepted = _wait_for(bridge, min(goal, 50_000))
        bridge.kill()
        bridge.start()
    sender.join()
    settle(bridge, 50_000, 90)
    assert bridge.ledger()["balanced"] is True
    assert bridge.terminate() == 0
    site.require_all(50_000)


def test_killed_while_both_services_fail_at_random_nothing_is_lost_or_doubled(
    site: Plant,
) -> None:
    bridge = site.bridge()
    bridge.start()
    chance = Random(11)
    sender = threading.Thread(target=site.publish, args=(numbered(10_000),))
    sender.start()
    for _ in range(5):
        for _ in range(4):
            site.services.faults.add(_some_fault(chance))
        goal = _accepted(bridge) + 300
        _wait_for(bridge, min(goal, 10_000))
        bridge.kill()
        bridge.start()
    site.services.faults.clear()
    sender.join()
    settle(bridge, 10_000, 90)
    assert bridge.terminate() == 0
    site.require_all(10_000)


def _some_fault(chance: Random) -> Fault:
    call = chance.choice(["pubsub.Publish", "storage.AppendRows"])
    kinds: list[Kind] = ["status", "answer_lost", "cut"]
    status = chance.choice(["UNAVAILABLE", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED"])
    return Fault(call=call, kind=chance.choice(kinds), status=status, times=chance.randrange(1, 3))


def _accepted(bridge: Bridge) -> int:
    return int(bridge.ledger()["totals"]["accepted"])


def _wait_for(bridge: Bridge, accepted: int) -> int:
    eventually(lambda: _accepted(bridge) >= accepted, f"{accepted} are in", 60)
    return _accepted(bridge)
