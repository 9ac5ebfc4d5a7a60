"""Operators at work: refused messages are replayed, exported and purged, and readings sent again,
beside a running daemon, one that is killed, and none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bridge import wiring
from bridge.cli.main import cli
from chaos.bridge_process import ROOT, Bridge
from chaos.services import create_table
from localgcp.faults import Fault
from tests.support.journals import audit, opened, rows, settle_everything
from tests.support.plant import DATASET, FULL_TOPIC, PROJECT, TABLE, Plant, plant
from tests.support.poll import eventually
from tests.support.readings import reading

HERE = (PROJECT, DATASET, TABLE)
AHEAD = 7_200  # seconds that the clock of some sensors is ahead


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    with plant(tmp_path_factory.mktemp("plant")) as made:
        yield made


@pytest.fixture(scope="module")
def bridge(site: Plant) -> Iterator[Bridge]:
    made = site.bridge()
    made.start()
    yield made
    made.kill()


def journal(site: Plant) -> Path:
    return Path(site.environment["JOURNAL_PATH"])


def begin(site: Plant, *arguments: str, **changes: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "mqtt_subscriber.py"), *arguments],
        env={**site.environment, **changes},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(site: Plant, *arguments: str, code: int = 0, stdin: str = "", **changes: str) -> Result:
    """In this process: most of the time of another would go to its start."""
    done = CliRunner().invoke(cli, arguments, input=stdin, env={**site.environment, **changes})
    assert done.exit_code == code, (done.output, done.exception)
    return done


def asked(site: Plant, *arguments: str, code: int = 0, **options: Any) -> Any:
    """What a command prints as JSON."""
    done = command(site, *arguments, "--format", "json", code=code, **options)
    return json.loads(done.stdout)


def message(plant_site: str, number: int, ahead: float = 0.0) -> tuple[str, bytes]:
    payload = {
        "site_code": plant_site,
        "sensor_id": "S",
        "timestamp": time.time() + ahead + number / 1e3,
        "value": number,
    }
    return f"FCTS/FAE/{plant_site}/SolvExtract/T", json.dumps(payload).encode()


def line(bridge: Bridge, plant_site: str) -> dict[str, Any]:
    ledger = bridge.ledger()
    assert ledger["balanced"] is True
    found: dict[str, Any] = ledger["sites"][plant_site]
    return found


def events(site: Plant, plant_site: str) -> list[Any]:
    found = [json.loads(message.data) for message in site.services.pubsub.messages(FULL_TOPIC)]
    return [event["value"] for event in found if event["site_code"] == plant_site]


def values(site: Plant, plant_site: str) -> list[Any]:
    return [
        row["value"] for row in site.services.tables.rows(*HERE) if row["site_code"] == plant_site
    ]


def wait_for_letters(site: Plant, plant_site: str, count: int) -> None:
    query = f"SELECT count(*) FROM dead_letters WHERE site = '{plant_site}'"
    eventually(lambda: rows(journal(site), query) == [(count,)], f"there are {count} letters")


def letters(site: Plant, plant_site: str) -> list[Any]:
    found: list[Any] = asked(site, "dead-letters", "list", "--site", plant_site, "--limit", "-1")
    return found


# --- dead letters ---------------------------------------------------------------------------------


def test_a_message_refused_at_the_entrance_arrives_with_a_corrected_payload(
    site: Plant, bridge: Bridge
) -> None:
    topic, good = message("ENT", 1)
    site.publish([(topic, b"Bad Input")])
    wait_for_letters(site, "ENT", 1)
    (letter,) = letters(site, "ENT")
    number = str(letter["id"])
    replay = ("dead-letters", "replay", number)
    assert asked(site, *replay, code=1)["refused"] == 1
    foretold = asked(site, *replay, "--payload", "-", "--dry-run", stdin=good.decode())
    assert [each["would"] for each in foretold["letters"]] == ["be a new message"]
    assert asked(site, *replay, "--payload", "-", stdin=good.decode())["accepted"] == 1
    eventually(lambda: (events(site, "ENT"), values(site, "ENT")) == ([1], [1.0]), "it arrives")
    counts = line(bridge, "ENT")
    assert (counts["received"], counts["accepted"], counts["rejected"]) == (2, 1, 1)
    assert letters(site, "ENT")[0]["replayed_at"]

    assert "replayed before" in command(site, *replay, code=1).stdout
    assert asked(site, "dead-letters", "replay", "--site", "ENT")["left_out"] == 1
    forced = (*replay, "--force", "--payload-text", good.decode())
    assert asked(site, *forced)["duplicate"] == 1
    assert (events(site, "ENT"), values(site, "ENT")) == ([1], [1.0])
    assert line(bridge, "ENT")["duplicates"] == 1


def test_a_reading_that_bigquery_refused_goes_there_alone_once_that_is_mended(
    site: Plant, bridge: Bridge
) -> None:
    site.services.tables.refuse(*HERE, "value", 777.0)
    site.publish([message("SNK", 777)])
    site.publish([message("SNK", 1), message("SNK", 2)])
    wait_for_letters(site, "SNK", 1)
    eventually(lambda: sorted(values(site, "SNK")) == [1.0, 2.0], "its neighbours arrive")
    assert line(bridge, "SNK")["sinks"]["bigquery"]["dead_lettered"] == 1
    site.services.tables.accept_all(*HERE)

    done = asked(site, "dead-letters", "replay", "--sink", "bigquery", "--site", "SNK")
    assert (done["pending"], done["refused"]) == (1, 0)
    eventually(lambda: sorted(values(site, "SNK")) == [1.0, 2.0, 777.0], "it arrives")
    eventually(lambda: line(bridge, "SNK")["sinks"]["bigquery"]["settled"] == 3, "it is settled")
    assert line(bridge, "SNK")["sinks"]["bigquery"]["dead_lettered"] == 0
    assert events(site, "SNK") == [777, 1, 2]
    assert line(bridge, "SNK")["sinks"]["pubsub"]["settled"] == 3


def test_all_of_a_reason_arrive_once_although_the_daemon_is_killed_meanwhile(
    site: Plant, bridge: Bridge
) -> None:
    count = 1_200
    site.publish([message("MAN", number, AHEAD) for number in range(count)])
    wait_for_letters(site, "MAN", count)
    # In order: what the broker does not know to be acknowledged it would send again, to be taken
    # in by the mended bridge before it is replayed.
    bridge.terminate()
    mended: dict[str, Any] = {"TIMESTAMP_MAX_FUTURE_SECONDS": "86400"}
    bridge.start(**mended)
    replay = begin(site, "dead-letters", "replay", "--reason", "timestamp_out_of_range", **mended)
    done = "SELECT count(*) FROM orders WHERE outcome = 'accepted'"
    eventually(lambda: rows(journal(site), done)[0][0] > 1, "it has begun")  # type: ignore[operator]
    bridge.kill()
    bridge.start(**mended)
    said, _ = replay.communicate(timeout=120)
    assert replay.returncode == 0, said
    assert f"{count} accepted, 0 duplicate, 0 pending, 0 refused" in said
    eventually(lambda: len(values(site, "MAN")) == count, "all arrive")
    assert sorted(values(site, "MAN")) == [float(number) for number in range(count)]
    assert list(dict.fromkeys(events(site, "MAN"))) == list(range(count))
    assert line(bridge, "MAN")["accepted"] == count


def test_without_a_daemon_the_command_does_it_itself_but_only_as_the_bridge_is_configured(
    site: Plant, bridge: Bridge
) -> None:
    topic, good = message("OFF", 5)
    site.publish([(topic, b"Bad Input")])
    wait_for_letters(site, "OFF", 1)
    number = str(letters(site, "OFF")[0]["id"])
    assert bridge.terminate() == 0
    replay = ("dead-letters", "replay", number, "--payload-text", good.decode())
    wrong = command(site, *replay, code=78, BIGQUERY_TABLE="another")
    assert "plant-project.plant.another" in wrong.stderr
    assert "start the bridge" in wrong.stderr
    assert asked(site, *replay)["accepted"] == 1
    audit(journal(site))
    bridge.start()
    eventually(lambda: (events(site, "OFF"), values(site, "OFF")) == ([5], [5.0]), "it arrives")
    assert line(bridge, "OFF")["accepted"] == 1


def test_while_the_daemon_stands_still_an_order_waits_and_is_carried_out_later(
    site: Plant, bridge: Bridge
) -> None:
    topic, good = message("SLO", 5)
    site.publish([(topic, b"Bad Input")])
    wait_for_letters(site, "SLO", 1)
    number = str(letters(site, "SLO")[0]["id"])
    bridge.pause()
    try:
        said = command(
            site,
            *("dead-letters", "replay", number, "--payload-text", good.decode()),
            *("--timeout", "0.2"),
            code=1,
        )
    finally:
        bridge.go_on()
    assert "1 orders wait and will be carried out" in said.stderr
    eventually(lambda: values(site, "SLO") == [5.0], "it is carried out")


def test_only_what_was_exported_is_purged(site: Plant, bridge: Bridge, tmp_path: Path) -> None:
    topic, _ = message("PUR", 1)
    site.publish([(topic, b"one"), (topic, b"two")])
    wait_for_letters(site, "PUR", 2)
    purge = ("dead-letters", "purge", "--site", "PUR")
    assert asked(site, *purge) == {"purged": 0, "left": 2, "dry_run": False}
    command(site, "dead-letters", "export", "--site", "PUR", "--output", str(tmp_path / "out"))
    site.publish([(topic, b"three")])
    wait_for_letters(site, "PUR", 3)
    assert asked(site, *purge, "--dry-run") == {"purged": 2, "left": 1, "dry_run": True}
    assert "not exported" in command(site, *purge).stdout
    (left,) = letters(site, "PUR")
    assert left["exported_at"] is None
    assert len((tmp_path / "out").read_text().splitlines()) == 2
    assert line(bridge, "PUR")["rejected"] == 3


# --- replay ---------------------------------------------------------------------------------------


def replayed(site: Plant, plant_site: str) -> list[Any]:
    return [
        message
        for message in site.services.pubsub.messages(FULL_TOPIC)
        if message.attributes.get("replay") and message.attributes["site_code"] == plant_site
    ]


def test_pubsub_gets_the_same_events_once_more_outside_the_order(
    site: Plant, bridge: Bridge
) -> None:
    site.publish([message("REP", number) for number in range(30)])
    eventually(lambda: len(values(site, "REP")) == 30, "they arrive")
    eventually(lambda: bridge.settled(0), "they are settled")
    replay = ("replay", "--sink", "pubsub", "--site", "REP")
    assert asked(site, *replay, "--dry-run")["sent"] == 30
    assert replayed(site, "REP") == []
    assert asked(site, *replay)["sent"] == 30
    again = replayed(site, "REP")
    assert [json.loads(message.data)["value"] for message in again] == list(range(30))
    assert {message.ordering_key for message in again} == {""}
    assert {message.attributes["replay"] for message in again} == {"true"}
    ids = Counter(
        message.attributes["event_id"] for message in site.services.pubsub.messages(FULL_TOPIC)
    )
    assert all(ids[message.attributes["event_id"]] == 2 for message in again)
    eventually(lambda: bridge.metric("bridge_sink_replayed_total") == 30, "it is counted")
    assert asked(site, *replay, "--to", "2020-01-01")["found"] == 0
    assert asked(site, *replay, "--from", "2020-01-01", "--dry-run")["found"] == 30


def test_what_a_table_has_lost_is_written_again_and_nothing_else(
    site: Plant, bridge: Bridge
) -> None:
    before = sorted(values(site, "REP"))
    replay = ("replay", "--sink", "bigquery", "--site", "REP")
    nothing = asked(site, *replay)
    assert (nothing["found"], nothing["present"], nothing["sent"]) == (30, 30, 0)
    lose_table(site)
    site.services.faults.add(Fault("storage.AppendRows", "answer_lost"))
    site.services.faults.add(Fault("storage.AppendRows", "status", status="UNAVAILABLE"))
    done = asked(site, *replay)
    assert (done["present"], done["sent"], done["refused"]) == (0, 30, 0)
    assert sorted(values(site, "REP")) == before
    assert asked(site, *replay)["present"] == 30


def wait_until_used(site: Plant, fault: int) -> None:
    def used() -> bool:
        return any(rule["id"] == fault and rule["used"] for rule in site.services.faults.listing())

    eventually(used, "the fault was met")


def lose_table(site: Plant) -> None:
    site.services.tables.delete_table(".".join(HERE))
    create_table(site.settings())


def test_a_replay_that_is_killed_and_one_after_it_write_nothing_twice(
    site: Plant, bridge: Bridge
) -> None:
    lose_table(site)
    replay = ("replay", "--sink", "bigquery", "--site", "REP")
    number = site.services.faults.add(Fault("storage.AppendRows", "hang"))
    killed = begin(site, *replay)
    wait_until_used(site, number)
    busy = command(site, *replay, code=70)
    assert f"process id {killed.pid}" in busy.stderr
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    site.services.faults.clear()
    assert asked(site, *replay)["found"] == 30
    assert sorted(values(site, "REP")) == [float(number) for number in range(30)]
    assert rows(journal(site), "SELECT value FROM meta WHERE key = 'replay_streams'") == [("[]",)]


def test_a_replay_ends_early_on_ctrl_c_and_says_what_was_done(site: Plant, bridge: Bridge) -> None:
    fault = Fault("pubsub.Publish", "status", status="UNAVAILABLE", subject="", times=None)
    number = site.services.faults.add(fault)
    replay = begin(site, "replay", "--sink", "pubsub", "--site", "REP")
    wait_until_used(site, number)
    os.kill(replay.pid, signal.SIGINT)
    said, errors = replay.communicate(timeout=30)
    site.services.faults.clear()
    assert replay.returncode == 1
    assert "30 readings found: 0 sent" in said
    assert "ended early" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("method", ["storage_write", "insert_all"])
def test_without_a_daemon_and_by_either_method_it_writes_what_is_missing_and_says_what_is_refused(
    site: Plant, tmp_path: Path, method: str
) -> None:
    where: dict[str, Any] = {
        "JOURNAL_PATH": str(tmp_path / "journal.db"),
        "BIGQUERY_WRITE_METHOD": method,
    }
    sinks = wiring.destinations(site.settings(**where))
    with opened(tmp_path / "journal.db", sinks=sinks) as journal:
        journal.append([reading(number, method) for number in range(600)], [])
        settle_everything(journal, sinks)
    replay = ("replay", "--sink", "bigquery")
    site.services.tables.refuse(*HERE, "value", 7.0)
    done = asked(site, *replay, code=1, **where)
    assert (done["found"], done["sent"], done["refused"]) == (600, 599, 1)
    site.services.tables.accept_all(*HERE)
    done = asked(site, *replay, **where)
    assert (done["present"], done["sent"]) == (599, 1)
    assert sorted(values(site, method)) == [float(number) for number in range(600)]


def test_a_replay_elsewhere_than_the_bridge_writes_is_refused(site: Plant, bridge: Bridge) -> None:
    replay = ("replay", "--sink", "pubsub")
    assert "other-topic" in command(site, *replay, code=78, PUBSUB_TOPIC="other-topic").stderr
    assert "LOCAL" in command(site, *replay, code=78, APP_ENV="LOCAL").stderr
    assert bridge.terminate() == 0
