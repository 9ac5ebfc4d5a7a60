"""What `check` makes of a daemon's answers, a clock, a journal and its disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from bridge.cli.clock_findings import clock_findings
from bridge.cli.daemon_findings import ask, daemon_findings
from bridge.cli.disk_findings import journal_findings
from bridge.cli.findings import Finding, lasting
from bridge.cli.processes import free_port
from bridge.cli.pubsub_findings import endpoint_findings
from bridge.journal import Journal
from bridge.journal.survey import holder, survey
from bridge.reading import Reading
from bridge.settings import Settings, load
from bridge.sinks.admin import member
from bridge.sinks.pubsub_admin import TopicFacts
from bridge.web.app import create_app
from bridge.web.server import HttpServer
from tests.support.clock import ManualClock
from tests.support.daemon import FakeDaemon, calm_state, line, sink_state
from tests.support.journals import new_journal
from tests.support.readings import reading

GOOGLE = {
    "APP_ENV": "DEV",
    "GCP_PROJECT_ID": "some-project",
    "PUBSUB_TOPIC": "kpi-events",
    "BIGQUERY_DATASET": "plant",
    "BIGQUERY_TABLE": "readings",
}


# --- the daemon -----------------------------------------------------------------------------------


@contextmanager
def answering(daemon: FakeDaemon, token: str | None = None) -> Iterator[int]:
    app = create_app(daemon, token=lambda: token, local=token is None)
    server = HttpServer(app, "127.0.0.1", 0, daemon.beat)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


def of_daemon(daemon: FakeDaemon, folder: Path) -> dict[str, Finding]:
    with answering(daemon) as port:
        settings = load({"PORT": str(port), "JOURNAL_PATH": str(folder / "j.db")})
        return {one.what: one for one in daemon_findings(settings, ask(settings))}


def test_a_daemon_that_is_well_is_told_with_its_session_and_its_sinks(tmp_path: Path) -> None:
    found = of_daemon(FakeDaemon(sites={"MOR": line(3)}, taken=3), tmp_path)
    assert set(found) == {"daemon", "session", "sink pubsub", "sink bigquery"}
    assert {finding.result for finding in found.values()} == {"ok"}
    assert "3 messages taken" in found["session"].detail


def test_where_no_daemon_answers_it_is_a_warning_with_the_address(tmp_path: Path) -> None:
    settings = load({"PORT": str(free_port()), "JOURNAL_PATH": str(tmp_path / "j.db")})
    (finding,) = daemon_findings(settings, ask(settings))
    assert finding.result == "warning"
    assert f"not running here (no bridge answers on http://127.0.0.1:{settings.port})" in (
        finding.detail
    )


def test_a_process_that_runs_on_the_journal_without_answering_is_named(tmp_path: Path) -> None:
    import os

    settings = load({"PORT": str(free_port()), "JOURNAL_PATH": str(tmp_path / "j.db")})
    journal = new_journal(settings.journal_path)
    try:
        (finding,) = daemon_findings(settings, None)
    finally:
        journal.close()
    assert f"process {os.getpid()} runs on" in finding.detail
    assert holder(settings.journal_path) is None


class Stranger(BaseHTTPRequestHandler):
    """Something else that listens where the bridge is meant to. `date`: what its clock says."""

    date = datetime.now(UTC)

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    do_HEAD = do_GET

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(self.date.timestamp())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def stranger(date: datetime | None = None) -> Iterator[int]:
    handler = type("Handler", (Stranger,), {"date": date or datetime.now(UTC)})
    server = HTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_another_program_on_the_port_is_not_taken_for_the_bridge() -> None:
    with stranger() as port:
        assert ask(load({"PORT": str(port)})) is None


def test_a_daemon_that_does_not_take_readings_fails_with_its_reason(tmp_path: Path) -> None:
    found = of_daemon(FakeDaemon(calm_state(unready="the journal is full")), tmp_path)["daemon"]
    assert (found.result, found.detail) == ("failed", "takes no readings: the journal is full")


def test_a_held_sink_fails_with_its_remedy_and_a_failing_one_warns(tmp_path: Path) -> None:
    sinks = (
        sink_state("pubsub", held="grant it", last_error="permission_denied: no", pending=7),
        sink_state("bigquery", last_error="unavailable: away", pending=9),
    )
    found = of_daemon(FakeDaemon(calm_state(sinks=sinks)), tmp_path)
    held, failing = found["sink pubsub"], found["sink bigquery"]
    assert (held.result, held.fix) == ("failed", "grant it")
    assert "7 readings wait: permission_denied: no" in held.detail
    assert failing.result == "warning"
    assert "unavailable: away" in failing.detail


def test_what_was_lost_is_warned_of(tmp_path: Path) -> None:
    state = calm_state(sessions_lost=2, qos0_dropped=5, loss="9 readings")
    found = of_daemon(FakeDaemon(state), tmp_path)
    assert "2 times" in found["session"].detail
    assert "persistence true" in found["session"].fix
    assert "5 messages of QoS 0" in found["QoS 0"].detail
    assert "--clear-journal-loss" in found["journal loss"].fix
    assert {found[what].result for what in ("session", "QoS 0", "journal loss")} == {"warning"}


def test_a_ledger_that_does_not_balance_fails(tmp_path: Path) -> None:
    from bridge.snapshot import SiteCounts

    found = of_daemon(FakeDaemon(sites={"MOR": SiteCounts(received=3)}), tmp_path)
    assert found["ledger"].result == "failed"


# --- the clock ------------------------------------------------------------------------------------


def clock(off: timedelta, **more: str) -> Finding:
    """This machine's clock is `off` from Google's."""
    with stranger(datetime.now(UTC) - off) as port:
        settings = load({**GOOGLE, "BIGQUERY_EMULATOR_HOST": f"http://127.0.0.1:{port}", **more})
        (finding,) = clock_findings(settings)
    return finding


@pytest.mark.parametrize(
    ("seconds", "result", "words"),
    [
        (0, "ok", "agrees"),
        (600, "warning", "10 minutes ahead of Google's"),
        (-600, "warning", "10 minutes behind Google's"),
        (7_200, "failed", "readings from the future are taken"),
        (-86_400, "failed", "good readings are refused"),
    ],
)
def test_a_clock_that_is_wrong_warns_and_fails_where_readings_suffer(
    seconds: int, result: str, words: str
) -> None:
    found = clock(timedelta(seconds=seconds))
    assert found.result == result
    assert words in found.detail
    assert (found.fix == "") == (result == "ok")


def test_the_limit_of_the_clock_is_the_setting_for_readings_from_the_future() -> None:
    assert clock(timedelta(seconds=-60), TIMESTAMP_MAX_FUTURE_SECONDS="30").result == "failed"


def test_where_nothing_answers_the_clock_is_unknown() -> None:
    settings = load({**GOOGLE, "BIGQUERY_EMULATOR_HOST": f"http://127.0.0.1:{free_port()}"})
    (finding,) = clock_findings(settings)
    assert finding.result == "warning"
    assert "does not tell the time" in finding.detail


# --- journal, disk, outage ------------------------------------------------------------------------


def of_journal(folder: Path, **more: str) -> dict[str, Finding]:
    settings = load({"JOURNAL_PATH": str(folder / "j.db"), **more})
    return {one.what: one for one in journal_findings(settings)}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a journal of 12,000 readings that came at 100 a second."""
    folder = tmp_path_factory.mktemp("measured")
    clock = ManualClock(int(time.time() * 1e6) - 120_000_000)
    journal = new_journal(folder / "j.db", clock=clock)
    for first in range(0, 12_000, 1_000):
        journal.append([at(clock, number) for number in range(first, first + 1_000)], [])
        clock.pass_(10)
    journal.close()
    return folder


