"""Sending readings that are still in the journal to a sink once more, beside a running daemon.

Only what the sink has settled is sent: what is pending is the daemon's to deliver. The journal is
read in short steps, for a reading that lasts keeps the daemon from cutting its log; and nothing is
written into it but how many were sent, and BigQuery's write streams.

To BigQuery goes what is not in the table: looked up, then appended on a stream of its own at
offsets, exactly once. A stream is noted before anything is appended on it, and a later replay ends
what an earlier one has left before it looks up: so nothing can come in after the look-up.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from random import Random
from threading import Event
from typing import NamedTuple, Protocol, TypeVar

from bridge.errors import ContentRefused, FatalError, Held, JournalError, SinkError, Transient
from bridge.journal import AppendIntent, LaneProgress, Resume, salvage, store
from bridge.journal.handover import Open
from bridge.journal.tail import weight
from bridge.policy import BatchPolicy, RetryPolicy, fitting
from bridge.reading import Again, Entry
from bridge.settings import Settings
from bridge.sinks.base import Outcome, Sink

READ = 2_000  # entries of one step
READ_BYTES = 8 * 1024**2  # and of what they hold, but for a last one
DEADLINE_SECONDS = 15.0  # of a look-up
RETRY = RetryPolicy()
BUSY = "another replay runs on the journal {journal}, process id {holder}: wait until it has ended"
T = TypeVar("T")
_STREAMS = "replay_streams"
_COUNT = (
    "INSERT INTO replayed VALUES (?, ?, ?) ON CONFLICT (sink, site) DO UPDATE SET "
    "count = count + excluded.count"
)


class Wanted(NamedTuple):
    """Which readings: of these sites (none: of all), from this event time on and before that
    one (microseconds since 1970)."""

    sink: str
    sites: frozenset[str] = frozenset()
    first_us: int | None = None
    before_us: int | None = None

    def has(self, entry: Entry) -> bool:
        reading = entry.reading
        return (
            (not self.sites or reading.site in self.sites)
            and (self.first_us is None or reading.event_us >= self.first_us)
            and (self.before_us is None or reading.event_us < self.before_us)
        )


@dataclass
class Tally:
    """What a replay has come to. found: readings that are wanted and settled; present: of these,
    in the table already; refused: by the service, which took them once."""

    found: int = 0
    present: int = 0
    sent: int = 0
    refused: int = 0

    def __str__(self) -> str:
        return (
            f"{self.found} readings found: {self.sent} sent, {self.present} there already, "
            f"{self.refused} refused"
        )


class Target(Protocol):
    """A service that is sent to. All calls block, and raise SinkError."""

    policy: BatchPolicy

    def open(self) -> None:
        """To be called first. Raises ConfigurationError as well."""

    def missing(self, batch: Sequence[Entry]) -> list[Entry]:
        """Those of these that are to be sent."""

    def write(self, batch: Sequence[Entry]) -> Outcome:
        """Send them. After `Transient` the same batch comes again before any other."""

    def finish(self) -> None:
        """All is sent."""

    def close(self) -> None: ...


# --- what is there --------------------------------------------------------------------------------


class Settled:
    """The readings of a journal that a sink has settled. `db`: only reads."""

    def __init__(self, db: sqlite3.Connection, wanted: Wanted) -> None:
        self._db = db
        self._wanted = wanted
        sink = wanted.sink
        rows = db.execute("SELECT event_id FROM dead_letters WHERE sink = ?", (sink,))
        self._refused = {event_id for (event_id,) in rows}
        # Of a reading that was tried again, the last number is the one that counts.
        self._again = dict(
            db.execute(
                "SELECT event_id, max(seq) FROM again WHERE sink = ? GROUP BY event_id", (sink,)
            ).fetchall()
        )

    def steps(self) -> Iterator[list[Entry]]:
        """In the order of arrival, up to what is the last when it begins. Between two steps nothing
        is held. Steps may be empty."""
        (last,) = self._db.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()
        after = 0
        while entries := self._read(after, last):
            after = entries[-1].seq
            waiting = Open(self._wanted.sink, self._resume())
            yield [entry for entry in entries if entry not in waiting and self._is_it(entry)]

    def _read(self, after: int, last: int) -> list[Entry]:
        found: list[Entry] = []
        size = 0
        query = f"{salvage.ENTRY} WHERE e.seq > ? AND e.seq <= ? ORDER BY e.seq LIMIT ?"
        for row in self._db.execute(query, (after, last, READ)):
            found.append(salvage.entry_of(row))
            size += weight(found[-1])
            if size > READ_BYTES:
                break
        return found

    def _resume(self) -> Resume:
        sink = self._wanted.sink
        row = self._db.execute("SELECT position FROM sinks WHERE name = ?", (sink,)).fetchone()
        lanes = self._db.execute("SELECT lane, position, beyond FROM lanes WHERE sink = ?", (sink,))
        return Resume(
            row[0],
            {lane: LaneProgress(at, store.unpacked(beyond)) for lane, at, beyond in lanes},
        )

    def _is_it(self, entry: Entry) -> bool:
        if not self._wanted.has(entry):
            return False
        event_id = entry.reading.event_id
        if isinstance(entry, Again):
            return entry.sink == self._wanted.sink and self._again.get(event_id) == entry.seq
        return event_id not in self._refused and event_id not in self._again


# --- sending it -----------------------------------------------------------------------------------


class Replay:
    """One run. `db`: a connection that may write, for short notes. `told`: is told how far it is,
    also while nothing works."""

    def __init__(
        self,
        db: sqlite3.Connection,
        wanted: Wanted,
        target: Target,
        told: Callable[[Tally], None] = lambda _: None,
        random: Random | None = None,
    ) -> None:
        self._db = db
        self._wanted = wanted
        self._target = target
        self._told = told
        self._random = random or Random()
        self.tally = Tally()

    def run(self, dry: bool = False) -> None:
        """Send all; `dry`: only find out how many. Transient failures are tried again for ever.
        Raises FatalError where the service refuses for a reason that an operator has to mend;
        JournalError."""
        self._patiently(self._target.open)
        for entries in Settled(self._db, self._wanted).steps():
            while entries:
                count = fitting(entries, self._target.policy)
                self._replay(entries[:count], dry)
                entries = entries[count:]
        if not dry:
            self._patiently(self._target.finish)

    def _replay(self, batch: list[Entry], dry: bool) -> None:
        missing = self._patiently(lambda: self._target.missing(batch))
        self.tally.found += len(batch)
        self.tally.present += len(batch) - len(missing)
        if dry:
            self.tally.sent += len(missing)
        else:
            self._send(missing)
        self._told(self.tally)

    def _send(self, batch: list[Entry]) -> None:
        while batch:
            outcome = self._patiently(partial(self._target.write, batch))
            accepted = set(outcome.accepted)
            self._count([entry for entry in batch if entry.seq in accepted])
            self.tally.refused += len(outcome.refused)
            batch = [e for e in batch if e.seq not in accepted and e.seq not in outcome.refused]

    def _count(self, sent: Sequence[Entry]) -> None:
        self.tally.sent += len(sent)
        sites = Counter(entry.reading.site for entry in sent)
        with store.transaction(self._db):
            rows = [(self._wanted.sink, site, count) for site, count in sites.items()]
            self._db.executemany(_COUNT, rows)

    def _patiently(self, step: Callable[[], T]) -> T:
        attempts = 0
        while True:
            try:
                return step()
            except Held as error:
                raise FatalError(f"{error}. Remedy: {error.remedy}") from error
            except SinkError as error:
                if isinstance(error, ContentRefused):
                    raise FatalError(f"the service refuses the whole request: {error}") from error
                attempts += 1
                self._told(self.tally)
                Event().wait(RETRY.delay(attempts, self._random))


# --- the services ---------------------------------------------------------------------------------


def target(settings: Settings, db: sqlite3.Connection, sink: str, allow_duplicates: bool) -> Target:
    """Google's libraries are imported here, and not before."""
    if sink == "pubsub":
        return PubSubTarget(settings)
    return BigQueryTarget(settings, Streams(db), allow_duplicates)


