"""Start and stop order, signals, supervision of threads; and what the daemon shows of itself.

Start: journal (open already), HTTP, delivery, subscriber. Stop: subscriber first, so that nothing
comes in any more; then delivery, until the journal is drained or the time is up; then sinks;
the journal last, for everything before writes into it.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NamedTuple, Protocol

from bridge.clock import Clock
from bridge.delivery import Delivery
from bridge.errors import EXIT_FATAL, EXIT_OK, EXIT_UNSETTLED, BridgeError, FatalError
from bridge.forwarder import Forwarder
from bridge.handoff import Handoff
from bridge.journal import Journal
from bridge.reports import Reports
from bridge.snapshot import Ledger, SinkState, State
from bridge.statistics import Statistics
from bridge.subscriber import Subscriber
from bridge.watch import Watch

log = logging.getLogger(__name__)

ROUND_SECONDS = 0.2
LOOK_SECONDS = 1.0
LEAVE_SECONDS = 5.0


class Web(Protocol):
    """The HTTP side as the service sees it."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Stopping(NamedTuple):
    """How to stop. drain_seconds: how long it may take until nothing is unsettled any more.
    drain_broker: whether to take what the broker still holds, before anything else and within the
    same time: for a broker that ends after the bridge and to which nobody sends any more."""

    drain_seconds: float
    drain_broker: bool = False


