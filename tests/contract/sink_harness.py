"""Every sink with its service, and one run of the delivery before it.

A `Place` is a topic and a table of one test's own in local services. A `Harness` is what the
contract suite needs of one kind of sink: to make it, to see what arrived, to let its service fail.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Protocol

from bridge.clock import SystemClock
from bridge.delivery import Delivery
from bridge.errors import ContentRefused, Held, SinkError, Transient
from bridge.journal import AppendIntent, Journal, Settlement
from bridge.journal.journal import Limits
from bridge.policy import BatchPolicy, RetryPolicy
from bridge.reading import Entry, Reading
from bridge.settings import load
from bridge.sinks import connect
from bridge.sinks.base import Outcome, Sink
from bridge.sinks.bigquery import StorageWriteSink
from bridge.sinks.bigquery_insert import InsertAllSink
from bridge.sinks.log import LogSink
from bridge.sinks.memory import Answer, MemorySink
from bridge.sinks.pubsub import PubSubSink
from bridge.sinks.schema import COLUMNS
from bridge.wiring import JournalAppendLog
from localgcp.faults import Fault
from localgcp.server import LocalServices
from tests.support.poll import eventually
from tests.support.readings import reading

PROJECT = "plant-tests"
QUICK = RetryPolicy(initial=0.01, maximum=0.03)
# Far longer than any local call takes on a busy machine, far shorter than a test may take.
PATIENT, HASTY = 10.0, 0.4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_numbers = itertools.count(1)


def micros(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


# --- places ---------------------------------------------------------------------------------------


class Place:
    """A topic and a table, new and empty."""

    def __init__(self, services: LocalServices) -> None:
        self.services = services
        name = f"place{next(_numbers)}"
        self.topic = f"projects/{PROJECT}/topics/{name}"
        self.table = (PROJECT, name, "readings")
        self.settings = load(
            {
                "APP_ENV": "DEV",
                "GCP_PROJECT_ID": PROJECT,
                "PUBSUB_TOPIC": name,
                "BIGQUERY_DATASET": name,
                "BIGQUERY_TABLE": "readings",
                **services.environment(),
            }
        )
        services.tables.create_dataset(f"{PROJECT}.{name}", {})
        services.tables.create_table(".".join(self.table), {"schema": schema()})
        self._create_topic()

    def _create_topic(self) -> None:
        client = connect.publisher(self.settings)
        retention = {"seconds": 604_800}
        client.create_topic(
            request={"name": self.topic, "message_retention_duration": retention}, timeout=10
        )
        client.transport.close()

    def fail(self, call: str, kind: Any = "status", **rule: Any) -> int:
        return self.services.faults.add(Fault(call, kind, **rule))

    def calls(self, call: str) -> int:
        """How often it was made, to whatever place."""
        return self.services.faults.calls().get(call, 0)

    def rows(self) -> list[dict[str, Any]]:
        return self.services.tables.rows(*self.table)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(message.data) for message in self.services.pubsub.messages(self.topic)]

    def require_rows(self, readings: Sequence[Reading]) -> None:
        """Each of them is in the table once, and nothing else is."""
        found = sorted(str(row["event_id"]) for row in self.rows())
        assert found == sorted(reading.event_id.hex() for reading in readings)


def schema(without: Sequence[str] = ()) -> dict[str, Any]:
    """The table's schema as REST has it, without some columns."""
    return {"fields": [c._asdict() for c in COLUMNS if c.name not in without]}


# --- one run --------------------------------------------------------------------------------------


class Crash(Exception):
    """The process ends here."""


class CrashingJournal(Journal):
    """A journal whose process ends at a chosen moment: `crash` is asked with the moment's name."""

    crash: Callable[[str], bool] = staticmethod(lambda _moment: False)

    def record_append(self, sink: str, intent: AppendIntent) -> None:
        # An intent without entries or stream is a note about the one before, and counts apart.
        kind = "intent" if intent.seqs and intent.stream else "note"
        self._moment(f"before {kind}")
        super().record_append(sink, intent)
        self._moment(f"after {kind}")

    def settle(self, sink: str, settlements: Sequence[Settlement], position: int) -> None:
        self._moment("before settle")
        super().settle(sink, settlements, position)
        self._moment("after settle")

    def _moment(self, name: str) -> None:
        if self.crash(name):
            raise Crash(name)


