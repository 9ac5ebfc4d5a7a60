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
from chaos.proxy import Proxy
from chaos.sensors import Load, Sensor
from chaos.services import Services, create_table, create_topic
from chaos.verdict import Arrived, Verdict, judge

SITES = ("MOR", "BAG", "SIE", "CHI")
RATE = 100.0  # readings a second and site
POLL_SECONDS = 0.05
SETTLE_SECONDS = 120.0


class TookTooLong(RuntimeError):
    """Something did not come about in time; the message says what."""


class Rig:
    """Everything for a scenario or several, made by `Rig.start`. A context manager: leaving it
    stops all but the services, which are the caller's.

    quick: the short form, for the tests. Everything else is for the scenarios to break.
    """

    def __init__(
        self,
        directory: Path,
        services: Services,
        name: str,
        quick: bool,
        settings: Mapping[str, str] | None = None,
        broker: str = "",
    ) -> None:
        self.quick = quick
        self.services = services
        self.random = Random(name)
        self.directory = directory
        (directory / "broker").mkdir(parents=True)
        self.broker = Broker(directory / "broker", broker)
        self.expected_refusals: dict[str, set[int]] = {}
        self.findings: list[str] = []
        self._changes = {"PUBSUB_TOPIC": f"events-{name}", "BIGQUERY_TABLE": f"readings_{name}"}
        self._changes.update(settings or {})
        self._load: Load | None = None
        self._next = 0  # the first number of the next load
        self._accepted = 0  # acknowledged readings of all loads before
        self._events_seen = 0
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
            "BIGQUERY_DATASET": "chaos",
            "MQTT_BROKER": "127.0.0.1",
            "MQTT_PORT": str(self.proxy.port),
            "JOURNAL_PATH": str(self.directory / "journal.db"),
            "HTTP_HOST": "127.0.0.1",
            "LOG_FORMAT": "text",
            **self.services.environment,
            **self._changes,
        }

    # --- for the scenarios ------------------------------------------------------------------------

    def either(self, quick: float, full: float) -> float:
        """One of two durations or counts."""
        return quick if self.quick else full

    def rest(self, quick: float, full: float | None = None) -> None:
        """Let things run for so many seconds."""
        time.sleep(self.either(quick, quick if full is None else full))

    def wait_until(self, condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        """Poll; an OSError (nobody answers) counts as no. Raises TookTooLong."""
        deadline = time.monotonic() + seconds
        while not _answers(condition):
            if time.monotonic() > deadline:
                raise TookTooLong(f"after {seconds:g} s still not: {what}")
            time.sleep(POLL_SECONDS)

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

    def require(self, holds: object, finding: str) -> None:
        """Note a finding unless something holds; the scenario goes on."""
        if not holds:
            self.findings.append(finding)

    @property
    def acknowledged(self) -> int:
        """Readings that the broker acknowledged to the sensors of this scenario so far."""
        return self._load.count if self._load is not None else 0

    def acknowledged_of(self, site: str) -> range:
        """The numbers that the broker acknowledged to this site's sensor."""
        assert self._load is not None, "only while a scenario runs"
        return self._load.acknowledged[site]

    @property
    def accepted(self) -> int:
        """Readings that the bridge has accepted since its journal began."""
        return int(self.bridge.ledger()["totals"]["accepted"])

    @property
    def caught_up(self) -> bool:
        """Whether the bridge has settled all that the sensors know to be acknowledged."""
        return self._settled_by_all(self._accepted + self.acknowledged)

    def resolved(self, sink: str) -> int:
        """Readings that are settled, or dead letters, for a sink since the journal began."""
        counts = self.bridge.ledger()["totals"]["sinks"][sink]
        return int(counts["settled"] + counts["dead_lettered"])

    def _settled_by_all(self, count: int) -> bool:
        sinks = self.bridge.ledger()["totals"]["sinks"].values()
        return all(sink["settled"] + sink["dead_lettered"] >= count for sink in sinks)

    # --- one scenario -----------------------------------------------------------------------------

    def run(self, fault: Callable[[Rig], None], cover_seconds: float = 0.0) -> Verdict:
        """Load on, fault, recovery, load off, everything settled; what came of it."""
        self.findings, self.expected_refusals = [], {}
        sensors = [
            Sensor(self.broker.port, site, RATE, self._next, cover_seconds) for site in SITES
        ]
        self._load = Load(sensors)
        with self._load as running:
            self.wait_for_readings(100)
            fault(self)
            recovery = self._recovery()
            self.wait_for_readings(100)
        sent = running.acknowledged
        self._settle(running.count)
        return self._judged(sent, recovery)

    def _recovery(self) -> float:
        began = time.monotonic()
        goal = self._accepted + self.acknowledged
        self.wait_until(
            lambda: self._settled_by_all(goal),
            f"{goal} readings settled after the fault",
            SETTLE_SECONDS,
        )
        return time.monotonic() - began

    def _settle(self, count: int) -> None:
        """Until everything is settled, what arrived without the sensor's knowledge included."""
        goal = self._accepted + count
        self.wait_until(lambda: self.bridge.settled(goal), f"{goal} readings accepted, all settled")
        ledger = self.bridge.ledger()
        self._accepted = int(ledger["totals"]["accepted"])
        self.require(ledger["balanced"], "the ledger does not balance")
        self.require(self.bridge.status("/readyz") == 200, "the bridge is not ready in the end")

    def _judged(self, sent: Mapping[str, range], recovery: float) -> Verdict:
        first = self._next
        self._next = max(numbers.stop for numbers in sent.values()) + 1
        arrived = self._arrived(first)
        refused: dict[str, Collection[int]] = dict(self.expected_refusals)
        return judge(sent, arrived, refused, recovery, self.findings)

    def _arrived(self, first: int) -> Arrived:
        events: dict[str, list[int]] = {}
        for message in self.services.events(self.settings, self._events_seen):
            self._events_seen += 1
            attributes = message["attributes"]
            number = _number(message["data"])
            if number >= first:
                events.setdefault(attributes["site_code"], []).append(number)
        rows: dict[str, list[int]] = {}
        for row in self.services.rows(self.settings):
            if row["value"] >= first:
                rows.setdefault(row["site_code"], []).append(int(row["value"]))
        return Arrived(events, rows)

    def stop(self) -> int:
        """Drain and stop the bridge; its exit code. Raises ProgramFailed when it had ended."""
        if not self.bridge.running:
            raise ProgramFailed("the bridge had ended before it was stopped")
        return self.bridge.terminate()


def _answers(condition: Callable[[], object]) -> object:
    try:
        return condition()
    except OSError:
        return None


def _number(data: str) -> int:

    return int(orjson.loads(data)["value"])
