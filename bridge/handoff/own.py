"""This instance's record: what nobody else has yet, shipped while it is young."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence

from bridge.clock import Clock
from bridge.errors import FatalError
from bridge.handoff.bucket import Bucket, BucketError
from bridge.handoff.record import (
    DAMAGE,
    Head,
    Lost,
    Part,
    decode,
    encode,
    head_path,
    part_path,
    sweep,
    write_head,
)
from bridge.journal import Journal
from bridge.journal.letters import DeadLetter
from bridge.journal.tail import weight
from bridge.reading import Entry

log = logging.getLogger(__name__)

AGE_US = 10_000_000  # what is settled sooner is never shipped
READ = 1_000
PART = 5_000  # readings of one part
PART_BYTES = 8 * 1024**2  # and what may be in one at most, but for a last entry or letter
LETTERS = 200
RECENT_IDS = 50_000
_NEVER = 2**62
_CURRENT = "handoff_instance"


class Superseded(FatalError):
    """Another instance has taken this one's record, and what it names is that one's now."""


class Own:
    """Made when the journal is open and active. `ship` and `close` belong to one thread;
    `stream_created` is called from a sink's, and may block for as long as they do."""

    def __init__(
        self,
        bucket: Bucket,
        journal: Journal,
        destinations: Mapping[str, str],
        new_name: str,
        stream: str,
        clock: Clock,
    ) -> None:
        self._bucket = bucket
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()
        streams = (stream,) if stream else ()
        self._new = Head(instance=new_name, destinations=dict(destinations), streams=streams)
        self._head = self._new
        self.resumed = False  # whether it is known what became of this journal's record
        self._generation = 0  # 0: there is none
        self._looked = 0  # up to here nothing is left to ship
        self._ids_up_to = 0  # ids up to here lie in the parts, or are too old
        # How many orders had been carried out at the last look, and when the parts were last
        # right: of a former life that is not known.
        self._orders_seen = self._orders_heeded = -1
        self._seen_at = 0  # the journal's last entry at that look

    @property
    def instance(self) -> str:
        return self._head.instance

    @property
    def safe_up_to(self) -> int:
        """Entries up to this one are settled, or in the bucket."""
        return max(self._head.shipped_seq, self._journal.resolved_up_to, self._looked)

    @property
    def unshipped(self) -> int:
        """How many readings, at most, are on this disk alone."""
        return max(0, self._journal.last_seq - self.safe_up_to)

    def unshipped_seconds(self) -> float:
        """The age of the oldest of them."""
        entries, _ = self._journal.unresolved(self.safe_up_to, READ)
        if not entries:
            return 0.0
        return max(0, self._clock.now_us() - entries[0].reading.received_us) / 1e6

    # --- beginning and end ------------------------------------------------------------------------

    def resume(self, delivering: bool) -> None:
        """Go on with the record of this journal, or begin one. What another instance has taken of
        it meanwhile is given up here: Superseded while `delivering`. Raises BucketError."""
        former = self._journal.noted(_CURRENT)
        stored = self._bucket.get(head_path(former)) if former else None
        with self._lock:
            if stored is None:
                self._begin()
            else:
                self._go_on(Head.model_validate_json(stored.data), stored.generation, delivering)
            self.resumed = True

    def _go_on(self, head: Head, generation: int, delivering: bool) -> None:
        if head.taken_by is None:
            self._head, self._generation = head, generation
            # The ledger by day goes on here: what was handed in of it is old.
            none = (head.days[1], head.days[1])
            self._write(head.after(closed=False, streams=self._new.streams, days=none))
            sweep(self._bucket, head.instance, self._head.parts())
            return
        if delivering:
            raise _superseded(head)
        given = self._journal.give_away(1, head.shipped_seq)
        # Counted here and there: from now on only what is received here.
        self._journal.give_days_away()
        log.warning(
            "another instance has taken over what this journal had handed in: it delivers that, "
            "and here it counts as skipped. See that only one version is serving",
            extra={"fields": {"instance": head.taken_by, "readings": given}},
        )
        self._begin()

    def _begin(self) -> None:
        self._head, self._generation = self._new, 0
        self._write(self._new.after())
        # Only now: as long as none is noted, nobody can have taken anything.
        self._journal.note(_CURRENT, self._new.instance)

    def close(self) -> None:
        """Ship all that is unsettled, the ids by which a sensor's repetitions are recognised, and
        the ledger by day; whoever comes next may take it. To be called when nothing is delivered
        any more. Raises BucketError, Superseded."""
        self._ship(_NEVER)
        self._drop_replayed(at_once=True)
        last = self._journal.last_seq
        self._put_readings([], last)
        with self._lock:
            first = end = self._head.days[1]
            for days in self._journal.days():
                end = self._upload("days", Part(days=days), end) + 1
            self._write(self._head.after(closed=True, days=(first, end)))

    # --- all the time -----------------------------------------------------------------------------

    def ship(self) -> None:
        """Put what has been unsettled for some seconds into the bucket, take out what is settled,
        and give a sign of life while there is anything. Raises BucketError, Superseded."""
        self._drop_replayed(at_once=False)
        self._drop_settled()
        before = self._head
        self._ship(self._clock.now_us() - AGE_US)
        with self._lock:
            if self._head is before and not before.empty:
                self._write(before.after())

    def _drop_settled(self) -> None:
        if self._journal.resolved_up_to >= self._head.shipped_seq:
            self._drop("readings")
            self._ids_up_to = 0
        heeded = self._orders_heeded == self._journal.orders_done
        if heeded and not self._journal.letters_after(0, 1):
            self._drop("letters")

    def _drop_replayed(self, at_once: bool) -> None:
        """Take letters out of the parts that an operator has had replayed: whoever comes next
        would offer them once more. Unless `at_once`, not before what came of them is settled or in
        the bucket, nor while orders are being carried out."""
        done = self._journal.orders_done
        if done == self._orders_heeded:
            return
        if done != self._orders_seen:
            self._orders_seen, self._seen_at = done, self._journal.last_seq
        elif self.safe_up_to >= self._seen_at:
            at_once = True
        if at_once:
            for number in range(*self._head.letters):
                self._renew_letters(part_path(self.instance, "letters", number))
            self._orders_heeded = done

    def _renew_letters(self, path: str) -> None:
        stored = self._bucket.get(path)
        try:
            part = decode(stored.data) if stored is not None else Part()
        except DAMAGE:
            return  # whoever takes it over says so
        left = self._journal.letters_left(part.letters)
        if len(left) < len(part.letters):
            self._bucket.put(path, encode(part._replace(letters=left)))

    def _drop(self, kind: str) -> None:
        first, end = getattr(self._head, kind)
        if first == end:
            return
        with self._lock:
            self._write(self._head.after(**{kind: (end, end)}))
        for number in range(first, end):
            self._bucket.delete(part_path(self.instance, kind, number))

    def _ship(self, received_before_us: int) -> None:
        """Everything that is older and unsettled, part by part."""
        while self._ship_readings(received_before_us):
            pass
        while self._ship_letters():
            pass

    def _ship_readings(self, received_before_us: int) -> bool:
        entries, last = self._next(received_before_us)
        if not entries:
            self._looked = last
            return False
        self._put_readings(entries, last)
        return True

    def _put_readings(self, entries: Sequence[Entry], last: int) -> None:
        """And the ids by which what sensors send again is recognised, those of settled ones too;
        but none after `last`, of a reading that is still to be shipped: it would then be taken
        for one that is there."""
        numbers = {entry.seq for entry in entries}
        known = self._journal.known_ids(self._ids_up_to, last, RECENT_IDS)
        part = Part(entries, ids=[each for each in known if each[0] not in numbers])
        with self._lock:
            number = self._upload("readings", part)
            readings = (self._head.readings[0], number + 1)
            self._write(self._head.after(readings=readings, shipped_seq=last))
        self._ids_up_to = last

    def _next(self, received_before_us: int) -> tuple[list[Entry], int]:
        """The oldest that are due, and how far the journal is shipped with them."""
        found: list[Entry] = []
        size = 0
        cursor, end = self.safe_up_to, self._journal.last_seq
        while len(found) < PART:
            entries, last = self._journal.unresolved(cursor, READ)
            for entry in entries:
                if entry.reading.received_us > received_before_us or size > PART_BYTES:
                    return found, entry.seq - 1
                found.append(entry)
                size += weight(entry)
            if last == cursor:
                return found, max(cursor, end)  # numbers of duplicates may follow
            cursor = last
        return found, cursor

    def _ship_letters(self) -> bool:
        letters = _bounded(self._journal.letters_after(self._head.letter, LETTERS))
        if not letters:
            return False
        with self._lock:
            number = self._upload("letters", Part(letters=[letter.row for letter in letters]))
            span = (self._head.letters[0], number + 1)
            self._write(self._head.after(letters=span, letter=letters[-1].id))
        return True

    def _upload(self, kind: str, part: Part, number: int | None = None) -> int:
        if number is None:
            number = int(getattr(self._head, kind)[1])
        self._bucket.put(part_path(self.instance, kind, number), encode(part))
        return number

    # --- the head ---------------------------------------------------------------------------------

    def stream_created(self, stream: str) -> None:
        """To be called before anything is appended on a new write stream. Raises BucketError,
        Superseded: then nothing must be."""
        with self._lock:
            if not self.resumed:
                self._new = self._new.model_copy(update={"streams": (stream,)})
                if self._journal.noted(_CURRENT):
                    raise BucketError("what became of this journal's record is not known yet")
                return
            head = self._head.after(streams=(stream,))
            if head.empty:
                self._head = head  # written with the first part
            else:
                self._write(head)

    def _write(self, head: Head) -> None:
        try:
            self._generation = write_head(self._bucket, head, self._generation)
        except Lost as error:
            raise _superseded(error.found) from error
        self._head = head


def _bounded(letters: Sequence[DeadLetter]) -> Sequence[DeadLetter]:
    size = 0
    for count, letter in enumerate(letters, 1):
        size += len(letter.payload)
        if size > PART_BYTES:
            return letters[:count]
    return letters


def _superseded(head: Head) -> Superseded:
    return Superseded(
        f"another instance ({head.taken_by}) has taken over what this one had handed in: "
        "ending, to go on with the rest after a restart"
    )
