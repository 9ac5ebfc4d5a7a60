"""A look at a journal's file from outside: how much it holds, and who runs on it.

It reads for milliseconds, beside a running daemon, and disturbs none.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bridge.journal import store

ENOUGH = 10_000  # readings from which on a size for each means something
LONG_US = 60_000_000  # from which on a rate means something
LOCKS = Path("/proc/locks")


class Survey(NamedTuple):
    """None where the journal holds too little to tell.

    reading_bytes: that each reading takes, ids and indexes included. rate: readings a second,
    over all that the journal still holds. newest_us: when the newest one was received.
    """

    used_bytes: int
    reading_bytes: float | None
    rate: float | None
    newest_us: int | None


def survey(path: Path) -> Survey | None:
    """None where there is no journal yet. Raises JournalError, JournalDamaged, JournalNewer."""
    if not path.exists():
        return None
    db = store.connect_reader(path)
    try:
        with store.translated():
            pages, free, page = (
                int(db.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
            # By the key, at once, however many there are.
            first, last = (
                db.execute(f"SELECT seq, received_us FROM entries ORDER BY seq {way} LIMIT 1")
                for way in ("ASC", "DESC")
            )
            oldest, newest = first.fetchone(), last.fetchone()
    finally:
        db.close()
    used = (pages - free) * page
    if oldest is None:
        return Survey(used, None, None, None)
    held, spread_us = newest[0] - oldest[0] + 1, newest[1] - oldest[1]
    return Survey(
        used_bytes=used,
        reading_bytes=used / held if held >= ENOUGH else None,
        rate=held / spread_us * 1e6 if spread_us >= LONG_US else None,
        newest_us=newest[1],
    )


def holder(path: Path) -> int | None:
    """The process that runs on this journal; None where there is none, or the system does not
    tell. Asks without trying the lock: a daemon that starts just now must get it."""
    with suppress(OSError, ValueError):
        inode = Path(f"{path}.lock").stat().st_ino
        for line in LOCKS.read_text().splitlines():
            # 1: FLOCK  ADVISORY  WRITE 4711 fe:01:123456 0 EOF
            words = line.split()
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
                return int(words[4])
    return None
