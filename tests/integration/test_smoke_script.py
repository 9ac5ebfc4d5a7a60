"""deploy/smoke.sh with a real curl, against the bridge's real HTTP side behind a front end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bridge.snapshot import SinkCounts
from bridge.web.app import create_app
from bridge.web.server import HttpServer
from tests.support.daemon import FakeDaemon, calm_state, line

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "smoke.sh"
TOKEN = "correct-horse-battery"


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon(sites={"MOR": line(3, log=SinkCounts(3))}, taken=3)


@pytest.fixture
def url(daemon: FakeDaemon) -> Iterator[str]:
    app = create_app(daemon, token=lambda: TOKEN, local=False)

    def behind_a_front_end(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return app({**environ, "HTTP_X_FORWARDED_FOR": "203.0.113.9"}, start)

    server = HttpServer(behind_a_front_end, "127.0.0.1", 0, daemon.beat)
    server.start()
    yield f"http://127.0.0.1:{server.port}"
    server.stop()


def smoke(url: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HTTP_TOKEN": token, "SMOKE_SECONDS": "0"}
    return subprocess.run([SCRIPT, url], env=environment, capture_output=True, text=True)


def test_a_bridge_that_is_ready_and_balances_passes(url: str) -> None:
    result = smoke(url)
    assert result.returncode == 0, result.stderr
    assert "is ready, and its ledger balances" in result.stdout


def test_a_bridge_that_takes_no_readings_fails(url: str, daemon: FakeDaemon) -> None:
    daemon.now = calm_state(unready="not connected")
    assert "/readyz was not 200 within 0 seconds" in smoke(url).stderr


def test_a_ledger_that_does_not_balance_fails_and_is_shown(url: str, daemon: FakeDaemon) -> None:
    daemon.sites["MOR"] = line(3, log=SinkCounts(2))
    result = smoke(url)
    assert result.returncode != 0
    assert 'does not balance: {"balanced":' in result.stderr


def test_a_token_that_is_not_the_bridges_fails(url: str) -> None:
    result = smoke(url, token="something-else")
    assert result.returncode != 0
    assert "/ledger did not answer" in result.stderr


@pytest.mark.parametrize("token", ['a"b', "two words", "line\nend"])
def test_a_token_that_curl_could_misread_is_refused_unseen(url: str, token: str) -> None:
    result = smoke(url, token)
    assert "no bearer token has" in result.stderr
    assert token not in result.stderr


def test_the_token_does_not_go_over_the_network_in_clear() -> None:
    assert "is not https" in smoke("http://bridge.plant.example").stderr
