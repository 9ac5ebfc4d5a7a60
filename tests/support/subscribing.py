"""A subscriber at work in a thread of the test, with a real journal."""

from __future__ import annotations

import threading
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from bridge import wiring
from bridge.clock import SystemClock
from bridge.journal import Journal
from bridge.journal.journal import Limits
from bridge.settings import Settings
from bridge.subscriber import Subscriber
from tests.support.poll import eventually


def mqtt_settings(port: int, **changes: Any) -> Settings:
    """For a broker on this machine; nothing else matters to a subscriber."""
    values = {"mqtt_broker": "127.0.0.1", "mqtt_port": port, "mqtt_client_id": "bridge"}
    return Settings.model_validate({**values, **changes})


class Subscribing:
    """Runs for as long as the block lasts; then the subscriber is stopped and the journal closed.
    A second one on the same path goes on where the first one ended."""

    def __init__(self, path: Path, settings: Settings, limits: Limits | None = None) -> None:
        clock = SystemClock()
        limits = limits or Limits()
        # A small journal: a large one takes its time to open.
        self.journal = Journal(path, limits._replace(max_bytes=64 * 1024**2), clock)
        self.settings = settings
        self.confirmed: list[int] = []  # what the broker is known not to send again, in order
        self.failure: BaseException | None = None
        self.journal.open()
        self.journal.activate({"log": "log"})
        noted = self.journal.acknowledged

        def acknowledged(seq: int) -> None:
            self.confirmed.append(seq)
            noted(seq)

        self.journal.acknowledged = acknowledged  # type: ignore[method-assign]
        self.subscriber: Subscriber = wiring.subscriber(settings, self.journal, clock, Random(1))
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.subscriber.run()
        except BaseException as error:  # noqa: BLE001 - the thread's top
            self.failure = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """As the service does it. Idempotent."""
        self.subscriber.stop()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the subscriber does not end"
        self.journal.close()
        if self.failure is not None:
            raise self.failure

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def values(self) -> list[float]:
        """Of the readings in the journal, in the order in which they came."""
        return [entry.reading.value for entry in self.journal.read(0, 1_000_000)]

    @property
    def duplicates(self) -> int:
        return sum(site.duplicates for site in self.journal.sites().values())

    def wait_subscribed(self) -> None:
        eventually(lambda: self.subscriber.subscribed, "the subscriber is subscribed")

    def wait_taken(self, count: int, seconds: float = 20) -> None:
        eventually(lambda: self.subscriber.taken >= count, f"{count} messages are taken", seconds)
