"""Instances that come and go with their disks: what is unsettled goes through the bucket."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.cli.publishing import Publisher
from bridge.handoff.record import HEADS, Head
from chaos.bridge_process import ROOT, Bridge
from localgcp.faults import Fault
from tests.support.mosquitto import Mosquitto
from tests.support.plant import Plant, numbered, plant, settle
from tests.support.poll import eventually
from tests.support.storage import Storage, storage

ENTRANCE = (str(Path(__file__).resolve().parents[1] / "support" / "hasty_bridge.py"),)
CALLS = ("pubsub.Publish", "storage.AppendRows")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Plant]:
    with plant(tmp_path) as made:
        yield made


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Storage]:
    with storage(tmp_path / "storage") as made:
        yield made


class Instance:
    """A machine of its own: broker, disk, bridge."""

    def __init__(self, site: Plant, stored: Storage, broker: Mosquitto, disk: Path) -> None:
        self._site = site
        self._broker = broker
        self.disk = disk
        logs = disk.with_name(f"{disk.name}-logs")
        logs.mkdir()
        own = {
            "JOURNAL_PATH": str(disk / "journal.db"),
            "MQTT_PORT": str(broker.port),
            "DRAIN_SECONDS": "1",
            **stored.environment,
        }
        self.bridge = Bridge(logs, {**site.environment, **own})

    def start(self, wait: bool = True) -> None:
        self.bridge.start(entrance=ENTRANCE, wait=wait)

    def send(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Have sensors send these, until the broker has acknowledged them."""
        settings = self._site.settings(MQTT_PORT=str(self._broker.port))
        with Publisher(settings, "sensors") as publisher:
            for topic, payload in messages:
                publisher.publish(topic, payload)
            publisher.settle()
            assert publisher.counts().refused == 0

    def take(self, count: int, first: int = 0) -> None:
        """Have sensors send so many new ones, until they are in the journal."""
        before = self.accepted
        self.send(list(numbered(count, first=first)))
        eventually(lambda: self.accepted >= before + count, "all are in")

    @property
    def accepted(self) -> int:
        return int(self.bridge.ledger()["totals"]["accepted"])

    def is_up(self) -> bool:
        try:
            return self.bridge.status("/livez") == 200
        except OSError:
            return False

    def lose_disk(self) -> None:
        shutil.rmtree(self.disk)


@pytest.fixture
def machines(site: Plant, stored: Storage, tmp_path: Path) -> Iterator[tuple[Instance, Instance]]:
    with Mosquitto() as one, Mosquitto() as other:
        first = Instance(site, stored, one, tmp_path / "first")
        second = Instance(site, stored, other, tmp_path / "second")
        try:
            yield first, second
        finally:
            first.bridge.kill()
            second.bridge.kill()


@contextmanager
def services_away(site: Plant) -> Iterator[None]:
    for call in CALLS:
        site.services.faults.add(Fault(call=call, times=None))
    try:
        yield
    finally:
        site.services.faults.clear()


def shipped(instance: Instance) -> None:
    eventually(
        lambda: (
            instance.bridge.metric("bridge_handoff_unshipped") == 0
            and instance.bridge.ledger()["totals"]["sinks"]["bigquery"]["pending"] > 0
        ),
        "everything is in the bucket",
    )


def heads(stored: Storage) -> list[Head]:
    names = stored.bucket.names(HEADS)
    found = [stored.bucket.get(name) for name in names]
    return [Head.model_validate_json(head.data) for head in found if head is not None]


def tidy(stored: Storage) -> None:
    """Nothing but ids may be left, which nobody has to deliver."""
    eventually(
        lambda: all(head.empty for head in heads(stored) if head.taken_by is not None),
        "what was taken over is let go",
        60,
    )


def test_what_a_stop_leaves_unsettled_is_delivered_by_the_next_instance(
    site: Plant, stored: Storage, machines: tuple[Instance, Instance]
) -> None:
    first, second = machines
    first.start()
    with services_away(site):
        first.take(500)
        assert first.bridge.terminate() == 75
        first.lose_disk()
    second.start()
    second.take(500, first=500)
    settle(second.bridge, 1_000)
    assert second.bridge.ledger()["balanced"] is True
    tidy(stored)
    assert second.bridge.terminate() == 0
    site.require_all(1_000)


def test_an_instance_that_dies_with_its_disk_loses_nothing_that_was_shipped(
    site: Plant, stored: Storage, machines: tuple[Instance, Instance]
) -> None:
    first, second = machines
    first.start()
    first.take(100)
    settle(first.bridge, 100)
    with services_away(site):
        first.take(400, first=100)
        shipped(first)
        first.bridge.kill()
        first.lose_disk()
    second.start()
    second.take(100, first=500)
    settle(second.bridge, 500)
    tidy(stored)
    site.require_all(600)


