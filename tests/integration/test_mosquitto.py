from __future__ import annotations

from pathlib import Path

import pytest

from bridge.cli import broker as broker_module
from bridge.cli.broker import SETTINGS_FILE, MosquittoMissing, configuration
from bridge.cli.processes import Program, ProgramFailed, free_port, listens
from bridge.cli.publishing import Publisher
from bridge.settings import Settings
from tests.support.listener import Listener
from tests.support.mosquitto import Mosquitto
from tests.support.poll import eventually

TOPIC = "FCTS/FAE/MOR/SolvExtract/SX1-E1-FLOW"


def publish(port: int, number: int) -> None:
    settings = Settings.model_validate({"mqtt_broker": "127.0.0.1", "mqtt_port": port})
    with Publisher(settings, "test") as publisher:
        for index in range(number):
            publisher.publish(TOPIC, b"%d" % index)
        publisher.settle()
        assert publisher.counts().acknowledged == number


def leave_session(port: int) -> None:
    with Listener(port, client_id="bridge", kept_seconds=3600):
        pass


def missed(port: int, number: int) -> list[int]:
    with Listener(port, client_id="bridge", kept_seconds=3600) as listener:
        return [int(message.payload) for message in listener.wait_for(number)]


def wait_for_snapshot(broker: Mosquitto) -> None:
    path = broker.directory / "mosquitto.db"

    def written() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    before = written()
    eventually(lambda: written() > before, "the broker writes a snapshot")


def test_the_configuration_is_taken_by_mosquitto_as_it_stands(tmp_path: Path) -> None:
    port = free_port()
    text = SETTINGS_FILE.read_text().replace("listener 1883 ", f"listener {port} ")
    conf = tmp_path / "mosquitto.conf"
    conf.write_text(text.replace("data/mosquitto/", f"{tmp_path}/"))
    arguments = (broker_module.find_mosquitto(), "-c", conf)
    with Program("mosquitto", arguments, tmp_path) as program:
        program.wait_until(lambda: listens(port), 10)
        log = program.log.read_text()
    assert "Error" not in log
    assert "deprecated" not in log


def test_a_broker_of_ones_own_has_the_same_settings_on_its_own_listener(tmp_path: Path) -> None:
    made = configuration(SETTINGS_FILE.read_text(), 4711, tmp_path, "max_qos 1").splitlines()
    assert "max_queued_messages 1000000" in made
    assert [line for line in made if line.startswith("listener")] == ["listener 4711 127.0.0.1"]
    places = [line for line in made if line.startswith("persistence_location")]
    assert places == [f"persistence_location {tmp_path}/"]
    assert made[-1] == "max_qos 1"


def test_what_belongs_to_other_listeners_or_to_a_place_is_left_out(tmp_path: Path) -> None:
    base = "persistence true\nuser nobody\npassword_file x\nlistener 1\nprotocol websockets\n"
    made = configuration(base, 4711, tmp_path).splitlines()
    assert made[0] == "persistence true"
    assert not {"user nobody", "password_file x", "protocol websockets"} & set(made)


def test_thousands_of_readings_for_an_absent_bridge_are_all_kept_in_order() -> None:
    with Mosquitto() as broker:
        leave_session(broker.port)
        publish(broker.port, 5000)
        assert missed(broker.port, 5000) == list(range(5000))


def test_a_broker_that_is_stopped_in_order_forgets_nothing() -> None:
    with Mosquitto() as broker:
        leave_session(broker.port)
        publish(broker.port, 300)
        port = broker.port
        broker.restart()
        assert broker.port == port
        assert missed(port, 300) == list(range(300))


def test_a_broker_that_crashes_forgets_nothing_that_its_snapshot_has() -> None:
    with Mosquitto() as broker:
        leave_session(broker.port)
        publish(broker.port, 300)
        # Two snapshots later, one of them has surely begun after the last message.
        wait_for_snapshot(broker)
        wait_for_snapshot(broker)
        broker.kill()
        broker.restart()
        assert missed(broker.port, 300) == list(range(300))


def test_a_port_that_somebody_else_has_taken_meanwhile_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Mosquitto() as first:
        ports = iter([first.port, free_port()])
        monkeypatch.setattr(broker_module, "free_port", lambda: next(ports))
        monkeypatch.setattr(
            broker_module, "listens", lambda port: port != first.port and listens(port)
        )
        with Mosquitto() as second:
            assert second.port != first.port
            publish(second.port, 1)


def test_a_broker_that_does_not_start_is_shown_with_its_last_words() -> None:
    with pytest.raises(ProgramFailed, match="no_such_option"), Mosquitto("no_such_option 1"):
        pass


def test_without_mosquitto_the_remedy_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker_module, "PLACES", ())
    with pytest.raises(MosquittoMissing, match="apt-get install mosquitto"), Mosquitto():
        pass
