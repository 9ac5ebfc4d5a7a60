"""`watch` and the HTTP API on a running daemon: on a terminal, on a pipe, with a token."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bridge.cli.main import cli
from chaos.bridge_process import ROOT, Bridge
from tests.support.plant import SITES, numbered, plant, settle
from tests.support.poll import eventually
from tests.support.terminal import Terminal

TOKEN = "correct-horse-battery"
COUNT = 500
WATCH = (sys.executable, str(ROOT / "mqtt_subscriber.py"), "watch")


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """A daemon that has settled some readings, and whose figures of tags have them all."""
    with plant(tmp_path_factory.mktemp("plant")) as made:
        running = made.bridge(HTTP_TOKEN=TOKEN, HTTP_HOST="0.0.0.0")
        running.start()
        made.publish(numbered(COUNT))
        settle(running, COUNT)
        eventually(lambda: counted(running) == COUNT, "all readings are in the figures of tags")
        yield running


def counted(bridge: Bridge) -> int:
    tags = asked(bridge, "/api/tags?limit=500")["tags"]
    return sum(tag["count_30m"] for tag in tags)


def asked(bridge: Bridge, path: str) -> Any:
    return json.loads(bridge.text(path))


def here(bridge: Bridge) -> str:
    return f"http://127.0.0.1:{bridge.port}"


def elsewhere(bridge: Bridge) -> str:
    """A name of this machine under which it counts as another one."""
    return f"http://127.0.0.2:{bridge.port}"


def watch(*arguments: str, **environment: str) -> Result:
    """In this process, in which no terminal is near."""
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"))
    return CliRunner().invoke(cli, ["watch", *arguments], env={**proxies, **environment})


# --- the figures ----------------------------------------------------------------------------------


def test_every_tag_has_the_values_that_its_sensor_sent(bridge: Bridge) -> None:
    shown = asked(bridge, "/api/tags?limit=500")
    assert shown["total"] == 50
    for tag in shown["tags"]:
        number = int(tag["pi_tag"].rpartition("-")[2])
        values = [float(value) for value in range(number, COUNT, 50)]
        assert tag["site"] == SITES[number % len(SITES)]
        assert tag["last_value"] == values[-1]
        assert tag["average_30m"] == pytest.approx(sum(values) / len(values))


def test_the_overview_has_both_sinks_and_the_ledger(bridge: Bridge) -> None:
    shown = asked(bridge, "/api/overview")
    assert shown["environment"] == "DEV"
    assert [sink["name"] for sink in shown["sinks"]] == ["pubsub", "bigquery"]
    assert shown["ledger"]["totals"]["accepted"] == COUNT
    assert shown["statistics"]["available"] is True
    assert asked(bridge, "/api/sites")["total"] == len(SITES)


# --- on a pipe ------------------------------------------------------------------------------------


def test_one_look_prints_plain_lines(bridge: Bridge) -> None:
    command = [*WATCH, "--once", "--url", here(bridge), "--site", "MOR", "--tag", "flow-5"]
    done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "sink pubsub" in done.stdout
    tags = [line for line in done.stdout.splitlines() if line.startswith("  tag")]
    assert [line.split(",")[0].strip() for line in tags] == ["tag MOR/SX1-FLOW-5"]


def test_several_looks_as_json_are_a_document_a_line(bridge: Bridge) -> None:
    done = watch(
        *("--count", "2", "--interval", "0.2", "--format", "json"),
        *("--sort", "value", "--descending", "--limit", "3"),
        PORT=str(bridge.port),
    )
    assert done.exit_code == 0
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(documents) == 2
    values = [tag["last_value"] for tag in documents[0]["tags"]["tags"]]
    assert values == [499.0, 498.0, 497.0]
    assert documents[0]["overview"]["ledger"]["totals"]["accepted"] == COUNT


def test_from_another_machine_the_token_is_wanted_and_taken_as_the_daemon_takes_it(
    bridge: Bridge, tmp_path: Path
) -> None:
    done = watch("--once", "--url", elsewhere(bridge))
    assert done.exit_code == 70
    assert "wants its token. Remedy: set HTTP_TOKEN or HTTP_TOKEN_FILE" in done.stderr
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert watch("--once", "--url", elsewhere(bridge), HTTP_TOKEN_FILE=str(file)).exit_code == 0
    assert watch("--once", "--url", elsewhere(bridge), HTTP_TOKEN=TOKEN).exit_code == 0
    assert watch("--once", "--url", elsewhere(bridge), "--token", TOKEN).exit_code == 0


def test_where_nobody_or_nothing_of_the_kind_answers_it_says_so(bridge: Bridge) -> None:
    done = watch("--once", "--url", "http://127.0.0.1:1")
    assert done.exit_code == 70
    assert "Remedy: see that the bridge runs there" in done.stderr
    done = watch("--once", "--url", f"{here(bridge)}/ledger")
    assert done.exit_code == 70
    assert "is no bridge" in done.stderr
    done = watch("--once", "--url", "127.0.0.1:8080")
    assert done.exit_code == 78
    assert "give the scheme" in done.stderr


# --- on a terminal --------------------------------------------------------------------------------


def on_terminal(*arguments: str) -> Terminal:
    return Terminal([*WATCH, "--interval", "0.3", *arguments], {}, rows=30, columns=120)


def test_on_a_terminal_it_shows_itself_turns_pages_and_ends_with_q(bridge: Bridge) -> None:
    with on_terminal("--url", here(bridge)) as terminal:
        before = terminal.settings()
        shown = terminal.wait_for("Tags 1–")
        assert "\x1b[?1049h" in shown  # a screen of its own
        terminal.press("n")
        terminal.wait_for("Tags 14–26 of 50")
        terminal.forget()
        terminal.resize(60, 120)
        terminal.wait_for("Tags 14–50 of 50")
        terminal.press("p")
        terminal.wait_for("Tags 1–43 of 50")
        terminal.press("q")
        assert terminal.end() == 0
        assert b"\x1b[?1049l" in terminal.printed
        assert terminal.settings() == before


@pytest.mark.parametrize("how", ["\x03", signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_it_in_order(bridge: Bridge, how: str | signal.Signals) -> None:
    with on_terminal("--url", here(bridge)) as terminal:
        terminal.wait_for("Tags 1–")
        if isinstance(how, str):
            terminal.press(how)
        else:
            terminal.signal(how)
        assert terminal.end() == 0
        assert b"\x1b[?1049l" in terminal.printed


def test_while_the_bridge_is_away_it_says_since_when_and_goes_on_by_itself(bridge: Bridge) -> None:
    with on_terminal("--url", here(bridge)) as terminal:
        terminal.wait_for("Tags 1–")
        assert bridge.terminate() == 0
        terminal.wait_for("no answer since")
        bridge.start()
        eventually(lambda: counted(bridge) == COUNT, "the figures are made anew from the journal")
        terminal.forget()
        terminal.wait_for("Tags 1–")
        terminal.press("q")
        assert terminal.end() == 0
