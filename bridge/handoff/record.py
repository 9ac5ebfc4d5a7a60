"""Heads and parts as they lie in the bucket."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict

from bridge.errors import BridgeError
from bridge.handoff.bucket import Bucket, Conflict
from bridge.journal import days
from bridge.journal.letters import Row
from bridge.reading import Again, Entry, Reading

HEADS = "heads/"
DAMAGE = (ValueError, KeyError, zlib.error)


class Head(BaseModel):
    """What a record holds. Numbers of parts are half-open ranges.

    counter: another one with each write, so that a write whose answer was lost is recognised.
    destinations: where the readings are to go. streams: BigQuery's write streams on which they may
        have been appended. taken_by: the instance whose they are now.
    shipped_seq: entries up to it are in the parts, or were resolved. letter: the last dead letter.
    """

    model_config = ConfigDict(frozen=True)

    instance: str
    destinations: dict[str, str]
    counter: int = 0
    closed: bool = False
    taken_by: str | None = None
    streams: tuple[str, ...] = ()
    shipped_seq: int = 0
    letter: int = 0
    readings: tuple[int, int] = (0, 0)
    letters: tuple[int, int] = (0, 0)
    days: tuple[int, int] = (0, 0)

    @property
    def empty(self) -> bool:
        return not any(True for _ in self.parts())

    def parts(self) -> Iterator[str]:
        """The names of the parts, the oldest readings first."""
        kinds = {"readings": self.readings, "letters": self.letters, "days": self.days}
        for kind, (first, end) in kinds.items():
            for number in range(first, end):
                yield part_path(self.instance, kind, number)

    def encoded(self) -> bytes:
        return self.model_dump_json().encode()

    def after(self, **changes: Any) -> Head:
        """The next head."""
        return self.model_copy(update={**changes, "counter": self.counter + 1})


class Lost(BridgeError):
    """A record is another instance's by now. found: its head, as far as there still is one."""

    def __init__(self, found: Head) -> None:
        super().__init__(f"the record of {found.instance} is taken by {found.taken_by}")
        self.found = found


class Part(NamedTuple):
    """What one object holds. ids: number, event time and event id of readings of which nothing
    else is here. days: the ledger by day, of a record that is closed."""

    entries: Sequence[Entry] = ()
    letters: Sequence[Row] = ()
    ids: Sequence[tuple[int, int, bytes]] = ()
    days: days.Handed | None = None


def head_path(instance: str) -> str:
    return f"{HEADS}{instance}"


def write_head(bucket: Bucket, head: Head, generation: int) -> int:
    """Write a head in the place of this instance's latest one; answers its generation. Only the one
    whose record it is writes to it: where another generation is found, but no other owner, the
    answer to an earlier write was lost. Raises Lost, BucketError, Conflict."""
    path = head_path(head.instance)
    try:
        return bucket.put(path, head.encoded(), generation)
    except Conflict:
        stored = bucket.get(path)
    if stored is None:
        if head.taken_by is not None:
            raise Lost(head)
        # Somebody has tidied it away: an empty one says nothing.
        return bucket.put(path, head.encoded(), 0)
    found = Head.model_validate_json(stored.data)
    if found == head:
        return stored.generation
    if found.taken_by == head.taken_by and found.counter <= head.counter:
        return bucket.put(path, head.encoded(), stored.generation)
    raise Lost(found)


def sweep(bucket: Bucket, instance: str, named: Iterable[str] = ()) -> None:
    """Delete an instance's parts but those that its head names: of others it was killed before it
    could name them, or delete them. Raises BucketError."""
    kept = set(named)
    for path in bucket.names(f"parts/{instance}/"):
        if path not in kept:
            bucket.delete(path)


def part_path(instance: str, kind: str, number: int) -> str:
    return f"parts/{instance}/{kind}-{number:08d}"


def encode(part: Part) -> bytes:
    members: dict[str, Any] = {
        "entries": [(seq, reading[0].hex(), *reading[1:]) for seq, reading in part.entries],
        "again": [(entry.seq, entry.sink) for entry in part.entries if isinstance(entry, Again)],
        "letters": [[_packed(value) for value in letter] for letter in part.letters],
        "ids": [(seq, event_us, event_id.hex()) for seq, event_us, event_id in part.ids],
    }
    if part.days is not None:
        lines = [(*line[:4], line[4].hex()) for line in part.days.lines]
        members["days"] = [lines, part.days.published, part.days.since, part.days.floor]
    return zlib.compress(orjson.dumps(members), level=1)


def decode(data: bytes) -> Part:
    """Raises one of `DAMAGE` for what `encode` did not write."""
    members = orjson.loads(zlib.decompress(data))
    again = dict(members.get("again", ()))
    return Part(
        [_entry(row, again.get(row[0])) for row in members["entries"]],
        [_letter(row) for row in members["letters"]],
        [(seq, event_us, bytes.fromhex(text)) for seq, event_us, text in members["ids"]],
        _days(*members["days"]) if "days" in members else None,
    )


def _entry(row: list[Any], sink: str | None) -> Entry:
    reading = Reading(bytes.fromhex(row[1]), *row[2:])
    return Entry(row[0], reading) if sink is None else Again(row[0], reading, sink)


def _days(lines: list[Any], published: list[Any], since: dict[str, int], floor: int) -> days.Handed:
    whole: list[days.Line] = [(*line[:4], bytes.fromhex(line[4])) for line in lines]
    return days.Handed(whole, [tuple(one) for one in published], since, floor)


def _packed(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _letter(row: list[Any]) -> Row:
    values = [
        base64.b64decode(value["base64"]) if isinstance(value, dict) else value for value in row
    ]
    return tuple(values)  # type: ignore[return-value]