class PubSubTarget:
    """KPI events as always, with the attribute `replay` and without an ordering key."""

    def __init__(self, settings: Settings) -> None:
        from bridge.sinks import pubsub

        self.policy = pubsub.POLICY
        self._message = pubsub.replayed_message
        self._publisher = pubsub.Publisher(settings, settings.pubsub_topic or "")

    def open(self) -> None:
        pass

    def missing(self, batch: Sequence[Entry]) -> list[Entry]:
        return list(batch)

    def write(self, batch: Sequence[Entry]) -> Outcome:
        """Where the service does not say which it minds, it is found by halves."""
        try:
            self._publish(batch)
        except ContentRefused as error:
            if len(batch) == 1:
                return Outcome((), {batch[0].seq: error.detail})
            half = len(batch) // 2
            first, second = self.write(batch[:half]), self.write(batch[half:])
            refused = {**first.refused, **second.refused}
            return Outcome([*first.accepted, *second.accepted], refused)
        return Outcome([entry.seq for entry in batch], {})

    def _publish(self, batch: Sequence[Entry]) -> None:
        answered: Future[str | SinkError] = Future()
        messages = [self._message(entry.reading) for entry in batch]
        self._publisher.publish(messages, answered.set_result)
        answer = answered.result()
        if isinstance(answer, SinkError):
            raise answer

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._publisher.close()


