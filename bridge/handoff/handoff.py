"""The service's side of handing over: take up at the start, ship all the time, close at the end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from bridge.clock import Clock
from bridge.errors import JournalDamaged, JournalError, Transient
from bridge.handoff.bucket import Bucket, BucketError, Conflict
from bridge.handoff.others import Others
from bridge.handoff.own import Own, Superseded
from bridge.journal import Journal
from bridge.snapshot import HandoffState

log = logging.getLogger(__name__)

TICK_SECONDS = 5.0
LOOK_SECONDS = 60.0  # between looks for others, once it has run for a while
YOUNG_SECONDS = 600.0  # until then it looks each time: a deploy stops the former instance last
START_SECONDS = 60.0  # how long a start waits for a predecessor
POLL_SECONDS = 1.0


class Handoff:
    """`run` belongs to a thread of its own; `take_up` and `close` are called before and after it;
    `stream_created`, `state` and `stop` may be used from any thread.

    failures: how often the bucket could not be used.
    """

    def __init__(
        self,
        bucket: Bucket,
        journal: Journal,
        destinations: Mapping[str, str],
        name: str,
        clock: Clock,
    ) -> None:
        intent = journal.append_intent("bigquery")
        stream = intent.stream if intent else ""
        self._own = Own(bucket, journal, destinations, name, stream, clock)
        self._others = Others(bucket, journal, destinations, stream, clock)
        self._clock = clock
        self._stop = threading.Event()
        self._turn = threading.Lock()  # `run` may still be at work when `close` is called
        self._began_at = self._looked_at = clock.monotonic()
        self.failures = 0

    # --- the start --------------------------------------------------------------------------------

    def take_up(self, waiting: Callable[[], bool]) -> None:
        """Take over what predecessors have left, and wait for one that is still ending: for
        `START_SECONDS` at most, and while `waiting`. Nothing may be delivered yet. Blocks."""
        deadline = self._clock.monotonic() + START_SECONDS
        while waiting() and self._attempt(self._others_remain):
            if self._clock.monotonic() >= deadline:
                log.warning(
                    "a former instance has not handed over in time: the bridge starts without, "
                    "and takes in what it leaves as soon as it can. Nothing is to be done",
                    extra={"fields": {"seconds": START_SECONDS}},
                )
                return
            self._stop.wait(POLL_SECONDS)

    def _others_remain(self) -> bool:
        if not self._own.resumed:
            self._own.resume(delivering=False)
        return self._others.look(self._own.instance, delivering=False) > 0

    def _attempt(self, step: Callable[[], bool]) -> bool:
        """True as well when the step could not be made."""
        try:
            return step()
        except (BucketError, Superseded, Conflict) as error:
            self._failed(error)
        except JournalDamaged:
            raise
        except JournalError as error:
            self._failed(error)
        return True

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        log.warning(
            "the handoff bucket cannot be used: it is tried again, and until then what is "
            "unsettled is on this instance's disk alone. Do not deploy, and run `check`",
            extra={"fields": {"error": str(error), "readings": self._own.unshipped}},
        )

    # --- all the time -----------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop`. Raises Superseded, JournalDamaged."""
        while not self._stop.wait(TICK_SECONDS):
            try:
                with self._turn:
                    self._tick()
            except (BucketError, Conflict) as error:
                self._failed(error)
            except JournalDamaged:
                raise
            except JournalError as error:
                self._failed(error)

    def _tick(self) -> None:
        if not self._own.resumed:
            self._own.resume(delivering=True)
        self._own.ship()
        now = self._clock.monotonic()
        young = now - self._began_at < YOUNG_SECONDS
        if young or now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._others.look(self._own.instance, delivering=True)
        self._others.let_go(self._own.safe_up_to)

    def stop(self) -> None:
        """End `run` soon."""
        self._stop.set()

    def stream_created(self, stream: str) -> None:
        """To be called before anything is appended on a new write stream: whoever takes over must
        know of it. Blocks for calls to the bucket. Raises Transient: then nothing must be."""
        try:
            self._own.stream_created(stream)
            self._others.stream_created(stream)
        except (BucketError, Conflict, Superseded) as error:
            raise Transient("handoff", str(error)) from error

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Hand over all that is left. To be called when nothing is delivered any more, before the
        journal is closed. Blocks for some calls; what fails is logged: it stays on this disk."""
        try:
            with self._turn:
                if not self._own.resumed:
                    self._own.resume(delivering=True)
                self._own.close()
        except (BucketError, Conflict, Superseded, JournalError) as error:
            log.error(
                "the journal could not be handed over: what is unsettled stays on this disk. Keep "
                "the disk, and start the bridge on it again",
                extra={"fields": {"error": str(error), "readings": self._own.unshipped}},
            )

    # --- looking on -------------------------------------------------------------------------------

    def state(self) -> HandoffState:
        """From any thread. Raises JournalError."""
        return HandoffState(self._own.unshipped, self._own.unshipped_seconds(), self.failures)
