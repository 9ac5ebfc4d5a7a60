"""The newest committed entries, in memory, so that a sink that keeps up never reads the disk."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from bridge.reading import Entry

MAX_ENTRIES = 20_000
MAX_BYTES = 16 * 1024**2


def weight(entry: Entry) -> int:
    """About how many bytes an entry's content takes; what bounds count by bytes go by."""
    attributes = entry.reading.attributes
    return 200 if attributes is None else 200 + len(attributes)


class Tail:
    """Bounded by entries and by bytes. Not safe by itself: used under the journal's lock."""

    def __init__(self, floor: int) -> None:
        self._floor = floor  # every entry after this one is in here
        self._batches: deque[tuple[int, int, Sequence[Entry]]] = deque()
        self._entries = 0
        self._bytes = 0

    def add(self, batch: Sequence[Entry]) -> None:
        size = sum(map(weight, batch))
        self._batches.append((batch[-1].seq, size, batch))
        self._entries += len(batch)
        self._bytes += size
        while self._entries > MAX_ENTRIES or self._bytes > MAX_BYTES:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._floor, size, batch = self._batches.popleft()
        self._entries -= len(batch)
        self._bytes -= size

    def read(self, after: int, limit: int) -> list[Entry] | None:
        """Up to `limit` entries after `after`, in order; None where only the disk has them."""
        if after < self._floor:
            return None
        found: list[Entry] = []
        first = bisect_right(self._batches, after, key=lambda batch: batch[0])
        for index in range(first, len(self._batches)):
            batch = self._batches[index][2]
            start = bisect_right(batch, after, key=lambda entry: entry.seq)
            found.extend(batch[start : start + limit - len(found)])
            if len(found) >= limit:
                break
        return found