class Streams:
    """The write streams of replays, noted in the journal until they are finalized. No append of a
    replay is sent again by another process: the intents stay in memory."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def load(self) -> AppendIntent | None:
        return None

    def record(self, intent: AppendIntent) -> None:
        pass

    def stream_created(self, stream: str) -> None:
        try:
            self._note([*self.foreign_streams(), stream])
        except JournalError as error:
            raise Transient("journal", str(error)) from error

    def foreign_streams(self) -> list[str]:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (_STREAMS,)).fetchone()
        return [] if row is None else list(json.loads(row[0]))

    def foreign_streams_ended(self) -> None:
        self._note([])

    def _note(self, streams: list[str]) -> None:
        with store.transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", (_STREAMS, json.dumps(streams))
            )


class BigQueryTarget:
    """By the write method that the settings say."""

    def __init__(self, settings: Settings, streams: Streams, allow_duplicates: bool) -> None:
        from bridge.sinks.bigquery_table import Table

        self._table = Table(settings, DEADLINE_SECONDS)
        self._allow_duplicates = allow_duplicates
        self._end_streams = _nothing
        self._sink = self._made(settings, streams)
        self.policy = self._sink.policy

    def _made(self, settings: Settings, streams: Streams) -> Sink:
        if settings.bigquery_write_method == "insert_all":
            from bridge.sinks.bigquery_insert import InsertAllSink

            return InsertAllSink(settings)
        from bridge.sinks.bigquery import StorageWriteSink

        sink = StorageWriteSink(settings, streams)
        self._end_streams = sink.end_foreign_streams
        return sink

    def open(self) -> None:
        self._sink.open()
        self._end_streams()

    def missing(self, batch: Sequence[Entry]) -> list[Entry]:
        if self._allow_duplicates:
            return list(batch)
        present = self._table.ids_present(batch)
        return [entry for entry in batch if entry.reading.event_id.hex() not in present]

    def write(self, batch: Sequence[Entry]) -> Outcome:
        return self._sink.write(batch).result()

    def finish(self) -> None:
        self._end_streams()

    def close(self) -> None:
        self._sink.close()
        self._table.close()


def _nothing() -> None:
    pass