def crash_at(moment: str, skip: int = 0) -> Callable[[str], bool]:
    """A crash at the named moment, after it has gone by `skip` times."""
    left = itertools.count(skip, -1)
    return lambda name: name == moment and next(left) == 0


class Run:
    """One life of the daemon's delivery on a journal: to be stopped, or to crash."""

    def __init__(
        self,
        path: Path,
        make: Callable[[Journal], Sink],
        crash: Callable[[str], bool] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.journal = CrashingJournal(path, limits or Limits(), SystemClock())
        self.journal.crash = crash or self.journal.crash
        self.journal.open()
        self.sink = make(self.journal)
        self.journal.activate({self.sink.name: "here"})
        self.delivery = Delivery(self.sink, self.journal, QUICK, SystemClock(), Random(3))
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._deliver, daemon=True)

    def _deliver(self) -> None:
        try:
            self.delivery.run()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failure = error

    def start(self) -> None:
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def until(self, condition: Callable[[], bool], what: str = "there") -> None:
        """Wait for it. A run that failed is an AssertionError."""
        eventually(lambda: self.failure is not None or condition(), what, 30)
        assert self.failure is None, self.failure

    def until_crashed(self) -> None:
        eventually(lambda: self.over, "the run has crashed", 30)
        assert isinstance(self.failure, Crash), self.failure

    def until_over_or_drained(self) -> None:
        """Wait until it has crashed or settled everything."""
        eventually(lambda: self.over or self.delivery.drained, "crashed or drained", 30)
        assert self.failure is None or isinstance(self.failure, Crash), self.failure

    def drain(self) -> None:
        self.until(lambda: self.delivery.drained, "everything is settled")

    def stop(self) -> None:
        self.delivery.stop()
        self._thread.join(20)
        assert self.over
        self.sink.close()
        self.journal.close()


@contextmanager
def running(
    path: Path,
    make: Callable[[Journal], Sink],
    crash: Callable[[str], bool] | None = None,
    limits: Limits | None = None,
) -> Iterator[Run]:
    run = Run(path, make, crash, limits)
    run.start()
    try:
        yield run
    finally:
        run.stop()
    assert run.failure is None or isinstance(run.failure, Crash), run.failure


def storage_write(
    place: Place, batch: int = 100, deadline_seconds: float = PATIENT
) -> Callable[[Journal], StorageWriteSink]:
    """How to make the sink on a journal, with batches of at most `batch` entries."""

    def make(journal: Journal) -> StorageWriteSink:
        appends = JournalAppendLog(journal)
        sink = StorageWriteSink(
            place.settings, appends, lambda: journal.verify_up_to, deadline_seconds
        )
        sink.policy = BatchPolicy(batch, 3_500_000)
        return sink

    return make


# --- the kinds of sink ----------------------------------------------------------------------------


class Seen(NamedTuple):
    """A reading as the service holds it."""

    event_id: str
    site: str
    pi_tag: str
    sensor_id: str
    event_us: int
    value: float
    received_us: int | None
    attributes: dict[str, Any]


def seen(reading: Reading, received: bool = True) -> Seen:
    """What a service should hold of it."""
    return Seen(
        reading.event_id.hex(),
        reading.site,
        reading.pi_tag,
        reading.sensor_id,
        reading.event_us,
        reading.value,
        reading.received_us if received else None,
        json.loads(reading.attributes or "{}"),
    )


class Failure(NamedTuple):
    """One way of a service to fail: its name, and the error that the sink should answer."""

    code: str
    error: type[SinkError]


