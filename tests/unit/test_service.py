"""Starting, stopping and failing, with parts that do what the test says."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from bridge import service as service_module
from bridge import watch as watch_module
from bridge.clock import SystemClock
from bridge.delivery import Delivery
from bridge.errors import ConfigurationError, JournalDamaged
from bridge.forwarder import Forwarder
from bridge.histogram import BATCH_BOUNDS, Histogram
from bridge.journal import Journal
from bridge.journal.journal import Limits
from bridge.service import Service, Stopping
from bridge.subscriber import Subscriber
from tests.support.journals import settle_everything
from tests.support.poll import eventually
from tests.support.readings import reading


class Part:
    """A thread's work: waits until it is stopped, or fails when `error` is set."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self.error: BaseException | None = None
        self.hangs = False
        self.gate: threading.Barrier | None = None  # what fails waits here for others that fail
        self.events = events
        self.running = threading.Event()
        self._stop = threading.Event()

    def finish(self) -> None:
        self.events.append(f"{self.name} finish")

    def run(self) -> None:
        self.running.set()
        while not self._stop.wait(0.01) or self.hangs:
            if self.error is not None:
                if self.gate is not None:
                    self.gate.wait(10)
                raise self.error
        self.events.append(f"{self.name} ended")

    def stop(self) -> None:
        self.events.append(f"{self.name} stop")
        self._stop.set()


class Intake(Part):
    """Stands in for the subscriber."""

    connected = subscribed = True
    moving = True
    choked = False
    problem: str | None = None
    journal_problem: str | None = None
    sessions_lost = retained_ignored = qos0_dropped = taken = 0
    broker_dropped: int | None = None


class Sink(Part):
    """Stands in for a delivery with its sink."""

    held: str | None = None
    last_error: str | None = None

    def __init__(self, name: str, events: list[str]) -> None:
        super().__init__(name, events)
        self.sink = self
        self.retries: Counter[str] = Counter()
        self.batch_sizes = self.latencies = Histogram(BATCH_BOUNDS)

    def usage(self) -> dict[str, float]:
        return {"MOR": 5.0}

    def close(self) -> None:
        self.events.append(f"{self.name} close")


class Letters(Sink):
    waiting = False


class Web:
    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.error: Exception | None = None

    def start(self) -> None:
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self.events.append("web stop")


class Bench:
    def __init__(self, path: Path, drain_seconds: float = 5.0, drain_broker: bool = False) -> None:
        self.events: list[str] = []
        self.journal = Journal(path, Limits(), SystemClock())
        self.journal.open()
        self.journal.activate({"log": "log"})
        self.intake = Intake("intake", self.events)
        self.sink = Sink("log", self.events)
        self.letters = Letters("letters", self.events)
        self.web = Web(self.events)
        close = self.journal.close

        def closed() -> None:
            self.events.append("journal close")
            close()

        self.journal.close = closed  # type: ignore[method-assign]
        self.service = Service(
            self.journal,
            cast(Subscriber, self.intake),
            [cast(Delivery, self.sink)],
            cast(Forwarder, self.letters),
            Stopping(drain_seconds, drain_broker),
            SystemClock(),
        )

    def run(self, *steps: Callable[[], Any]) -> int:
        """Run the service; once it runs, take these steps in a thread beside it."""

        def act() -> None:
            assert self.intake.running.wait(10)
            for step in steps:
                step()

        beside = threading.Thread(target=act, daemon=True)
        beside.start()
        code = self.service.run(self.web)
        beside.join(10)
        return code

    def pending(self, count: int) -> None:
        self.journal.append([reading(number) for number in range(count)], [])


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with handlers_kept():
        made = Bench(tmp_path / "journal.db")
        yield made
        made.intake.hangs = made.sink.hangs = False
        made.journal.close()


