"""The daemon as a process between a real broker and the local Google services."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.bridge_process import ROOT
from localgcp.faults import Fault
from tests.support.plant import DATASET, PROJECT, TABLE, Plant, numbered, plant, settle
from tests.support.poll import eventually


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Plant]:
    with plant(tmp_path) as made:
        yield made


@pytest.mark.parametrize("method", ["storage_write", "insert_all"])
def test_readings_arrive_in_both_sinks_and_the_ledger_balances(site: Plant, method: str) -> None:
    bridge = site.bridge(BIGQUERY_WRITE_METHOD=method)
    bridge.start()
    site.publish(numbered(2_000))
    settle(bridge, 2_000)
    ledger = bridge.ledger()
    assert ledger["balanced"] is True
    assert ledger["totals"]["taken"] == 2_000
    assert bridge.terminate() == 0
    site.require_all(2_000)
    assert site.arrived().copies == 0


def test_a_stop_in_the_middle_of_50_000_readings_loses_and_doubles_nothing(site: Plant) -> None:
    bridge = site.bridge()
    bridge.start()
    sender = threading.Thread(target=site.publish, args=(numbered(50_000),))
    sender.start()
    eventually(lambda: bridge.ledger()["totals"]["accepted"] > 10_000, "a part is in", 60)
    assert bridge.terminate() in (0, 75)
    bridge.start()
    sender.join()
    settle(bridge, 50_000)
    assert bridge.terminate() == 0
    site.require_all(50_000)


def test_a_second_signal_ends_at_once_and_the_rest_follows_after_the_next_start(
    site: Plant,
) -> None:
    bridge = site.bridge()
    fault = site.services.faults.add(Fault(call="storage.AppendRows", times=None))
    bridge.start()
    site.publish(numbered(500))
    eventually(lambda: bridge.ledger()["totals"]["accepted"] == 500, "all are in")
    os.kill(bridge.program.pid, signal.SIGTERM)
    eventually(lambda: "stopping" in bridge.log, "the first signal is heeded")
    os.kill(bridge.program.pid, signal.SIGINT)
    assert bridge.program.finish(5) == 75
    site.services.faults.remove(fault)
    bridge.start()
    settle(bridge, 500)
    assert bridge.terminate() == 0
    site.require_all(500)


def test_with_bigquery_away_pubsub_lags_by_nothing_and_the_other_way_round(site: Plant) -> None:
    bridge = site.bridge()
    bridge.start()
    total = 0
    for call, alive in (("storage.*", "pubsub"), ("pubsub.Publish", "bigquery")):
        fault = site.services.faults.add(Fault(call=call, times=None))
        site.publish(numbered(1_000, first=total))
        total += 1_000

        def alive_has_all(alive: str = alive, total: int = total) -> bool:
            return bool(bridge.ledger()["totals"]["sinks"][alive]["settled"] == total)

        eventually(alive_has_all, f"{alive} has all while the other is away")
        assert bridge.status("/readyz") == 200
        assert bridge.status("/livez") == 200
        site.services.faults.remove(fault)
        settle(bridge, total)
    assert bridge.terminate() == 0
    site.require_all(total)


def test_the_broker_keeps_what_comes_while_the_bridge_is_away(site: Plant) -> None:
    bridge = site.bridge()
    bridge.start()
    site.publish(numbered(100))
    settle(bridge, 100)
    assert bridge.terminate() == 0
    site.publish(numbered(5_000, first=100))
    bridge.start()
    settle(bridge, 5_100)
    assert bridge.terminate() == 0
    site.require_all(5_100)


def test_a_restart_of_the_broker_is_survived(site: Plant) -> None:
    bridge = site.bridge()
    bridge.start()
    site.publish(numbered(500))
    settle(bridge, 500)
    site.broker.restart()
    site.publish(numbered(500, first=500))
    settle(bridge, 1_000)
    assert bridge.terminate() == 0
    site.require_all(1_000)


def test_a_sensors_retry_is_recognised_also_after_a_restart(site: Plant) -> None:
    bridge = site.bridge()
    bridge.start()
    messages = list(numbered(300))
    site.publish([*messages, *messages[:100]])
    settle(bridge, 300)
    assert bridge.terminate() == 0
    bridge.start()
    site.publish(messages)
    eventually(lambda: bridge.ledger()["totals"]["duplicates"] == 400, "duplicates are counted")
    assert bridge.ledger()["balanced"] is True
    assert bridge.terminate() == 0
    site.require_all(300)
    assert site.arrived().copies == 0


def test_a_second_run_on_the_journal_is_refused_naming_the_first(site: Plant) -> None:
    first = site.bridge()
    first.start()
    second = site.bridge(MQTT_CLIENT_ID="another")
    second.start(wait=False)
    assert second.program.finish(20) == 70
    assert str(first.program.pid) in second.log
    assert first.status("/readyz") == 200
    assert first.terminate() == 0


def test_a_changed_destination_is_refused_while_readings_are_unsettled(site: Plant) -> None:
    bridge = site.bridge(DRAIN_SECONDS="0")
    bridge.start()
    fault = site.services.faults.add(Fault(call="pubsub.Publish", times=None))
    site.publish(numbered(50))
    eventually(lambda: bridge.ledger()["totals"]["accepted"] == 50, "all are in")
    assert bridge.terminate() == 75
    site.services.faults.remove(fault)
    elsewhere = site.bridge(PUBSUB_TOPIC="another-topic")
    elsewhere.start(wait=False)
    assert elsewhere.program.finish(20) == 78
    assert "--accept-destination-change" in elsewhere.log
    bridge.start()
    settle(bridge, 50)
    assert bridge.terminate() == 0
    site.require_all(50)


def test_a_table_that_does_not_fit_ends_the_start_with_78_and_names_the_column(
    site: Plant,
) -> None:
    fields = [
        {"name": "event_id", "type": "STRING", "mode": "REQUIRED"},
        {"name": "value", "type": "STRING", "mode": "REQUIRED"},
    ]
    tables = site.services.tables
    tables.set_schema("plant-project.plant.readings", {"fields": fields})
    bridge = site.bridge()
    bridge.start(wait=False)
    assert bridge.program.finish(20) == 78
    assert "site_code" in bridge.log
    assert "column value is STRING" in bridge.log


def test_in_local_each_reading_is_a_line_and_no_google_module_is_imported(site: Plant) -> None:
    bridge = site.bridge(APP_ENV="LOCAL", PYTHONVERBOSE="1")
    bridge.start()
    site.publish(numbered(5))
    settle(bridge, 5)
    assert bridge.terminate() == 0
    assert bridge.log.count('"message":"reading"') == 5
    imported = [line for line in bridge.log.splitlines() if line.startswith("import ")]
    assert imported
    google = [line for line in imported if "google." in line or "grpc" in line]
    assert google == []


def test_the_loss_of_a_damaged_journal_is_shown_until_an_operator_clears_it(site: Plant) -> None:
    bridge = site.bridge()
    bridge.start()
    site.publish(numbered(2_000))
    settle(bridge, 2_000)
    assert bridge.terminate() == 0
    journal = Path(site.environment["JOURNAL_PATH"])
    content = bytearray(journal.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 9_000] = bytes(9_000)
    journal.write_bytes(content)

    bridge.start()
    assert "taken over" in json.loads(bridge.text("/readyz"))["loss"]
    assert "bridge_journal_loss 1.0" in bridge.text("/metrics")
    assert list(journal.parent.glob("journal.db.corrupt-*"))
    command = [sys.executable, str(ROOT / "mqtt_subscriber.py"), "check", "--clear-journal-loss"]
    assert subprocess.run(command, env=site.environment, timeout=60).returncode == 0
    eventually(lambda: "bridge_journal_loss 0.0" in bridge.text("/metrics"), "it is cleared")
    site.publish(numbered(500, first=2_000))
    eventually(
        lambda: len(site.services.tables.rows(PROJECT, DATASET, TABLE)) == 2_500, "it goes on"
    )
    assert bridge.terminate() == 0
    site.require_all(2_500)