class Harness(Protocol):
    """One kind of sink. `by_site`: a lane a site; or else one lane."""

    @property
    def by_site(self) -> bool: ...

    def make(self, deadline_seconds: float = PATIENT) -> Sink: ...

    def arrived(self) -> list[Seen]:
        """In the order of their coming."""


class Fallible(Harness, Protocol):
    """A kind of sink with a service that can fail."""

    @property
    def failures(self) -> Sequence[Failure]: ...

    def fail(self, code: str) -> None:
        """Let the next write fail with this code, nothing applied."""

    def lose_answer(self) -> None:
        """Let the next write be applied, and its answer be lost."""

    def hang(self) -> None:
        """Let writes have no answer, until `mend`."""

    def mend(self) -> None:
        """Let the service work again."""

    def poison(self, reading: Reading) -> Reading:
        """The reading so that the service refuses it for good."""


TRANSIENT_GRPC = (
    "CANCELLED",
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
)
HELD_GRPC = ("PERMISSION_DENIED", "UNAUTHENTICATED", "FAILED_PRECONDITION", "UNIMPLEMENTED")


class MemoryHarness:
    by_site = True
    failures: Sequence[Failure] = (Failure("unavailable", Transient), Failure("not_found", Held))

    def __init__(self, _services: LocalServices) -> None:
        self._next: list[Answer] = []
        self._poisoned: set[bytes] = set()
        self._hanging = False
        self._sinks: list[MemorySink] = []

    def make(self, deadline_seconds: float = PATIENT) -> Sink:
        sink = MemorySink(by_site=True, script=self._answer)
        if self._hanging:
            for site in SITES:
                sink.hold(site)
        self._sinks.append(sink)
        return sink

    def _answer(self, batch: Sequence[Entry]) -> Answer:
        if self._next:
            return self._next.pop()
        if any(entry.reading.event_id in self._poisoned for entry in batch):
            return ContentRefused("invalid_argument", "something in it")
        return None

    def arrived(self) -> list[Seen]:
        found = [r for sink in self._sinks for lane in sink.written.values() for r in lane]
        return [seen(reading) for reading in found]

    def fail(self, code: str) -> None:
        self._next = [
            Transient(code, "gone") if code == "unavailable" else Held(code, "none", "make one")
        ]

    def lose_answer(self) -> None:
        """Nothing is there beside the answer: as if it had not been applied."""
        self.fail("unavailable")

    def hang(self) -> None:
        self._hanging = True

    def mend(self) -> None:
        self._hanging = False
        self._next = []

    def poison(self, reading: Reading) -> Reading:
        self._poisoned.add(reading.event_id)
        return reading


class LogHarness(logging.Handler):
    """The log cannot fail."""

    by_site = False

    def __init__(self, _services: LocalServices) -> None:
        super().__init__()
        self._records: list[dict[str, Any]] = []
        logger = logging.getLogger("bridge.readings")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record.__dict__["fields"])

    def make(self, deadline_seconds: float = PATIENT) -> Sink:
        return LogSink()

    def arrived(self) -> list[Seen]:
        return [
            Seen(
                record["event_id"],
                record["site"],
                record["pi_tag"],
                record["sensor_id"],
                micros(record["event_time"]),
                record["value"],
                None,
                json.loads(record["attributes"]),
            )
            for record in self._records
        ]


class _GoogleHarness:
    call = ""
    failures: Sequence[Failure] = ()

    def __init__(self, services: LocalServices) -> None:
        self.place = Place(services)

    def fail(self, code: str) -> None:
        self.place.fail(self.call, status=code)

    def lose_answer(self) -> None:
        self.place.fail(self.call, "answer_lost")

    def hang(self) -> None:
        self.place.fail(self.call, "hang", times=None)

    def mend(self) -> None:
        self.place.services.faults.clear()