@contextmanager
def handlers_kept() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "ROUND_SECONDS", 0.02)
    monkeypatch.setattr(service_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(service_module, "LEAVE_SECONDS", 1.0)


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno == level]


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_goes_from_the_intake_to_the_journal_and_ends_with_0(
    bench: Bench, number: int
) -> None:
    assert bench.run(lambda: os.kill(os.getpid(), number)) == 0
    order = [event for event in bench.events if event not in ("log ended", "letters ended")]
    assert order == [
        "intake stop",
        "intake ended",
        "log stop",
        "letters stop",
        "log close",
        "letters close",
        "journal close",
        "web stop",
    ]


def test_what_the_broker_still_holds_is_taken_before_the_stop_goes_on(tmp_path: Path) -> None:
    with handlers_kept():
        bench = Bench(tmp_path / "journal.db", drain_broker=True)

        def taken() -> None:
            eventually(lambda: "intake finish" in bench.events, "it was told to finish")
            assert "intake stop" not in bench.events
            bench.intake.stop()

        assert bench.run(terminate, taken) == 0
        assert bench.events[:2] == ["intake finish", "intake stop"]


def test_a_broker_that_never_has_done_holds_up_a_stop_for_no_longer_than_was_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with handlers_kept():
        bench = Bench(tmp_path / "journal.db", drain_seconds=0.3, drain_broker=True)
        assert bench.run(terminate) == 0
        assert bench.events[:2] == ["intake finish", "intake stop"]
    assert "the broker may still hold messages" in caplog.text


def test_what_is_settled_during_the_drain_makes_it_0(bench: Bench) -> None:
    bench.pending(3)

    def settle_when_drained() -> None:
        eventually(lambda: "intake ended" in bench.events, "the intake has ended")
        assert "log stop" not in bench.events
        settle_everything(bench.journal, ["log"])

    assert bench.run(terminate, settle_when_drained) == 0


def test_what_is_settled_by_the_last_answers_makes_it_0_as_well(tmp_path: Path) -> None:
    with handlers_kept():
        bench = Bench(tmp_path / "journal.db", drain_seconds=0.0)
        bench.pending(3)
        stop = bench.sink.stop

        def settle_and_stop() -> None:
            settle_everything(bench.journal, ["log"])
            stop()

        bench.sink.stop = settle_and_stop  # type: ignore[method-assign]
        assert bench.run(terminate) == 0


def test_what_is_left_after_the_drain_makes_it_75_and_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with handlers_kept():
        bench = Bench(tmp_path / "journal.db", drain_seconds=0.3)
        bench.pending(3)
        began = time.monotonic()
        assert bench.run(terminate) == 75
        assert 0.3 <= time.monotonic() - began < 3
    (line,) = said(caplog, logging.WARNING)
    assert line.fields == {"readings": 3}  # type: ignore[attr-defined]


def test_dead_letters_that_wait_for_their_topic_are_waited_for(bench: Bench) -> None:
    bench.letters.waiting = True

    def publish_when_drained() -> None:
        eventually(lambda: "intake ended" in bench.events, "the intake has ended")
        assert "letters stop" not in bench.events
        bench.letters.waiting = False

    assert bench.run(terminate, publish_when_drained) == 0


def test_a_second_signal_ends_the_drain_with_75(bench: Bench) -> None:
    bench.pending(1)
    began = time.monotonic()

    def again() -> None:
        eventually(lambda: "intake ended" in bench.events, "the intake has ended")
        terminate()

    assert bench.run(terminate, again) == 75
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("part", ["intake", "sink", "letters"])
def test_a_part_that_does_not_end_does_not_hold_up_the_stop(bench: Bench, part: str) -> None:
    getattr(bench, part).hangs = True
    began = time.monotonic()
    assert bench.run(terminate) == 0
    assert time.monotonic() - began < 5
    getattr(bench, part).hangs = False


# --- failing --------------------------------------------------------------------------------------


def fail(part: Part, error: BaseException) -> Callable[[], None]:
    def step() -> None:
        part.error = error

    return step