def at(clock: ManualClock, number: int) -> Reading:
    return reading(number)._replace(received_us=clock.now_us())


def test_size_and_rate_of_readings_are_measured_from_the_journal(measured: Path) -> None:
    found = survey(measured / "j.db")
    assert found is not None
    assert found.rate == pytest.approx(12_000 / 110)
    assert found.reading_bytes
    assert 80 < found.reading_bytes < 250


def test_a_short_journal_tells_neither(tmp_path: Path) -> None:
    journal: Journal = new_journal(tmp_path / "j.db")
    assert survey(tmp_path / "j.db") is not None
    journal.append([reading(number) for number in range(10)], [])
    found = survey(tmp_path / "j.db")
    journal.close()
    assert found
    assert (found.rate, found.reading_bytes) == (None, None)


def test_without_readings_and_without_a_target_nothing_is_asked_for(tmp_path: Path) -> None:
    found = of_journal(tmp_path)["outage"]
    assert (found.result, found.fix) == ("ok", "")


def test_without_a_target_it_says_how_long_the_journal_lasts(measured: Path) -> None:
    found = of_journal(measured, JOURNAL_MAX_BYTES=str(1024**3))["outage"]
    assert found.result == "ok"
    assert "readings/s" in found.detail
    assert "hours while a sink is away" in found.detail