class PubSubHarness(_GoogleHarness):
    by_site = True
    call = "pubsub.Publish"
    failures = (
        *(Failure(code, Transient) for code in TRANSIENT_GRPC),
        *(Failure(code, Held) for code in (*HELD_GRPC, "NOT_FOUND")),
        Failure("INVALID_ARGUMENT", ContentRefused),
    )

    def make(self, deadline_seconds: float = PATIENT) -> Sink:
        return PubSubSink(self.place.settings, SystemClock(), deadline_seconds)

    def arrived(self) -> list[Seen]:
        return [
            Seen(
                event["event_id"],
                event["site_code"],
                event["kpi"],
                event["sensor_id"],
                micros(event["event_time"]),
                event["value"],
                micros(event["received_at"]),
                event["attributes"],
            )
            for event in self.place.events()
        ]

    def poison(self, reading: Reading) -> Reading:
        # Longer than an attribute of a message may be.
        return reading._replace(pi_tag="x" * 2_000)


class _TableHarness(_GoogleHarness):
    by_site = False

    def arrived(self) -> list[Seen]:
        return [
            Seen(
                row["event_id"],
                row["site_code"],
                row["pi_tag"],
                row["sensor_id"],
                row["event_time"],
                row["value"],
                row["received_at"],
                json.loads(row["attributes"] or "{}"),
            )
            for row in self.place.rows()
        ]

    def poison(self, reading: Reading) -> Reading:
        event_id = reading.event_id.hex()
        self.place.services.tables.refuse(*self.place.table, "event_id", event_id)
        return reading


class MemoryAppendLog:
    """The last intent, in memory."""

    def __init__(self) -> None:
        self.intents: list[AppendIntent] = []

    def load(self) -> AppendIntent | None:
        return self.intents[-1] if self.intents else None

    def record(self, intent: AppendIntent) -> None:
        self.intents.append(intent)

    def stream_created(self, stream: str) -> None:
        pass

    def foreign_streams(self) -> list[str]:
        return []

    def foreign_streams_ended(self) -> None:
        raise AssertionError("there are none")


class StorageWriteHarness(_TableHarness):
    call = "storage.AppendRows"
    failures = (
        *(Failure(code, Transient) for code in TRANSIENT_GRPC),
        *(Failure(code, Held) for code in HELD_GRPC),
        # Without a row that is named it is about the request as a whole: the schema.
        Failure("INVALID_ARGUMENT", Held),
    )

    def make(self, deadline_seconds: float = PATIENT) -> Sink:
        return StorageWriteSink(self.place.settings, MemoryAppendLog(), lambda: 0, deadline_seconds)


class InsertAllHarness(_TableHarness):
    call = "bigquery.tabledata.insertAll"
    failures = (
        *(Failure(code, Transient) for code in ("408", "429", "500", "502", "503", "504")),
        *(Failure(code, Held) for code in ("401", "403", "404")),
        *(Failure(code, ContentRefused) for code in ("400", "413")),
    )

    def make(self, deadline_seconds: float = PATIENT) -> Sink:
        return InsertAllSink(self.place.settings, deadline_seconds)


SITES = ("MOR", "SIE", "BAG")
FALLIBLE: dict[
    str, type[MemoryHarness | PubSubHarness | StorageWriteHarness | InsertAllHarness]
] = {
    "memory": MemoryHarness,
    "pubsub": PubSubHarness,
    "storage_write": StorageWriteHarness,
    "insert_all": InsertAllHarness,
}
KINDS: dict[str, Callable[[LocalServices], Harness]] = {**FALLIBLE, "log": LogHarness}


def entries(count: int, sites: Sequence[str] = SITES[:1], first: int = 1) -> list[Entry]:
    """Numbered entries, the sites in turn."""
    return [
        Entry(number, reading(number, sites[number % len(sites)]))
        for number in range(first, first + count)
    ]


def readings(count: int, sites: Sequence[str] = SITES[:1], first: int = 1) -> list[Reading]:
    return [entry.reading for entry in entries(count, sites, first)]


def outcome_of(future: Future[Outcome], seconds: float = 20.0) -> Outcome | BaseException:
    """How the future ended; TimeoutError when it did not."""
    error = future.exception(seconds)
    return future.result() if error is None else error