@pytest.mark.parametrize("part", ["intake", "sink", "letters"])
def test_a_thread_that_dies_ends_the_process_with_70_and_one_line_that_says_why(
    bench: Bench, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    error = ZeroDivisionError("by zero")
    assert bench.run(fail(getattr(bench, part), error)) == 70
    (line,) = said(caplog, logging.CRITICAL)
    assert "has failed in a way that nobody expected" in line.message
    assert line.fields["error"] == "ZeroDivisionError('by zero')"  # type: ignore[attr-defined]
    assert line.exc_info
    assert line.exc_info[1] is error
    assert bench.events.count("journal close") == 1


def test_each_threads_failure_is_said_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.sink.error = ValueError("one")
    bench.letters.error = KeyError("two")
    bench.sink.gate = bench.letters.gate = threading.Barrier(2)
    assert bench.run() == 70
    eventually(lambda: len(said(caplog, logging.CRITICAL)) == 2, "both have failed")
    threads = sorted(line.fields["thread"] for line in said(caplog, logging.CRITICAL))  # type: ignore[attr-defined]
    assert threads == ["dead-letters", "delivery-log"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigurationError("the table does not fit"), 78), (JournalDamaged("it is damaged"), 70)],
)
def test_an_error_with_words_of_its_own_is_said_without_a_trace(
    bench: Bench, caplog: pytest.LogCaptureFixture, error: Exception, code: int
) -> None:
    assert bench.run(fail(bench.sink, error)) == code
    (line,) = said(caplog, logging.CRITICAL)
    assert line.message == str(error)
    assert not line.exc_info


def test_a_failure_while_it_drains_ends_the_drain(bench: Bench) -> None:
    bench.pending(1)

    def break_down() -> None:
        eventually(lambda: "intake ended" in bench.events, "the intake has ended")
        bench.sink.error = ZeroDivisionError()

    assert bench.run(terminate, break_down) == 70


def test_an_address_that_cannot_be_listened_on_starts_nothing(bench: Bench) -> None:
    bench.web.error = ConfigurationError("PORT=80: cannot listen there")
    with pytest.raises(ConfigurationError):
        bench.service.run(bench.web)
    assert not bench.intake.running.is_set()


# --- the watchdog ---------------------------------------------------------------------------------


def beat_http(bench: Bench) -> None:
    def beat() -> None:
        while "web stop" not in bench.events:
            bench.service.beat()
            time.sleep(0.02)

    threading.Thread(target=beat, daemon=True).start()


def test_an_intake_that_stands_still_ends_the_process_with_70(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "EXIT_SECONDS", 0.5)
    beat_http(bench)

    def stand_still() -> None:
        eventually(lambda: bench.service.stalled() is None, "all is well")
        bench.intake.hangs = True
        bench.intake.moving = False

    assert bench.run(stand_still) == 70
    (line,) = said(caplog, logging.CRITICAL)
    assert "the intake has made no progress" in line.message
    assert bench.service.stalled() is None  # it ends before the health check fails


def test_an_http_server_that_stands_still_ends_the_process_with_70(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "EXIT_SECONDS", 0.5)
    assert bench.run() == 70
    (line,) = said(caplog, logging.CRITICAL)
    assert "the HTTP server has made no progress" in line.message


def test_a_disk_that_hangs_with_the_journal_in_its_grip_ends_the_process_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "EXIT_SECONDS", 0.5)
    beat_http(bench)
    let_go = threading.Event()
    gripped = threading.Event()

    def grip() -> None:
        with bench.journal._lock:
            gripped.set()
            let_go.wait(30)

    def hang() -> None:
        threading.Thread(target=grip, daemon=True).start()
        assert gripped.wait(10)
        bench.intake.moving = False

    began = time.monotonic()
    assert bench.run(hang) == 70
    assert time.monotonic() - began < 10
    let_go.set()


# --- what it shows --------------------------------------------------------------------------------


def test_it_says_why_it_is_not_ready(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def unready() -> str | None:
        return bench.service.state().unready

    assert unready() is None
    bench.intake.choked = True
    assert "room for dead letters" in (unready() or "")
    bench.intake.journal_problem = "I/O error"
    assert unready() == "the journal takes nothing: I/O error"
    monkeypatch.setattr(Journal, "full", property(lambda _: True))
    assert unready() == "the journal is full"
    bench.intake.subscribed = False
    bench.intake.problem = "the broker cannot be reached"
    assert unready() == "the broker cannot be reached"
