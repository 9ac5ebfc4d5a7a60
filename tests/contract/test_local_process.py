"""What the local services keep: over a restart, over `kill -9`, and only for one process."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import NotFound

from bridge.cli.processes import Program, listens
from localgcp.faults import Faults
from localgcp.pubsub import PubSubServer
from tests.support.pubsub import LocalPubSub, PubSub

pytestmark = pytest.mark.filterwarnings("ignore:The return_immediately flag")
ROOT = Path(__file__).resolve().parents[2]
PORTS = ("--pubsub-port", "--bigquery-port", "--storage-port", "--control-port")
WEEK = {"seconds": 604_800}
Start = Callable[..., tuple[Program, dict[str, Any]]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Runs `python -m localgcp` on free ports: the process, and what it says when it is ready."""
    count = 0

    def started(*arguments: str | Path, wait: bool = True) -> tuple[Program, dict[str, Any]]:
        nonlocal count
        count += 1
        ports = [word for port in PORTS for word in (port, "0")]
        command = [sys.executable, "-m", "localgcp", *ports, *arguments]
        program = Program(f"localgcp-{count}", command, tmp_path, os.environ, ROOT)
        if not wait:
            return program, {}
        program.wait_until(lambda: "\n" in program.output.read_text(), 30)
        return program, json.loads(program.output.read_text())

    return started


def data(received: list[Any]) -> list[str]:
    return [one.message.data.decode() for one in received]


def test_the_process_says_where_its_services_are_and_stops_when_asked(start: Start) -> None:
    program, ready = start()
    with program:
        environment = ready["environment"]
        assert sorted(environment) == [
            "BIGQUERY_EMULATOR_HOST",
            "BIGQUERY_STORAGE_EMULATOR_HOST",
            "PUBSUB_EMULATOR_HOST",
        ]
        assert environment["BIGQUERY_EMULATOR_HOST"].startswith("http://127.0.0.1:")
        addresses = [*environment.values(), ready["control"]]
        assert all(listens(int(address.rsplit(":", 1)[1])) for address in addresses)
        service = PubSub(environment["PUBSUB_EMULATOR_HOST"])
        service.topic()
        service.close()
        assert program.stop() == 0


def test_what_was_answered_survives_a_kill(start: Start, tmp_path: Path) -> None:
    arguments = ("--data-dir", tmp_path / "kept")
    program, ready = start(*arguments)
    with program:
        service = PubSub(ready["environment"]["PUBSUB_EMULATOR_HOST"])
        topic = service.topic(message_retention_duration=WEEK)
        subscription = service.subscription(topic, enable_message_ordering=True)
        ids = [service.publish(topic, str(number), key="MOR")[0] for number in range(50)]
        first = service.pull(subscription, most=10)
        service.acknowledge(subscription, first)
        service.pull(subscription, most=10)
        program.kill()
        service.close()
    program, ready = start(*arguments)
    with program:
        service = PubSub(ready["environment"]["PUBSUB_EMULATOR_HOST"])
        found = service.call("get_topic", topic=topic)
        assert found.message_retention_duration.total_seconds() == 604_800
        received = service.pull(subscription)
        assert data(received) == [str(number) for number in range(10, 50)]
        assert [one.message.message_id for one in received] == ids[10:]
        assert int(service.publish(topic, "next", key="MOR")[0]) > int(ids[-1])
        service.close()


