"""The daemon as a process, and a broker that is away, refuses, forgets or is an impostor."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.processes import free_port
from bridge.cli.publishing import Publisher
from bridge.settings import load
from chaos.bridge_process import Bridge
from tests.support.fake_broker import PUBACK, FakeBroker
from tests.support.mosquitto import Mosquitto
from tests.support.plant import numbered
from tests.support.poll import eventually

DYNAMIC_SECURITY = Path("/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so")
SECRET = "hunter2-do-not-print"


@contextmanager
def daemon(directory: Path, port: int, **changes: str) -> Iterator[Bridge]:
    """In LOCAL, which settles by logging; the test starts it."""
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "APP_ENV": "LOCAL",
        "MQTT_BROKER": "127.0.0.1",
        "MQTT_PORT": str(port),
        "JOURNAL_PATH": str(directory / "journal" / "journal.db"),
        "LOG_FORMAT": "json",
        **changes,
    }
    bridge = Bridge(directory, environment)
    try:
        yield bridge
    finally:
        bridge.kill()


def readiness(bridge: Bridge) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{bridge.port}/readyz", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        found = json.load(error)
    return found


def wait_for_reason(bridge: Bridge, part: str) -> str:
    """The reason why it is not ready, once it has this part."""

    def reason() -> str:
        try:
            return str(readiness(bridge).get("reason") or "")
        except OSError:
            return ""

    eventually(lambda: part in reason(), f"/readyz says {part!r}")
    assert bridge.status("/readyz") == 503
    assert bridge.status("/livez") == 200
    return reason()


def wait_ready(bridge: Bridge) -> None:
    eventually(bridge.ready, "the bridge is ready")


def publish(
    port: int, count: int, first: int = 0, security: Mapping[str, str] | None = None
) -> None:
    made = load({"MQTT_BROKER": "127.0.0.1", "MQTT_PORT": str(port), **(security or {})})
    with Publisher(made, "sensors") as publisher:
        for topic, payload in numbered(count, first=first):
            publisher.publish(topic, payload)
        publisher.settle()
        assert publisher.counts().refused == 0


def wait_accepted(bridge: Bridge, count: int) -> None:
    eventually(lambda: bridge.ledger()["totals"]["accepted"] == count, f"{count} are accepted")


def lines(bridge: Bridge) -> list[dict[str, Any]]:
    return [json.loads(line) for line in bridge.log.splitlines() if line.startswith("{")]


def metric(bridge: Bridge, name: str) -> float:
    (line,) = [line for line in bridge.text("/metrics").splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[-1])


# --- starting -------------------------------------------------------------------------------------


def test_one_line_at_the_start_says_what_runs_where_and_no_secret(tmp_path: Path) -> None:
    secrets = {"MQTT_USERNAME": "the-user", "MQTT_PASSWORD": SECRET, "HTTP_TOKEN": SECRET}
    with Mosquitto() as broker, daemon(tmp_path, broker.port, **secrets) as bridge:
        bridge.start()
        (line,) = [line for line in lines(bridge) if line["message"] == "starting"]
        assert bridge.terminate() == 0
    assert line["severity"] == "INFO"
    assert line["environment"] == "LOCAL"
    assert line["broker"] == f"mqtt://127.0.0.1:{broker.port}"
    assert line["topic_filter"] == "FCTS/FAE/+/SolvExtract/+"
    assert line["sink_log"] == "log"
    assert line["journal"] == bridge.environment["JOURNAL_PATH"]
    assert line["http"] == f"127.0.0.1:{bridge.port}"
    assert SECRET not in bridge.log


def test_a_broker_that_is_not_there_at_the_start_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    with daemon(tmp_path, port) as bridge:
        bridge.start(wait=False)
        wait_for_reason(bridge, "the broker cannot be reached")
        broker = Mosquitto()
        broker.port = port
        with broker:
            wait_ready(bridge)
            publish(port, 5)
            wait_accepted(bridge, 5)
            assert bridge.terminate() == 0


def test_a_stop_while_the_broker_is_away_is_a_clean_one(tmp_path: Path) -> None:
    with daemon(tmp_path, free_port()) as bridge:
        bridge.start(wait=False)
        wait_for_reason(bridge, "the broker cannot be reached")
        began = time.monotonic()
        assert bridge.terminate() == 0
        assert time.monotonic() - began < 5


# --- refusals -------------------------------------------------------------------------------------


def test_a_wrong_password_is_said_and_the_right_one_works_from_a_file(tmp_path: Path) -> None:
    passwords, held = tmp_path / "passwords", tmp_path / "held"
    passwords.touch(mode=0o600)
    held.write_text(f"{SECRET}\n")
    command = ["mosquitto_passwd", "-b", str(passwords), "bridge", SECRET]
    subprocess.run(command, check=True, capture_output=True)
    user = {"MQTT_USERNAME": "bridge"}
    with Mosquitto(f"password_file {passwords}\nallow_anonymous false") as broker:
        with daemon(tmp_path, broker.port, **user, MQTT_PASSWORD="wrong") as bridge:
            bridge.start(wait=False)
            wait_for_reason(bridge, "the broker refused the connection: Not authorized")
            assert bridge.terminate() == 0
        with daemon(tmp_path, broker.port, **user, MQTT_PASSWORD_FILE=str(held)) as bridge:
            bridge.start()
            assert bridge.terminate() == 0
            assert SECRET not in bridge.log


def security(allowed: bool) -> str:
    access = {"publishClientSend": True, "publishClientReceive": True, "unsubscribe": True}
    return json.dumps({"defaultACLAccess": {**access, "subscribe": allowed}})


@pytest.mark.skipif(not DYNAMIC_SECURITY.exists(), reason="needs Mosquitto's security plugin")
def test_a_refused_subscription_is_said_and_works_as_soon_as_it_is_allowed(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(security(allowed=False))
    extra = f"plugin {DYNAMIC_SECURITY}\nplugin_opt_config_file {rules}"
    with Mosquitto(extra) as broker, daemon(tmp_path, broker.port) as bridge:
        bridge.start(wait=False)
        reason = wait_for_reason(bridge, "refused the subscription to FCTS/FAE/+/SolvExtract/+")
        assert "Not authorized" in reason
        broker.stop()
        rules.write_text(security(allowed=True))
        broker.start()
        wait_ready(bridge)
        publish(broker.port, 5)
        wait_accepted(bridge, 5)
        assert bridge.terminate() == 0


# --- forgetting -----------------------------------------------------------------------------------


def test_a_broker_that_forgets_the_session_is_an_error_and_counted(tmp_path: Path) -> None:
    with Mosquitto("persistence false") as broker, daemon(tmp_path, broker.port) as bridge:
        bridge.start()
        assert metric(bridge, "bridge_mqtt_sessions_lost_total") == 0
        publish(broker.port, 5)
        wait_accepted(bridge, 5)
        broker.kill()
        wait_for_reason(bridge, "connection")
        broker.start()
        wait_ready(bridge)
        assert metric(bridge, "bridge_mqtt_sessions_lost_total") == 1
        publish(broker.port, 5, first=5)
        wait_accepted(bridge, 10)
        assert bridge.terminate() == 0
        errors = [line["message"] for line in lines(bridge) if line["severity"] == "ERROR"]
        assert len([message for message in errors if "lost the session" in message]) == 1


def test_a_bridge_killed_before_its_puback_was_read_takes_nothing_twice(tmp_path: Path) -> None:
    ((topic, payload),) = numbered(1)
    with (
        FakeBroker() as broker,
        daemon(tmp_path, broker.port, JOURNAL_RETENTION_MINUTES="0") as bridge,
    ):
        bridge.start(wait=False)
        first = broker.next().accept()
        wait_ready(bridge)
        first.publish(topic, payload, 1)
        wait_accepted(bridge, 1)
        eventually(lambda: bridge.settled(1), "it is settled")
        bridge.kill()
        first.close()
        bridge.start(wait=False)
        second = broker.next().accept(present=True)
        second.publish(topic, payload, 1, duplicate=True)
        second.wait_for(PUBACK)
        totals = bridge.ledger()["totals"]
        assert (totals["accepted"], totals["duplicates"]) == (1, 1)
        assert bridge.terminate() == 0


# --- TLS ------------------------------------------------------------------------------------------


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def authority(directory: Path, name: str) -> None:
    openssl(
        directory,
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
        *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
    )


def certificate(directory: Path, name: str, by: str) -> None:
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl(
        directory,
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
        *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
    )
    openssl(
        directory,
        *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key"),
        *("-CAcreateserial", "-days", "2", "-extfile", "names", "-out", f"{name}.pem"),
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    authority(directory, "plant")
    authority(directory, "stranger")
    certificate(directory, "broker", by="plant")
    certificate(directory, "bridge", by="plant")
    return directory


def tls(directory: Path, authority: str, client: str | None = "bridge") -> Mapping[str, str]:
    settings = {"MQTT_TLS": "true", "MQTT_TLS_CA_FILE": str(directory / f"{authority}.pem")}
    if client is not None:
        settings["MQTT_TLS_CERT_FILE"] = str(directory / f"{client}.pem")
        settings["MQTT_TLS_KEY_FILE"] = str(directory / f"{client}.key")
    return settings


def tls_broker(directory: Path) -> Mosquitto:
    return Mosquitto(
        f"cafile {directory}/plant.pem\ncertfile {directory}/broker.pem\n"
        f"keyfile {directory}/broker.key\nrequire_certificate true\nuse_identity_as_username true"
    )


def test_over_tls_with_certificates_of_both_sides_readings_arrive(
    tmp_path: Path, certificates: Path
) -> None:
    with tls_broker(certificates) as broker:
        settings = tls(certificates, "plant")
        with daemon(tmp_path, broker.port, **settings) as bridge:
            bridge.start()
            publish(broker.port, 2_000, security=settings)
            wait_accepted(bridge, 2_000)
            assert bridge.terminate() == 0


@pytest.mark.parametrize(
    ("trusted", "client", "words"),
    [
        ("stranger", "bridge", "certificate verify failed"),
        ("plant", None, "It may want another certificate"),
    ],
)
def test_a_certificate_that_is_not_trusted_is_refused_with_words(
    tmp_path: Path, certificates: Path, trusted: str, client: str | None, words: str
) -> None:
    with (
        tls_broker(certificates) as broker,
        daemon(tmp_path, broker.port, **tls(certificates, trusted, client)) as bridge,
    ):
        bridge.start(wait=False)
        wait_for_reason(bridge, words)
        assert bridge.terminate() == 0


def test_certificate_files_that_do_not_belong_together_end_the_start_with_78(
    tmp_path: Path, certificates: Path
) -> None:
    changes = {
        **tls(certificates, "plant"),
        "MQTT_TLS_KEY_FILE": str(certificates / "broker.key"),
    }
    with daemon(tmp_path, free_port(), **changes) as bridge:
        bridge.start(wait=False)
        assert bridge.program.finish(20) == 78
        assert "MQTT_TLS_KEY_FILE" in bridge.log


# --- standing still -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bridge_that_was_stopped_for_longer_than_the_keep_alive_goes_on_and_loses_nothing(
    tmp_path: Path,
) -> None:
    with Mosquitto("max_keepalive 10") as broker, daemon(tmp_path, broker.port) as bridge:
        bridge.start()
        publish(broker.port, 100)
        wait_accepted(bridge, 100)
        os.kill(bridge.program.pid, signal.SIGSTOP)
        try:
            publish(broker.port, 500, first=100)
            eventually(lambda: "exceeded timeout" in broker.log, "the broker has given it up", 40)
        finally:
            os.kill(bridge.program.pid, signal.SIGCONT)
        wait_accepted(bridge, 600)
        wait_ready(bridge)
        assert bridge.status("/livez") == 200
        assert metric(bridge, "bridge_mqtt_sessions_lost_total") == 0
        assert bridge.terminate() == 0


# --- a damaged journal ----------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    """All pages but the first, as a disk that has gone wrong might."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


def test_damage_found_while_it_runs_ends_with_70_and_is_set_aside_at_the_next_start(
    tmp_path: Path,
) -> None:
    with Mosquitto() as broker, daemon(tmp_path, broker.port) as bridge:
        bridge.start()
        publish(broker.port, 500)
        wait_accepted(bridge, 500)
        journal = Path(bridge.environment["JOURNAL_PATH"])
        assert bridge.terminate() == 0
        bridge.start()
        overwrite(journal)
        publish(broker.port, 200, first=500)
        assert bridge.program.finish(30) == 70
        assert "the journal is damaged" in bridge.log
        bridge.start(wait=False)
        wait_ready(bridge)
        assert list(journal.parent.glob("journal.db.corrupt-*"))
        assert readiness(bridge)["loss"]
        publish(broker.port, 200, first=500)  # what was in hand was not acknowledged
        eventually(
            lambda: bridge.ledger()["totals"]["accepted"] >= 200, "the bridge takes readings again"
        )
        assert bridge.terminate() == 0
    db = sqlite3.connect(journal)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
