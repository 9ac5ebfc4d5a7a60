"""The one thread of a sink whose client library blocks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

from bridge.errors import Transient
from bridge.sinks.base import Outcome

_Job = tuple[Callable[[], Outcome], "Future[Outcome]"]


class Worker:
    """Does one job at a time, in order. Safe from any thread.

    Not an executor of the standard library: Python waits for the threads of those when it ends,
    and a service that does not answer would hold up the end of the process.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._open: list[Future[Outcome]] = []
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def do(self, work: Callable[[], Outcome]) -> Future[Outcome]:
        """Have `work` done. Does not block; the future ends as `work` does, or at `close`."""
        future: Future[Outcome] = Future()
        with self._lock:
            if not self._closed:
                if self._thread.ident is None:
                    self._thread.start()
                self._open.append(future)
                self._jobs.put((work, future))
                return future
        future.set_exception(_closed())
        return future

    def close(self) -> None:
        """End what is open with Transient, at once: a call that hangs is left to itself, and
        nobody hears its answer. Idempotent."""
        with self._lock:
            self._closed = True
            left, self._open = self._open, []
        self._jobs.put(None)
        for future in left:
            future.set_exception(_closed())

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, future = job
            if self._closed:
                continue
            try:
                outcome = work()
            except BaseException as error:  # noqa: BLE001 - the top of a thread: passed on whole
                if self._ends(future):
                    future.set_exception(error)
            else:
                if self._ends(future):
                    future.set_result(outcome)

    def _ends(self, future: Future[Outcome]) -> bool:
        """Whether it is still open; from now on it is not."""
        with self._lock:
            if future not in self._open:
                return False
            self._open.remove(future)
            return True


def _closed() -> Transient:
    return Transient("cancelled", "the sink was closed")
