"""LOCAL: each reading is one log line, and that is all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

from bridge.policy import BatchPolicy
from bridge.reading import Entry, Reading
from bridge.sinks.base import Outcome
from bridge.times import iso_us

log = logging.getLogger("bridge.readings")


class LogSink:
    """Writes within `write` itself, in the caller's thread."""

    name = "log"
    policy = BatchPolicy(max_entries=500, max_bytes=8 * 1024**2)
    ordered_copies = False

    def open(self) -> None:
        pass

    def lane(self, reading: Reading) -> str:
        return ""

    def write(self, batch: Sequence[Entry]) -> Future[Outcome]:
        for entry in batch:
            log.info("reading", extra={"fields": reading_fields(entry.reading), "every": True})
        done: Future[Outcome] = Future()
        done.set_result(Outcome([entry.seq for entry in batch], {}))
        return done

    def ready_in(self, lane: str) -> float:
        return 0.0

    def usage(self) -> Mapping[str, float]:
        return {}

    def close(self) -> None:
        pass


def reading_fields(reading: Reading) -> dict[str, object]:
    """A reading as the fields of a log line."""
    return {
        "event_id": reading.event_id.hex(),
        "site": reading.site,
        "pi_tag": reading.pi_tag,
        "sensor_id": reading.sensor_id,
        "event_time": iso_us(reading.event_us),
        "value": reading.value,
        "attributes": reading.attributes or "{}",
    }
