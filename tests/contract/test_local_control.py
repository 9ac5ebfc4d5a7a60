"""The control port of the local services, asked over HTTP."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core.exceptions import ServiceUnavailable

from localgcp.server import LocalServices
from tests.support.poll import eventually
from tests.support.pubsub import PubSub

WEEK = {"seconds": 604_800}


class Control:
    def __init__(self, services: LocalServices) -> None:
        self._url = services.control
        self.pubsub = PubSub(services.environment()["PUBSUB_EMULATOR_HOST"])

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            self._url + path, method=method, data=None if body is None else content
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status), bytes(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def json(self, method: str, path: str, body: object = None) -> Any:
        status, content = self.ask(method, path, body)
        assert status == 200, content
        return json.loads(content)

    def error(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        status, content = self.ask(method, path, body)
        return status, json.loads(content)["error"]

    def lines(self, path: str) -> list[Any]:
        status, content = self.ask("GET", path)
        assert status == 200, content
        return [json.loads(line) for line in content.splitlines()]


@pytest.fixture
def control() -> Iterator[Control]:
    with LocalServices() as services:
        control = Control(services)
        yield control
        control.pubsub.close()


def path_of(topic: str) -> str:
    _, project, _, name = topic.split("/")
    return f"/pubsub/{project}/{name}"


def test_a_fault_is_put_in_force_listed_and_lifted(control: Control) -> None:
    topic = control.pubsub.topic(message_retention_duration=WEEK)
    first = control.json("POST", "/faults", {"call": "pubsub.Publish", "times": None})
    second = control.json("POST", "/faults", {"call": "bigquery.*", "status": "503"})
    with pytest.raises(ServiceUnavailable):
        control.pubsub.publish(topic, "a")
    listing = control.json("GET", "/faults")
    assert [(one["id"], one["call"], one["used"]) for one in listing] == [
        (first["id"], "pubsub.Publish", 1),
        (second["id"], "bigquery.*", 0),
    ]
    control.json("DELETE", f"/faults/{first['id']}")
    control.pubsub.publish(topic, "a")
    assert [one["id"] for one in control.json("GET", "/faults")] == [second["id"]]
    control.json("DELETE", "/faults")
    assert control.json("GET", "/faults") == []


def test_calls_are_counted(control: Control) -> None:
    control.pubsub.topic()
    control.pubsub.topic()
    assert control.json("GET", "/calls") == {"pubsub.CreateTopic": 2}


@pytest.mark.parametrize("body", [b"nonsense", b"", b"[]", b'"x"', b'{"call": "pubsub.Publish",'])
def test_a_fault_that_is_no_json_object_is_refused(control: Control, body: bytes) -> None:
    status, words = control.error("POST", "/faults", body)
    assert status == 400
    assert words
    assert control.json("GET", "/faults") == []


def test_a_wrong_fault_is_refused_in_words(control: Control) -> None:
    wrong = {"call": "pubsub.Publish", "times": "3"}
    assert control.error("POST", "/faults", wrong) == (
        400,
        "times is a whole number from 1 on, not '3'",
    )


def test_published_messages_are_counted_and_read_back(control: Control) -> None:
    topic = control.pubsub.topic(message_retention_duration=WEEK)
    path = path_of(topic)
    assert control.json("GET", f"{path}/count") == {"count": 0}
    assert control.lines(path) == []
    message = {"data": b'{"a": 1}', "attributes": {"event_id": "e1"}, "ordering_key": "MOR"}
    before = time.time_ns() // 1000
    (id_,) = control.pubsub.call("publish", topic=topic, messages=[message]).message_ids
    control.pubsub.call("publish", topic=topic, messages=[{"data": b"\xff"}, {"data": b"c"}])
    assert control.json("GET", f"{path}/count") == {"count": 3}
    lines = control.lines(path)
    assert before <= lines[0].pop("publish_us") <= time.time_ns() // 1000
    assert lines[0] == {
        "message_id": id_,
        "ordering_key": "MOR",
        "event_id": "e1",
        "attributes": {"event_id": "e1"},
        "data": '{"a": 1}',
    }
    assert lines[1]["data_base64"] == "/w=="
    assert lines[1]["event_id"] is None
    assert control.lines(f"{path}?after=2") == lines[2:]
    assert control.lines(f"{path}?after=3") == []


@pytest.mark.parametrize("after", ["-1", "x", "1.5", ""])
def test_a_wrong_position_is_refused_in_words(control: Control, after: str) -> None:
    path = path_of(control.pubsub.topic())
    status, words = control.error("GET", f"{path}?after={after}")
    assert (status, words[:6]) == (400, "after=")


@pytest.mark.parametrize("path", ["/pubsub/plant-project/none", "/pubsub/plant-project/none/count"])
def test_an_unknown_topic_is_not_found(control: Control, path: str) -> None:
    status, words = control.error("GET", path)
    assert status == 404
    assert "projects/plant-project/topics/none" in words


def test_each_write_to_a_table_is_noted_with_its_time() -> None:
    path = "/bigquery/plant-project/plant/readings/arrivals"
    with LocalServices() as services:
        control = Control(services)
        services.tables.create_dataset("plant-project.plant", {})
        column = {"name": "site_code", "type": "STRING", "mode": "REQUIRED"}
        resource = {"schema": {"fields": [column]}}
        services.tables.create_table("plant-project.plant.readings", resource)
        table = services.tables.table("plant-project.plant.readings")
        assert control.json("GET", path) == []
        before = time.time_ns() // 1000
        services.tables.append(table, [("MOR",), ("BAG",)])
        stream = services.tables.create_stream(table.id)
        services.tables.append_at(stream, table, 0, [("SIE",)])
        (rows, first), (row, second) = control.json("GET", path)
        assert (rows, row) == (2, 1)
        assert before <= first <= second <= time.time_ns() // 1000
        assert control.ask("GET", path.replace("readings", "none"))[0] == 404
        control.pubsub.close()


def test_wrong_fields_for_a_table_are_refused_in_words(control: Control) -> None:
    path = "/bigquery/plant-project/plant/readings/hide"
    for body in ({"hours": 1}, None, b"[]"):
        status, words = control.error("POST", path, body)
        assert status == 400
        assert words


def test_a_call_that_hangs_does_not_keep_the_services_from_stopping() -> None:
    with LocalServices() as services:
        control = Control(services)
        calls = []
        for kind in ("hang", "delay"):
            fault = {"call": "pubsub.Publish", "kind": kind, "seconds": 600}
            control.json("POST", "/faults", fault)
            calls.append(control.pubsub.start("/google.pubsub.v1.Publisher/Publish"))
        eventually(lambda: control.json("GET", "/calls").get("pubsub.Publish") == 2, "both wait")
    eventually(lambda: all(call.done() for call in calls), "both calls have ended")
    control.pubsub.close()
