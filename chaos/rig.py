"""Broker, proxy, services and bridge as real processes, with the load going on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Self

import orjson

from bridge.cli.broker import Broker
from bridge.cli.processes import ProgramFailed
from bridge.settings import PLATFORM_VARIABLES, Settings, load
from chaos.bridge_process import Bridge
from chaos.disk import small_disk
from chaos.proxy import Proxy
from chaos.scenario import Scenario
from chaos.sensors import Load, Sensor
from chaos.services import Services, create_table, create_topic, table_path, topic_path
from chaos.verdict import Arrived, Verdict, judge

SITES = ("MOR", "BAG", "SIE", "CHI")
POLL_SECONDS = 0.05
SETTLE_SECONDS = 120.0
LOAD_BEFORE = LOAD_AFTER = 100  # readings


class TookTooLong(RuntimeError):
    """Something did not come about in time; the message says what."""


class Rig:
    """Everything for one scenario, or for several of one stage. A context manager: leaving it
    stops all but the services, which are the caller's.

    What a scenario may break: `broker`, `proxy` (between broker and bridge), `services`, `bridge`.
    What it may say: `findings`, and by site
        expected_refusals: the numbers that BigQuery will refuse for good;
        also_sent: the numbers that were acknowledged to somebody else than the sensors.
    quick: the short form, for the tests.
    """

    def __init__(
        self, directory: Path, services: Services, name: str, quick: bool, scenario: Scenario
    ) -> None:
        self.quick = quick
        self.services = services
        self.random = Random(name)
        self.directory = directory
        (directory / "broker").mkdir(parents=True)
        self.broker = Broker(directory / "broker", scenario.broker)
        self.expected_refusals: dict[str, set[int]] = {}
        self.also_sent: dict[str, range] = {}
        self.findings: list[str] = []
        self._name = name
        self._scenario = scenario
        self._load: Load | None = None
        self._next = 0  # the first number of the next load
        self._accepted = 0  # by the ledger, before this scenario
        self._events_before = self._rows_before = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.broker.start()
            self._stack.callback(lambda: self.broker.stop())
            self.proxy = self._stack.enter_context(Proxy(self.broker.port))
            self.bridge = Bridge(self.directory, self._environment())
            self._stack.callback(self.bridge.kill)
            self.settings: Settings = load(self.bridge.environment)
            create_topic(self.settings)
            create_table(self.settings)
            self.bridge.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _environment(self) -> dict[str, str]:
        own = {name.upper() for name in Settings.model_fields} | set(PLATFORM_VARIABLES)
        inherited = {name: value for name, value in os.environ.items() if name not in own}
        return {
            **inherited,
            "APP_ENV": "DEV",
            "GCP_PROJECT_ID": "chaos-project",
            "PUBSUB_TOPIC": f"events-{self._name}",
            "BIGQUERY_DATASET": "chaos",
            "BIGQUERY_TABLE": f"readings_{self._name}",
            "MQTT_BROKER": "127.0.0.1",
            "MQTT_PORT": str(self.proxy.port),
            "JOURNAL_PATH": str(self._disk() / "journal.db"),
            "HTTP_HOST": "127.0.0.1",
            "LOG_FORMAT": "text",
            **self.services.environment,
            **self._scenario.settings,
        }

    def _disk(self) -> Path:
        if not self._scenario.disk_bytes:
            return self.directory
        disk = small_disk(self.directory / "disk", self._scenario.disk_bytes)
        return self._stack.enter_context(disk)

    # --- for the scenarios ------------------------------------------------------------------------

    def either(self, quick: float, full: float) -> float:
        """One of two durations or counts."""
        return quick if self.quick else full

    def rest(self, quick: float, full: float | None = None) -> None:
        """Let things run for so many seconds."""
        time.sleep(self.either(quick, quick if full is None else full))

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        """Poll; an OSError (nobody answers) counts as no. Raises TookTooLong."""
        if not _comes_about(condition, seconds):
            raise TookTooLong(f"after {seconds:g} s still not: {what}")

    def wait_for_readings(self, count: int) -> None:
        """Until the sensors had so many more acknowledged."""
        goal = self.acknowledged + count
        self.wait_until(lambda: self.acknowledged >= goal, f"{count} more readings acknowledged")

    def wait_for_death(self, seconds: float = 60.0) -> int:
        """Until the bridge has ended by itself; its exit code. Raises TookTooLong."""
        program = self.bridge.program
        self.wait_until(lambda: program.exit_code is not None, "the bridge has ended", seconds)
        code = program.exit_code
        assert code is not None
        return code

    def wait_until_held(self, held: bool = True) -> None:
        """Until a sink is shown as needing an operator, or none is any more."""
        self.wait_until(
            lambda: (self.bridge.metric("bridge_sink_held") >= 1) is held,
            "a sink is held" if held else "no sink is held",
        )

    def require(self, holds: object, finding: str) -> None:
        """Note a finding unless something holds; the scenario goes on."""
        if not holds:
            self.findings.append(finding)

    @property
    def journal(self) -> Path:
        return self.settings.journal_path

    @property
    def acknowledged(self) -> int:
        """Readings that the broker acknowledged to the sensors of this scenario so far."""
        return self._load.count if self._load is not None else 0

    def acknowledged_of(self, site: str) -> range:
        """The numbers that the broker acknowledged to this site's sensor."""
        assert self._load is not None, "only while a scenario runs"
        return self._load.acknowledged[site]

    @property
    def first_number(self) -> int:
        """The first number of this scenario."""
        return self._next

    def total(self, count: str) -> int:
        """One of the ledger's counts over all sites, since the journal began."""
        return int(self.bridge.ledger()["totals"][count])

    def of_sink(self, sink: str, count: str) -> int:
        """One of the ledger's counts of a sink over all sites, since the journal began."""
        return int(self.bridge.ledger()["totals"]["sinks"][sink][count])

    def resolved(self, sink: str) -> int:
        """Readings that are settled, or dead letters, for a sink since the journal began."""
        return self.of_sink(sink, "settled") + self.of_sink(sink, "dead_lettered")

    def ledger_began_anew(self) -> None:
        """The journal lost its counts: from now on they begin with what is in them now."""
        self._accepted = self.total("accepted") - self.acknowledged

    # --- one scenario -----------------------------------------------------------------------------

    def run(self, scenario: Scenario) -> Verdict:
        """Load on, fault, recovery, load off, everything settled; what came of it. Raises
        TookTooLong, and what the scenario raises."""
        self.findings, self.expected_refusals, self.also_sent = [], {}, {}
        self._accepted = self.total("accepted")
        self._events_before = self.services.count(topic_path(self.settings))
        self._rows_before = self.services.count(table_path(self.settings))
        self._load = Load([self._sensor(site, scenario) for site in SITES])
        with self._load as running:
            self.wait_for_readings(LOAD_BEFORE)
            scenario.fault(self)
            recovery = self._recovery()
            self.wait_for_readings(LOAD_AFTER)
        verdict = self._settled({**running.acknowledged, **self.also_sent}, recovery)
        self._next = 1 + max(
            numbers.stop for numbers in (*running.acknowledged.values(), *self.also_sent.values())
        )
        return verdict

    def _sensor(self, site: str, scenario: Scenario) -> Sensor:
        return Sensor(
            self.broker.port,
            site,
            scenario.rate,
            self._next,
            scenario.cover_seconds,
            scenario.padding,
        )

    def _recovery(self) -> float:
        """Seconds until all that was acknowledged by now is settled in both sinks."""
        began = time.monotonic()
        goal = self._accepted + self.acknowledged
        self.wait_until(
            lambda: all(self.resolved(sink) >= goal for sink in ("pubsub", "bigquery")),
            f"{goal} readings settled after the fault",
            SETTLE_SECONDS,
        )
        return time.monotonic() - began

    def _settled(self, sent: Mapping[str, range], recovery: float) -> Verdict:
        """What has arrived when nothing is under way any more."""
        _comes_about(lambda: self._nothing_missing(sent), SETTLE_SECONDS)
        self.wait_until(lambda: self.bridge.settled(0), "everything settled")
        self.require(self.bridge.ledger()["balanced"], "the ledger does not balance")
        self.require(self.bridge.ready(), "the bridge is not ready in the end")
        return self._judged(sent, recovery)

    def _nothing_missing(self, sent: Mapping[str, range]) -> bool:
        """By the services themselves, for the ledger may be what is wrong."""
        return self.bridge.settled(0) and self._judged(sent, 0.0).lost == 0

    def _judged(self, sent: Mapping[str, range], recovery: float) -> Verdict:
        refused: dict[str, Collection[int]] = dict(self.expected_refusals)
        return judge(sent, self._arrived(), refused, recovery, self.findings)

    def _arrived(self) -> Arrived:
        """What was sent in this scenario, and is there."""
        events: dict[str, list[int]] = {}
        for message in self.services.events(self.settings, self._events_before):
            number = int(orjson.loads(message["data"])["value"])
            if number >= self._next:
                events.setdefault(message["ordering_key"], []).append(number)
        rows: dict[str, list[int]] = {}
        for row in self.services.rows(self.settings, self._rows_before):
            if row["value"] >= self._next:
                rows.setdefault(row["site_code"], []).append(int(row["value"]))
        return Arrived(events, rows)

    def stop(self) -> int:
        """Drain and stop the bridge; its exit code. Raises ProgramFailed when it had ended."""
        if not self.bridge.running:
            raise ProgramFailed("the bridge had ended before it was stopped")
        return self.bridge.terminate()


def _comes_about(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not _answers(condition):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _answers(condition: Callable[[], object]) -> object:
    try:
        return condition()
    except OSError:
        return None
