from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge import secrets
from bridge.cli import publishing
from bridge.cli.main import cli
from bridge.cli.processes import free_port
from bridge.cli.publishing import BrokerUnreachable, Publisher
from bridge.clock import SystemClock
from bridge.reading import Limits, Message, Reading, parse
from bridge.settings import Settings
from tests.support.listener import Heard, Listener
from tests.support.mosquitto import Mosquitto
from tests.support.poll import eventually

ROOT = Path(__file__).resolve().parents[2]
TOPIC = "FCTS/FAE/MOR/SolvExtract/SX1-E1-FLOW"


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as broker:
        yield broker


def simulate(port: int, *arguments: str, **environment: str) -> Result:
    variables = {"APP_ENV": "LOCAL", "MQTT_BROKER": "127.0.0.1", "MQTT_PORT": str(port)}
    return CliRunner(env={**variables, **environment}).invoke(cli, ["simulate", *arguments])


def settings(port: int, **fields: object) -> Settings:
    return Settings.model_validate({"mqtt_broker": "127.0.0.1", "mqtt_port": port, **fields})


def protected(folder: Path) -> str:
    """Configuration lines for a broker that knows one user, `sensor` with the password `good`."""
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "sensor", "good"], check=True)
    return f"allow_anonymous false\npassword_file {passwords}"


def test_every_reading_arrives_and_is_acknowledged(broker: Mosquitto) -> None:
    with Listener(broker.port) as listener:
        result = simulate(
            broker.port, "--rate=0", "--count=2000", "--sites=MOR,BAG", "--format=json"
        )
        heard = listener.wait_for(2000)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["published"] == summary["acknowledged"] == summary["readings"] == 2000
    assert summary["refused"] == summary["without_subscriber"] == 0
    assert summary["sites"] == {"BAG": 1000, "MOR": 1000}
    assert summary["seconds"] > 0
    assert len(listener.heard) == 2000
    assert len({message.payload for message in heard}) == 2000


def test_what_it_publishes_now_is_accepted_by_the_bridge_now(broker: Mosquitto) -> None:
    with Listener(broker.port) as listener:
        simulate(broker.port, "--rate=200", "--count=20")
        heard = listener.wait_for(20)
    received_us = SystemClock().now_us()
    limits = Limits(max_age_us=60_000_000, max_future_us=0)
    verdicts = [parse(Message(topic, payload, received_us), limits) for topic, payload in heard]
    assert [type(verdict) for verdict in verdicts] == [Reading] * 20


def test_a_seed_repeats_a_run_apart_from_the_times(broker: Mosquitto) -> None:
    arguments = ("--rate=0", "--count=300", "--seed=11", "--junk=5", "--duplicates=5")

    def untimed(heard: list[Heard]) -> list[tuple[str, object]]:
        return [(message.topic, message.payload[:40]) for message in heard]

    with Listener(broker.port) as listener:
        first = json.loads(simulate(broker.port, *arguments, "--format=json").stdout)
        second = json.loads(simulate(broker.port, *arguments, "--format=json").stdout)
        number = first["published"]
        heard = listener.wait_for(2 * number)
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert first["junk"] > 0
    assert first["duplicates"] > 0
    assert untimed(heard[:number]) == untimed(heard[number:])