class Service:
    """One run of the daemon. `run` belongs to the main thread; `state`, `ledger`, `stalled` and
    `beat` (the web side's `Daemon`) are safe from any."""

    def __init__(
        self,
        journal: Journal,
        subscriber: Subscriber,
        deliveries: Sequence[Delivery],
        forwarder: Forwarder | None,
        stopping: Stopping,
        clock: Clock,
        handoff: Handoff | None = None,
    ) -> None:
        self._handoff = handoff
        self._journal = journal
        self._subscriber = subscriber
        self._deliveries = deliveries
        self._forwarder = forwarder
        self._stopping = stopping
        self._clock = clock
        self._watch = Watch(clock, ("the intake", "the HTTP server"))
        self._signals = 0
        self._failure: BaseException | None = None
        self._threads: dict[str, threading.Thread] = {}
        self._looked_at = clock.monotonic()
        self._reports = Reports(journal, [delivery.sink.name for delivery in deliveries], clock)
        self.statistics = Statistics(journal, self.state, clock)

    # --- the main thread --------------------------------------------------------------------------

    def run(self, web: Web) -> int:
        """Run until a signal or a failure; answers the exit code."""
        self._handle_signals()
        web.start()
        if self._handoff is not None:
            self._handoff.take_up(self._still_starting)
            self._start("handoff", self._handoff.run)
        for delivery in self._deliveries:
            self._start(f"delivery-{delivery.sink.name}", delivery.run)
        if self._forwarder is not None:
            self._start("dead-letters", self._forwarder.run)
        self._start("reports", self._reports.run)
        self._start("statistics", self.statistics.run_tags)
        self._start("samples", self.statistics.run_samples)
        self._start("subscriber", self._subscriber.run)
        while not self._signals and self._failure is None:
            self._sleep()
            self._look()
        code = self._shut_down()
        web.stop()
        return code

    def _still_starting(self) -> bool:
        self._watch.beat("the intake")
        return not self._signals

    def _handle_signals(self) -> None:
        def count(_number: int, _frame: FrameType | None) -> None:
            self._signals += 1

        signal.signal(signal.SIGTERM, count)
        signal.signal(signal.SIGINT, count)

    def _start(self, name: str, target: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                target()
            except BaseException as error:  # noqa: BLE001 - the thread's top: ends the process
                self._failed(error, name)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads[name] = thread
        thread.start()

    def _failed(self, error: BaseException, thread: str) -> None:
        """Say it once, with the trace where nobody expected it; the first one ends the process."""
        fields = {"thread": thread}
        if isinstance(error, BridgeError):
            log.critical(str(error), extra={"every": True, "fields": fields})
        else:
            log.critical(
                "a part of the bridge has failed in a way that nobody expected: the process ends, "
                "and readings in the journal are kept. Start it again, and report this line with "
                "its trace",
                exc_info=error,
                extra={"every": True, "fields": {**fields, "error": repr(error)}},
            )
        self._failure = self._failure or error

    def _sleep(self) -> None:
        # Not an event: a signal handler may not take its lock.
        self._threads["subscriber"].join(ROUND_SECONDS)

    def _look(self) -> None:
        """Nothing in here waits for the journal: a disk that hangs is what the watchdog is for."""
        now = self._clock.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        if self._subscriber.moving:
            self._watch.beat("the intake")
        if still := self._watch.look():
            self._failed(
                FatalError(f"{still}: ending, to be started again on the same disk"), "watchdog"
            )

    # --- stopping ---------------------------------------------------------------------------------

    def _shut_down(self) -> int:
        if self._failure is not None:
            return self._fail(self._failure)
        deadline = self._clock.monotonic() + self._stopping.drain_seconds
        if self._stopping.drain_broker:
            self._drain_broker(deadline)
        log.info("stopping: no more messages are taken, and what is in the journal is settled")
        self._subscriber.stop()
        self._wait_for("subscriber", LEAVE_SECONDS)
        self._drain(deadline)
        self._stop_delivery()
        left = self._unsettled()
        if self._failure is not None and left:
            return self._fail(self._failure)
        if self._handoff is not None:
            self._handoff.close()
        self._journal.close()
        if left or self._signals > 1:
            log.warning(
                "stopped with readings in the journal: they are kept, and sent after the next "
                "start. Start the bridge again on the same disk",
                extra={"fields": {"readings": left}},
            )
            return EXIT_UNSETTLED
        log.info("stopped: everything is settled")
        return EXIT_OK

    def _fail(self, failure: BaseException) -> int:
        self._subscriber.stop()
        # Not here: what has failed may be the disk, on which all of this waits.
        closing = threading.Thread(target=self._close_in_order, name="closing", daemon=True)
        closing.start()
        closing.join(LEAVE_SECONDS)
        return failure.exit_code if isinstance(failure, FatalError) else EXIT_FATAL

    def _close_in_order(self) -> None:
        self._stop_delivery()
        self._journal.close()

    def _drain_broker(self, deadline: float) -> None:
        log.info("stopping: what the broker still holds is taken first")
        self._subscriber.finish()
        if not self._drained(deadline, lambda: not self._threads["subscriber"].is_alive()):
            log.warning(
                "the broker may still hold messages for the bridge: they stay with it. Keep the "
                "broker's data, and start the bridge again"
            )

    def _drain(self, deadline: float) -> None:
        self._drained(deadline, lambda: not self._unsettled())

    def _drained(self, deadline: float, done: Callable[[], bool]) -> bool:
        """Wait until it is done, or the time is up, or somebody has had enough."""
        while self._signals < 2 and self._failure is None:
            if done():
                return True
            if self._clock.monotonic() >= deadline:
                break
            self._watch.beat("the intake")
            threading.Event().wait(0.05)
        return False

    def _unsettled(self) -> int:
        readings = sum(self._journal.pending(d.sink.name) for d in self._deliveries)
        letters = self._forwarder is not None and self._forwarder.waiting
        return readings + int(letters)

    def _stop_delivery(self) -> None:
        at_once = self._signals > 1 or self._failure is not None
        self._reports.stop()
        self.statistics.stop()
        for delivery in self._deliveries:
            delivery.stop()
        if self._forwarder is not None:
            self._forwarder.stop()
        if self._handoff is not None:
            self._handoff.stop()
        for name in self._threads:
            if name != "subscriber":
                self._wait_for(name, 0.2 if at_once else LEAVE_SECONDS)
        for delivery in self._deliveries:
            delivery.sink.close()
        if self._forwarder is not None:
            self._forwarder.close()

    def _wait_for(self, name: str, seconds: float) -> None:
        """Wait for a thread, but not past a second signal."""
        deadline = self._clock.monotonic() + seconds
        thread = self._threads[name]
        while thread.is_alive() and self._clock.monotonic() < deadline and self._signals < 2:
            thread.join(0.05)

    # --- what the web side sees -------------------------------------------------------------------

    def state(self) -> State:
        subscriber = self._subscriber
        return State(
            unready=self._unready(),
            loss=self._journal.loss,
            mqtt_connected=subscriber.connected,
            sessions_lost=subscriber.sessions_lost,
            retained_ignored=subscriber.retained_ignored,
            qos0_dropped=subscriber.qos0_dropped,
            broker_dropped=subscriber.broker_dropped,
            rejected_by_reason=self._journal.rejected_by_reason(),
            journal_bytes=self._journal.used_bytes,
            journal_seconds_until_full=self._reports.seconds_until_full(),
            dedupe_window_seconds=self._journal.dedupe_window_seconds(),
            sinks=tuple(self._sink_states()),
            handoff=self._handoff.state() if self._handoff else None,
        )

    def _unready(self) -> str | None:
        if not self._subscriber.subscribed:
            return self._subscriber.problem or "not subscribed"
        if self._journal.full:
            return "the journal is full"
        if self._subscriber.journal_problem:
            return f"the journal takes nothing: {self._subscriber.journal_problem}"
        if self._subscriber.choked:
            return "refused messages without room hold up all others: make room for dead letters"
        return None

    def _sink_states(self) -> Iterator[SinkState]:
        now = self._clock.now_us()
        for delivery in self._deliveries:
            name = delivery.sink.name
            oldest = self._journal.oldest_pending_us(name)
            yield SinkState(
                name=name,
                pending=self._journal.pending(name),
                oldest_pending_seconds=0.0 if oldest is None else max(0, now - oldest) / 1e6,
                held=delivery.held,
                last_error=delivery.last_error,
                retries=dict(delivery.retries),
                batch_size=delivery.batch_sizes.counts(),
                settle_latency_seconds=delivery.latencies.counts(),
                key_usage=delivery.sink.usage(),
                replayed=self._journal.replayed(name),
                retried=self._journal.retried(name),
            )

    def ledger(self) -> Ledger:
        return Ledger(self._journal.sites(), self._subscriber.taken)

    def stalled(self) -> str | None:
        return self._watch.stalled()

    def beat(self) -> None:
        self._watch.beat("the HTTP server")