def test_without_a_folder_nothing_is_kept(start: Start, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    program, _ = start()
    with program:
        assert {path.suffix for path in set(tmp_path.iterdir()) - before} == {".out", ".log"}


def test_a_port_that_is_taken_is_told_in_words(start: Start) -> None:
    program, ready = start()
    with program:
        port = ready["environment"]["PUBSUB_EMULATOR_HOST"].rsplit(":", 1)[1]
        second, _ = start("--pubsub-port", port, wait=False)
        assert second.finish(30) == 1
        assert f"Error: cannot start: cannot listen on 127.0.0.1:{port}" in second.last_words()


def test_a_folder_is_for_one_process(start: Start, tmp_path: Path) -> None:
    program, _ = start("--data-dir", tmp_path / "kept")
    with program:
        second, _ = start("--data-dir", tmp_path / "kept", wait=False)
        assert second.finish(30) == 1
        assert "is another process serving it?" in second.last_words()


def test_a_restart_keeps_what_is_not_acknowledged(tmp_path: Path) -> None:
    with LocalPubSub(tmp_path) as local:
        topic = local.topic(labels={"a": "1"})
        subscription = local.subscription(topic)
        local.publish(topic, "a", "b")
        first, _ = local.pull(subscription)
        local.acknowledge(subscription, [first])
    with LocalPubSub(tmp_path) as local:
        assert dict(local.call("get_topic", topic=topic).labels) == {"a": "1"}
        assert local.data(topic) == ["a", "b"]
        assert data(local.pull(subscription)) == ["b"]


def test_an_acknowledgement_from_before_a_restart_is_not_taken_for_another(tmp_path: Path) -> None:
    with LocalPubSub(tmp_path) as local:
        topic = local.topic()
        subscription = local.subscription(topic)
        local.publish(topic, "a")
        old = local.pull(subscription)
    with LocalPubSub(tmp_path) as local:
        assert data(local.pull(subscription)) == ["a"]
        local.acknowledge(subscription, old)
        local.seconds = 10
        assert data(local.pull(subscription)) == ["a"]


def test_a_subscription_made_after_a_message_does_not_get_it_after_a_restart_either(
    tmp_path: Path,
) -> None:
    with LocalPubSub(tmp_path) as local:
        topic = local.topic(message_retention_duration=WEEK)
        local.publish(topic, "before")
        subscription = local.subscription(topic)
        local.publish(topic, "after")
    with LocalPubSub(tmp_path) as local:
        assert data(local.pull(subscription)) == ["after"]


def test_a_deleted_topic_stays_deleted_with_its_messages(tmp_path: Path) -> None:
    with LocalPubSub(tmp_path) as local:
        topic = local.topic(message_retention_duration=WEEK)
        orphan, gone = local.subscription(topic), local.subscription(topic)
        local.publish(topic, "old")
        local.call("delete_subscription", subscription=gone)
        local.call("delete_topic", topic=topic)
    with LocalPubSub(tmp_path) as local:
        with pytest.raises(NotFound):
            local.call("get_topic", topic=topic)
        with pytest.raises(NotFound):
            local.call("get_subscription", subscription=gone)
        local.call("create_topic", name=topic, message_retention_duration=WEEK)
        local.publish(topic, "new")
    with LocalPubSub(tmp_path) as local:
        assert local.data(topic) == ["new"]
        assert data(local.pull(orphan)) == ["old"]
        found = local.call("get_subscription", subscription=orphan)
        assert found.topic == "_deleted-topic_"


def test_the_messages_of_a_deleted_topic_go_with_the_last_that_can_ask_for_them(
    tmp_path: Path,
) -> None:
    def kept() -> int:
        with closing(sqlite3.connect(tmp_path / "pubsub.db")) as db:
            return int(db.execute("SELECT count(*) FROM messages").fetchone()[0])

    with LocalPubSub(tmp_path) as local:
        alone, read = (local.topic(message_retention_duration=WEEK) for _ in range(2))
        subscription = local.subscription(read)
        local.publish(alone, "a", "b")
        local.publish(read, "c")
        for topic in (alone, read):
            local.call("delete_topic", topic=topic)
    assert kept() == 1
    with LocalPubSub(tmp_path) as local:
        local.call("delete_subscription", subscription=subscription)
    assert kept() == 0


def test_message_ids_ascend_over_a_restart_also_when_the_messages_were_thrown_away(
    tmp_path: Path,
) -> None:
    with LocalPubSub(tmp_path) as local:
        topic = local.topic()
        before = local.publish(topic, "a", "b")
    with LocalPubSub(tmp_path) as local:
        assert int(local.publish(topic, "c")[0]) > int(before[-1])


def test_stopping_twice_is_stopping_once() -> None:
    server = PubSubServer(Faults())
    server.start()
    server.stop()
    server.stop()
    assert not listens(server.port)
