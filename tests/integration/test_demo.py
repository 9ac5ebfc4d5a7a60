from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.cli import broker
from bridge.cli.demo import Plan, perform
from bridge.cli.demo_stage import Stage, prepared, running
from bridge.cli.processes import Program, ProgramFailed

ROOT = Path(__file__).resolve().parents[2]
ENTRANCE = str(ROOT / "mqtt_subscriber.py")
SHORT = Plan(seconds=2, rate=150, sites=3, tags=5, junk=5, duplicates=5, seed=1)


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose temporary files go to a directory of the test, and must be gone."""
    yield {**os.environ, "TMPDIR": str(tmp_path)}
    assert list(tmp_path.iterdir()) == []


def demo(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ENTRANCE, "demo", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def programs_in(directory: str) -> list[int]:
    """The processes that were started with something of the directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(process / name).read_bytes() for name in ("cmdline", "environ")]
        except OSError:
            continue  # it has ended meanwhile
        if any(f"{directory}/fcts-demo-".encode() in text for text in texts):
            found.append(int(process.name))
    return found


def test_the_demo_proves_that_everything_arrived_once_and_in_order(
    temporary: dict[str, str],
) -> None:
    process = demo(
        temporary, "--seconds=3", "--rate=300", "--junk=5", "--duplicates=5", "--format=json"
    )
    output, errors = process.communicate(timeout=150)
    assert process.returncode == 0, errors
    report = json.loads(output)
    assert report["proven"] is True
    assert report["published"] == report["pubsub"] == report["bigquery"] >= 800
    assert report["dead_letters"] == report["junk"] != {}
    assert report["ledger"]["balanced"] is True
    assert report["duplicates"] > 0
    assert "/ledger" in errors
    assert " readings published, " in errors


def test_the_demo_closes_with_a_table_and_the_counts_in_one_sentence(
    temporary: dict[str, str],
) -> None:
    process = demo(temporary, "--seconds=1", "--rate=50", "--sites=2")
    output, errors = process.communicate(timeout=150)
    assert process.returncode == 0, errors
    assert "✗" not in output
    assert output.count("✓") >= 10
    assert "50 readings published, 50 events in Pub/Sub, 50 rows in BigQuery" in output


@pytest.fixture
def background() -> Iterator[None]:
    """What is started now ignores SIGINT, as behind an & in a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("background")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_neither_processes_nor_files(
    temporary: dict[str, str], number: signal.Signals
) -> None:
    process = demo(temporary, "--seconds=600")
    assert process.stderr is not None
    for line in process.stderr:
        if "readings published" in line:
            break
    assert len(programs_in(temporary["TMPDIR"])) >= 3
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert programs_in(temporary["TMPDIR"]) == []


def test_variables_of_a_real_environment_never_reach_the_demo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = {
        "APP_ENV": "PRD",
        "GCP_PROJECT_ID": "plant-prd",
        "GOOGLE_CLOUD_PROJECT": "plant-prd",
        "PUBSUB_ENDPOINT": "us-central1-pubsub.googleapis.com",
        "PUBSUB_EMULATOR_HOST": "127.0.0.1:1",
        "MQTT_TLS": "true",
        "K_SERVICE": "bridge",
    }
    for name, value in real.items():
        monkeypatch.setenv(name, value)
    with prepared() as (_, environment, _services):
        for name in ("GOOGLE_CLOUD_PROJECT", "PUBSUB_ENDPOINT", "MQTT_TLS", "K_SERVICE"):
            assert name not in environment
        assert environment["GCP_PROJECT_ID"] == "demo-project"
        assert environment["PUBSUB_EMULATOR_HOST"] != "127.0.0.1:1"


def test_a_bridge_that_dies_in_the_middle_is_shown_with_the_end_of_its_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @contextmanager
    def doomed(directory: Path, environment: dict[str, str], services: Program) -> Iterator[Stage]:
        with running(directory, environment, services) as stage:
            os.kill(stage.bridge.pid, signal.SIGKILL)
            yield stage

    monkeypatch.setattr("bridge.cli.demo.running", doomed)
    with pytest.raises(ProgramFailed, match=r"(?s)bridge ended with exit code -9.*last words"):
        perform(SHORT, lambda _: None)


def test_a_bridge_that_cannot_start_is_shown_with_its_words() -> None:
    with (
        prepared() as (directory, environment, services),
        pytest.raises(ProgramFailed, match=r"(?s)bridge ended with exit code 78.*MQTT_PORT"),
        running(directory, {**environment, "MQTT_PORT": "0"}, services),
    ):
        pass


def test_without_mosquitto_the_demo_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker, "PLACES", ())
    with pytest.raises(broker.MosquittoMissing, match="apt-get install mosquitto"):
        perform(SHORT, lambda _: None)