def test_with_healthy_sinks_there_is_no_traffic_and_a_stop_leaves_only_ids(
    site: Plant, stored: Storage, machines: tuple[Instance, Instance]
) -> None:
    first, second = machines
    messages = list(numbered(600))
    first.start()
    (before,) = heads(stored)
    assert before.empty
    first.send(messages)
    settle(first.bridge, 600)
    assert heads(stored) == [before]
    assert first.bridge.terminate() == 0
    first.lose_disk()
    second.start()
    second.send(messages)
    eventually(lambda: second.bridge.ledger()["totals"]["duplicates"] == 600, "all are recognised")
    assert second.bridge.terminate() == 0
    site.require_all(600)


def test_a_new_instance_waits_for_one_that_is_still_stopping(
    site: Plant, stored: Storage, machines: tuple[Instance, Instance]
) -> None:
    first, second = machines
    first.start()
    with services_away(site):
        first.take(500)
        shipped(first)
        second.start(wait=False)
        eventually(second.is_up, "the second is up")
        assert not second.bridge.ready()
        assert first.bridge.terminate() == 75
        first.lose_disk()
    eventually(second.bridge.ready, "the second takes over")
    second.take(500, first=500)
    settle(second.bridge, 1_000)
    site.require_all(1_000)


def test_an_instance_that_was_only_away_gives_up_what_another_has_taken_and_keeps_the_rest(
    site: Plant, stored: Storage, machines: tuple[Instance, Instance]
) -> None:
    first, second = machines
    first.start()
    with services_away(site):
        first.take(500)
        shipped(first)
        first.bridge.pause()
    second.start()
    first.send(list(numbered(100, first=500)))  # lie with its broker
    settle(second.bridge, 500)
    first.bridge.go_on()
    assert first.bridge.program.finish(30) == 70
    assert "another instance" in first.bridge.log
    first.start()
    eventually(lambda: first.bridge.settled(600), "the first has settled the rest")
    assert first.bridge.ledger()["balanced"] is True
    assert first.bridge.ledger()["totals"]["sinks"]["bigquery"]["skipped"] == 500
    arrived = site.arrived()
    assert arrived.doubled_rows == 0
    assert sorted(itertools.chain(*arrived.rows.values())) == [
        float(number) for number in range(600)
    ]
    site.require_all(600)


def test_a_bucket_that_is_away_holds_up_no_reading_and_is_filled_when_it_is_back(
    site: Plant, stored: Storage, machines: tuple[Instance, Instance]
) -> None:
    first, second = machines
    stored.network.vanish()
    stored.network.cut()
    first.start()
    first.take(200)
    settle(first.bridge, 200)
    assert first.bridge.metric("bridge_handoff_failures_total") > 0
    with services_away(site):
        first.take(200, first=200)
        stored.network.appear()
        shipped(first)
        first.bridge.kill()
        first.lose_disk()
    second.start()
    settle(second.bridge, 200)
    site.require_all(400)


def checked(site: Plant, **changes: str) -> dict[str, dict[str, str]]:
    command = [sys.executable, "mqtt_subscriber.py", "check", "--format=json"]
    done = subprocess.run(
        command, cwd=ROOT, env={**site.environment, **changes}, capture_output=True, check=False
    )
    return {finding["what"]: finding for finding in json.loads(done.stdout)}


def test_check_writes_into_the_bucket_and_names_the_role_where_it_cannot(
    site: Plant, stored: Storage
) -> None:
    found = checked(site, **stored.environment)["handoff bucket"]
    assert (found["result"], found["fix"]) == ("ok", "")
    assert stored.bucket.names("") == []
    other = {**stored.environment, "JOURNAL_HANDOFF_BUCKET": "no-such-bucket"}
    found = checked(site, **other)["handoff bucket"]
    assert found["result"] == "failed"
    assert "roles/storage.objectUser" in found["fix"]
    assert "handoff bucket" not in checked(site)


def test_without_a_bucket_the_start_says_what_this_disk_means(site: Plant) -> None:
    bridge = site.bridge(GAE_INSTANCE="i-1")
    bridge.start()
    assert bridge.terminate() == 0
    (line,) = [line for line in bridge.log.splitlines() if "JOURNAL_HANDOFF_BUCKET" in line]
    assert json.loads(line)["severity"] == "WARNING"
