"""Taking over what others have handed in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from bridge.clock import Clock
from bridge.handoff.bucket import Bucket, Conflict
from bridge.handoff.own import Superseded
from bridge.handoff.record import (
    DAMAGE,
    HEADS,
    Head,
    Lost,
    Part,
    decode,
    head_path,
    sweep,
    write_head,
)
from bridge.journal import Journal
from bridge.journal.handover import Handed
from bridge.reading import Again

log = logging.getLogger(__name__)

# A living instance with parts writes its head every few seconds.
STALE_SECONDS = 45.0
# For how long one that has handed in nothing is given the time to do so before it ends.
PRESENT_SECONDS = 20.0
TOMBSTONE_SECONDS = 7 * 86_400.0
_NOTE = "handoff_taken"


class _Seen(NamedTuple):
    generation: int
    since: float


class _Taken(NamedTuple):
    """Of a record that is this instance's now: how many parts are in the journal, and where."""

    parts: int
    ranges: list[tuple[int, int]]


class Others:
    """The records of other instances. Used from one thread, but for `stream_created`.
    stream: the write stream that this instance used last."""

    def __init__(
        self,
        bucket: Bucket,
        journal: Journal,
        destinations: Mapping[str, str],
        stream: str,
        clock: Clock,
    ) -> None:
        self._bucket = bucket
        self._journal = journal
        self._destinations = dict(destinations)
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()  # over the heads of `_held`
        self._seen: dict[str, _Seen] = {}
        self._held: dict[str, tuple[Head, int]] = {}

    def look(self, me: str, delivering: bool) -> int:
        """Take over what can be taken. Answers how many others may still hand something in.
        Raises BucketError, JournalError; Superseded while `delivering`."""
        waiting = 0
        found = set()
        for name in self._bucket.names(HEADS):
            instance = name.removeprefix(HEADS)
            found.add(instance)
            read = self._read(me, name) if instance != me else None
            if read is not None:
                head, generation = read
                if head.taken_by != me and instance in self._notes():
                    self._give_up(head, delivering)
                waiting += self._consider(me, head, generation)
        self._seen = {instance: seen for instance, seen in self._seen.items() if instance in found}
        return waiting

    def _read(self, me: str, name: str) -> tuple[Head, int] | None:
        # Under the lock: what `stream_created` writes meanwhile must not be taken for older than
        # what was read before.
        with self._lock:
            stored = self._bucket.get(name)
            if stored is None:
                return None
            head = Head.model_validate_json(stored.data)
            if head.taken_by == me:
                self._held[head.instance] = (head, stored.generation)
            return head, stored.generation

    def _consider(self, me: str, head: Head, generation: int) -> bool:
        """Whether this one is to be waited for."""
        if head.taken_by == me:
            self._take(head)
            return False
        unchanged = self._unchanged(head.instance, generation)
        if head.taken_by is not None and head.empty:
            # Says to an instance that was only away that its record was taken.
            if unchanged >= TOMBSTONE_SECONDS:
                self._tidy_away(head, generation)
            elif unchanged == 0.0:
                sweep(self._bucket, head.instance)
            return False
        if head.empty and not head.closed:
            if unchanged >= PRESENT_SECONDS:
                self._tidy_away(head, generation)
            return unchanged < PRESENT_SECONDS
        handed_over = head.closed and head.taken_by is None
        if not handed_over and unchanged < STALE_SECONDS:
            return True
        if head.destinations != self._destinations:
            self._refuse(head)
            return False
        return not self._claim(me, head, generation)

    def _unchanged(self, instance: str, generation: int) -> float:
        now = self._clock.monotonic()
        seen = self._seen.get(instance)
        if seen is None or seen.generation != generation:
            seen = self._seen[instance] = _Seen(generation, now)
        return now - seen.since

    def _tidy_away(self, head: Head, generation: int) -> None:
        try:
            # Its parts are left alone: it may be alive, and be about to name one.
            self._bucket.delete(head_path(head.instance), generation)
        except Conflict:
            log.debug(
                "an instance has shown a sign of life: its record stays",
                extra={"fields": _named(head)},
            )

    def _refuse(self, head: Head) -> None:
        log.error(
            "readings of a former instance lie in the bucket for another destination: they stay "
            "there. Start with the former configuration, to have them delivered",
            extra={"fields": {**_named(head), "destinations": head.destinations}},
        )

    def _claim(self, me: str, head: Head, generation: int) -> bool:
        with self._lock:
            # Whoever had taken it before has counted on: what lies here of the ledger is old.
            days = (0, 0) if head.taken_by else head.days
            mine = head.after(taken_by=me, streams=self._streams(head), days=days)
            try:
                generation = self._bucket.put(head_path(head.instance), mine.encoded(), generation)
            except Conflict:
                return False
            self._held[head.instance] = (mine, generation)
        self._take(mine)
        return True

    def _streams(self, head: Head) -> tuple[str, ...]:
        """Those on which its readings may have been appended, by whoever had them or has."""
        return tuple(dict.fromkeys(filter(None, (*head.streams, self._stream))))

    # --- what is this instance's now --------------------------------------------------------------

    def _take(self, head: Head) -> None:
        """Also to go on with after a restart: what is in the journal already is passed over."""
        names = list(head.parts())
        taken = self._notes().get(head.instance, _Taken(0, []))
        for name in names[taken.parts :]:
            self._take_part(head, name)
        if len(names) > taken.parts:
            log.info(
                "what a former instance had not settled was taken over: it is delivered from here",
                extra={"fields": {**_named(head), "parts": len(names)}},
            )

    def _take_part(self, head: Head, name: str) -> None:
        part = self._load(name)
        # A part is written before its head: it may hold more than the head says.
        named = [entry for entry in part.entries if entry.seq <= head.shipped_seq]
        readings = [entry.reading for entry in named if not isinstance(entry, Again)]
        again = [(entry.sink, entry.reading) for entry in named if isinstance(entry, Again)]
        ids = [known[1:] for known in part.ids if known[0] <= head.shipped_seq]
        notes = self._notes()
        before = notes.get(head.instance, _Taken(0, []))

        def note(first: int, last: int) -> tuple[str, str]:
            ranges = [*before.ranges, (first, last)] if first <= last else before.ranges
            notes[head.instance] = _Taken(before.parts + 1, ranges)
            return _NOTE, _noted(notes)

        foreign = [stream for stream in head.streams if stream != self._stream]
        handed = Handed(note, ids, part.letters, foreign, again, part.days)
        self._journal.take_over(readings, handed)

    def _load(self, name: str) -> Part:
        stored = self._bucket.get(name)
        if stored is not None:
            try:
                return decode(stored.data)
            except DAMAGE as error:
                log.error(
                    "a part in the bucket is damaged: what it held is lost. Look for it in the "
                    "bucket's earlier versions, and at who writes there",
                    extra={"fields": {"part": name, "error": str(error)}},
                )
                return Part()
        log.error(
            "a part is not in the bucket any more: what it held is lost. Look for a lifecycle "
            "rule of the bucket, and remove it",
            extra={"fields": {"part": name}},
        )
        return Part()

    def let_go(self, safe_up_to: int) -> None:
        """Empty the records of which everything up to this entry is settled, or in this
        instance's own record. Raises BucketError, Superseded."""
        notes = self._notes()
        for instance in list(self._held):
            last = max((last for _, last in notes.get(instance, _Taken(0, [])).ranges), default=0)
            if last <= safe_up_to:
                self._empty(instance)
                self._forget(instance)

    def _empty(self, instance: str) -> None:
        with self._lock:
            head, generation = self._held[instance]
            if not head.empty:
                none = (0, 0)
                emptied = head.after(readings=none, letters=none, days=none, closed=False)
                self._replace(emptied, generation)
            del self._held[instance]
        sweep(self._bucket, instance)

    def stream_created(self, stream: str) -> None:
        """As `Own.stream_created`."""
        with self._lock:
            self._stream = stream
            for head, generation in list(self._held.values()):
                if not head.empty:
                    self._replace(head.after(streams=self._streams(head)), generation)

    def _replace(self, head: Head, generation: int) -> None:
        try:
            generation = write_head(self._bucket, head, generation)
        except Lost as error:
            raise _superseded(head) from error
        self._held[head.instance] = (head, generation)

    # --- the journal's notes of it ----------------------------------------------------------------

    def _notes(self) -> dict[str, _Taken]:
        noted = orjson.loads(self._journal.noted(_NOTE) or "{}")
        return {instance: _Taken(*numbers) for instance, numbers in noted.items()}

    def _forget(self, instance: str) -> None:
        notes = self._notes()
        if notes.pop(instance, None) is not None:
            self._journal.note(_NOTE, _noted(notes))

    def _give_up(self, head: Head, delivering: bool) -> None:
        """A record that this instance had taken is another one's now."""
        if delivering:
            raise _superseded(head)
        given = sum(
            self._journal.give_away(first, last)
            for first, last in self._notes()[head.instance].ranges
        )
        self._journal.give_days_away()
        log.warning(
            "another instance delivers what this one had taken over: this one counts it as "
            "skipped. See that only one version is serving",
            extra={"fields": {**_named(head), "readings": given}},
        )
        self._held.pop(head.instance, None)
        self._forget(head.instance)


def _superseded(head: Head) -> Superseded:
    return Superseded(
        f"another instance has taken over the record of {head.instance}: ending, to go on without "
        "it after a restart"
    )


def _noted(notes: Mapping[str, _Taken]) -> str:
    return orjson.dumps({instance: list(taken) for instance, taken in notes.items()}).decode()


def _named(head: Head) -> dict[str, object]:
    return {"instance": head.instance, "taken_by": head.taken_by}