def test_a_target_without_any_rate_asks_for_one(tmp_path: Path) -> None:
    found = of_journal(tmp_path, OUTAGE_TARGET_HOURS="4")["outage"]
    assert found.result == "warning"
    assert "EXPECTED_RATE" in found.fix


def test_a_target_that_is_missed_names_the_value_with_which_it_is_met(tmp_path: Path) -> None:
    declared = {"OUTAGE_TARGET_HOURS": "10", "EXPECTED_RATE": "100"}
    found = of_journal(tmp_path, JOURNAL_MAX_BYTES=str(1024**2), **declared)["outage"]
    assert found.result == "warning"
    variable, _, value = found.fix.removeprefix("set ").partition("=")
    assert variable == "JOURNAL_MAX_BYTES"
    # 180 bytes each, and a tenth more.
    assert int(value) == pytest.approx(10 * 3600 * 100 * 180 * 1.1, rel=0.01)
    assert of_journal(tmp_path, JOURNAL_MAX_BYTES=value, **declared)["outage"].result == "ok"


def test_a_measured_rate_above_the_expected_one_counts(measured: Path) -> None:
    found = of_journal(measured, EXPECTED_RATE="1")["outage"]
    assert "at 109 readings/s" in found.detail


def test_a_disk_that_is_too_small_names_the_size_that_fits(tmp_path: Path) -> None:
    found = of_journal(tmp_path, JOURNAL_MAX_BYTES=str(10**15))["disk"]
    assert found.result == "warning"
    assert "JOURNAL_MAX_BYTES=" in found.fix


def test_a_damaged_journal_fails_and_is_left_to_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "j.db").write_bytes(b"no database" * 1000)
    found = of_journal(tmp_path)["journal"]
    assert found.result == "failed"
    assert "damaged" in found.detail


# --- small things ---------------------------------------------------------------------------------


def endpoint(host: str, *regions: str) -> Finding:
    settings: Settings = load({**GOOGLE, "PUBSUB_ENDPOINT": host})
    (finding,) = endpoint_findings(settings, TopicFacts(0, (), regions))
    return finding


def test_an_endpoint_outside_the_topics_regions_is_warned_of_with_one_inside() -> None:
    found = endpoint("us-central1-pubsub.googleapis.com", "europe-west3", "europe-west4")
    assert found.result == "warning"
    assert found.fix == "set PUBSUB_ENDPOINT=europe-west3-pubsub.googleapis.com"
    assert endpoint("europe-west4-pubsub.googleapis.com", "europe-west4").result == "ok"
    assert endpoint("us-central1-pubsub.googleapis.com").result == "ok"
    assert endpoint("pubsub.googleapis.com").result == "warning"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0 seconds"), (59, "59 seconds"), (180, "3 minutes"), (7_200, "2 hours")],
)
def test_a_time_is_said_in_one_unit(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def test_the_service_account_is_named_where_the_credentials_tell_it() -> None:
    class Account:
        service_account_email = "bridge@some-project.iam.gserviceaccount.com"

    class Machine:
        service_account_email = "default"

    assert member(Account()) == "serviceAccount:bridge@some-project.iam.gserviceaccount.com"
    assert member(Machine()) == member(None) == "serviceAccount:SERVICE_ACCOUNT"


def test_a_journal_that_is_nearly_full_is_warned_of(measured: Path) -> None:
    found = of_journal(measured, JOURNAL_MAX_BYTES=str(1024**2))["journal"]
    assert found.result == "warning"
    assert "JOURNAL_MAX_BYTES=2097152" in found.fix
    assert of_journal(measured)["journal"].result == "ok"