def test_a_recording_arrives_with_the_digits_of_the_file(broker: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "recording.csv"
    path.write_text(
        "timestamp,site_code,pi_tag,sensor_id,value\n"
        "2020-03-09T10:14:33Z,SKAB,Flow,FT-1,32.00\n"
        "2020-03-09T10:14:34Z,SKAB,Flow,FT-1,0.0265878\n"
    )
    with Listener(broker.port) as listener:
        result = simulate(broker.port, f"--csv={path}", "--speed=0")
        heard = listener.wait_for(2)
    assert result.exit_code == 0, result.output
    assert [message.topic for message in heard] == ["FCTS/FAE/SKAB/SolvExtract/Flow"] * 2
    assert [message.payload.split(b'"value": ')[1] for message in heard] == [
        b"32.00}",
        b"0.0265878}",
    ]


def test_it_says_when_nobody_listens(broker: Mosquitto) -> None:
    result = simulate(broker.port, "--rate=0", "--count=10")
    assert result.exit_code == 0
    assert "10 had no subscriber" in result.stdout


def test_refused_messages_are_counted_and_end_with_exit_code_1(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text("topic read #\ntopic write FCTS/FAE/MOR/#\n")
    rules.chmod(0o600)
    with Mosquitto(f"acl_file {rules}") as broker:
        arguments = ("--rate=0", "--count=10", "--sites=MOR,BAG")
        result = simulate(broker.port, *arguments, "--format=json")
        words = simulate(broker.port, *arguments)
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert (summary["published"], summary["acknowledged"], summary["refused"]) == (10, 5, 5)
    assert summary["refused_reasons"] == {"Not authorized": 5}
    assert "refused: 5 × Not authorized" in words.stdout


def test_a_broker_that_is_not_there_is_said_with_the_remedy() -> None:
    port = free_port()
    result = simulate(port, "--count=1")
    assert result.exit_code == 70
    assert f"127.0.0.1:{port}" in result.stderr
    assert "MQTT_BROKER" in result.stderr


def test_a_port_where_something_else_listens_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = simulate(other.getsockname()[1], "--count=1")
    assert result.exit_code == 70
    assert "does not answer as an MQTT broker" in result.stderr


def test_wrong_credentials_are_a_matter_of_configuration(tmp_path: Path) -> None:
    with Mosquitto(protected(tmp_path)) as broker:
        wrong = simulate(
            broker.port, "--count=1", MQTT_USERNAME="sensor", MQTT_PASSWORD="not-the-password"
        )
        none = simulate(broker.port, "--count=1")
        right = simulate(broker.port, "--count=1", MQTT_USERNAME="sensor", MQTT_PASSWORD="good")
    assert wrong.exit_code == none.exit_code == 78
    assert "MQTT_USERNAME" in wrong.stderr
    assert "not-the-password" not in wrong.output
    assert right.exit_code == 0, right.output


def test_the_password_may_be_a_version_in_secret_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = "projects/plant/secrets/mqtt/versions/3"
    held = {("MQTT_PASSWORD_SECRET", version): "good"}
    monkeypatch.setattr(secrets, "fetch", lambda *asked: held[asked])
    with Mosquitto(protected(tmp_path)) as broker:
        variables = {"MQTT_USERNAME": "sensor", "MQTT_PASSWORD_SECRET": version}
        result = simulate(broker.port, "--count=1", **variables)
    assert result.exit_code == 0, result.output


def test_a_bad_variable_ends_with_78_before_anything_is_published() -> None:
    result = simulate(0, "--count=1")
    assert result.exit_code == 78
    assert "MQTT_PORT" in result.stderr


def test_ctrl_c_ends_the_run_in_order_with_everything_acknowledged(broker: Mosquitto) -> None:
    code = "from bridge.cli.main import main; main()"
    environment = {**os.environ, "APP_ENV": "LOCAL", "MQTT_PORT": str(broker.port)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "simulate", "--rate=500", "--format=json"],
        cwd=ROOT,
        env={**environment, "MQTT_BROKER": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with Listener(broker.port) as listener:
        listener.wait_for(50)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    summary = json.loads(output)
    assert summary["published"] == summary["acknowledged"] >= 50


def test_a_restarted_broker_gets_again_what_it_had_not_acknowledged(broker: Mosquitto) -> None:
    with Publisher(settings(broker.port), "test", in_flight=50) as publisher:
        for number in range(200):
            publisher.publish(TOPIC, b"%d" % number)
        publisher.settle()
        broker.kill()
        for number in range(30):
            publisher.publish(TOPIC, b"%d" % number)
        assert publisher.counts().unanswered >= 30
        broker.restart()
        publisher.settle()
        counts = publisher.counts()
    assert counts.published == counts.acknowledged == 230


def test_a_broker_that_answers_nothing_for_too_long_counts_as_gone(broker: Mosquitto) -> None:
    with Publisher(settings(broker.port), "test", in_flight=5, patience=0.3) as publisher:
        os.kill(broker.program.pid, signal.SIGSTOP)
        try:
            for _ in range(5):
                publisher.publish(TOPIC, b"{}")
            with pytest.raises(BrokerUnreachable, match="5 messages are unanswered"):
                publisher.publish(TOPIC, b"{}")
        finally:
            os.kill(broker.program.pid, signal.SIGCONT)


def test_no_more_is_under_way_than_the_broker_says_it_takes() -> None:
    with Mosquitto("max_inflight_messages 3") as broker:
        with Publisher(settings(broker.port), "test") as publisher:
            for _ in range(500):
                publisher.publish(TOPIC, b"{}")
            publisher.settle()
            assert publisher.counts().acknowledged == 500
        eventually(lambda: "disconnected" in broker.log, "the broker has seen the end")
        assert broker.log.count("New client connected") == 1


def test_settling_twice_and_publishing_after_it_works(broker: Mosquitto) -> None:
    with Publisher(settings(broker.port), "test", in_flight=4) as publisher:
        for _ in range(3):
            publisher.publish(TOPIC, b"{}")
            publisher.settle()
            publisher.settle()
        assert publisher.counts().unanswered == 0


def test_it_connects_over_tls_when_the_settings_say_so(tmp_path: Path) -> None:
    key, certificate = make_certificate(tmp_path)
    listener = free_port()
    lines = f"listener {listener} 127.0.0.1\ncertfile {certificate}\nkeyfile {key}"
    with Mosquitto(lines):
        trusted = simulate(
            listener, "--count=3", MQTT_TLS="true", MQTT_TLS_CA_FILE=str(certificate)
        )
        unknown = simulate(listener, "--count=3", MQTT_TLS="true")
    assert trusted.exit_code == 0, trusted.output
    assert unknown.exit_code == 70
    assert "CERTIFICATE_VERIFY_FAILED" in unknown.stderr


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for 127.0.0.1, signed by itself."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    )
    names = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate)
    subprocess.run(["openssl", *words.split(), *names], check=True, capture_output=True)
    return key, certificate
