"""What `check` finds about the journal: its disk, and how long it lasts while a sink is away."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path

from bridge.cli.findings import Finding, lasting
from bridge.errors import JournalError
from bridge.journal.survey import Survey, survey
from bridge.settings import Settings

GIB = 1024**3
MIB = 1024**2
# What a reading took in a journal of 200,000: 124 without further members, 176 with three.
READING_BYTES = 180.0
LEAST = 64 * MIB  # that is worth being proposed
NEARLY = 0.9  # settled readings alone are let go from 80 % on
RESERVE = 1.1  # more than is needed, where a size is proposed


def journal_findings(settings: Settings) -> list[Finding]:
    """Whether the journal can be written, has room, and lasts as long as it is meant to."""
    folder = _existing(settings.journal_path.absolute().parent)
    if not os.access(folder, os.W_OK):
        fix = f"let the bridge's user write {folder}, or set JOURNAL_PATH"
        return [Finding("journal", "failed", f"{folder} cannot be written", fix)]
    try:
        found = survey(settings.journal_path)
    except JournalError as error:
        fix = "start the bridge: it sets a damaged journal aside and takes over what can be read"
        return [Finding("journal", "failed", str(error), fix)]
    return [
        _journal(settings, found),
        _disk(settings, folder),
        _outage(settings, found or Survey(0, None, None, None), folder),
    ]


def _journal(settings: Settings, found: Survey | None) -> Finding:
    where = f"{settings.journal_path} can be written"
    if found is None:
        return Finding("journal", "ok", f"{where}; there is none yet")
    newest = "none"
    if found.newest_us is not None:
        newest = f"{lasting(time.time() - found.newest_us / 1e6)} ago"
    limit = settings.journal_max_bytes
    used = f"{found.used_bytes / MIB:.0f} of {limit / MIB:.0f} MiB are in use"
    detail = f"{where}; {used}, the newest reading: {newest}"
    if found.used_bytes < NEARLY * limit:
        return Finding("journal", "ok", detail)
    fix = f"mend the sink for which readings wait, or set JOURNAL_MAX_BYTES={2 * limit}"
    return Finding("journal", "warning", detail, fix)


def _disk(settings: Settings, folder: Path) -> Finding:
    free, wanted = _room(settings, folder), settings.journal_max_bytes
    wanted += settings.dead_letter_max_bytes
    detail = f"{free / GIB:.1f} GiB free, {wanted / GIB:.1f} GiB may be needed"
    if free < wanted:
        fix = f"give the disk {wanted / GIB:.1f} GiB of room"
        fits = (int(free * 0.9) - settings.dead_letter_max_bytes) // MIB * MIB
        if fits >= LEAST:
            fix += f", or set JOURNAL_MAX_BYTES={fits}"
        return Finding("disk", "warning", detail, fix)
    return Finding("disk", "ok", detail)


def _outage(settings: Settings, found: Survey, folder: Path) -> Finding:
    target = settings.outage_target_hours
    rate = max(settings.expected_rate or 0.0, found.rate or 0.0)
    if not rate:
        if target is None:
            return Finding("outage", "ok", "how long the journal lasts is not known: no readings")
        detail = f"whether the journal lasts {target:g} hours cannot be told: no rate is known"
        return Finding("outage", "warning", detail, "set EXPECTED_RATE to readings a second")
    size = found.reading_bytes or READING_BYTES
    hours = _usable(settings, folder) / (rate * size) / 3600
    detail = (
        f"at {rate:.3g} readings/s of {size:.0f} bytes the journal lasts {lasting(hours * 3600)} "
        "while a sink is away"
    )
    if target is None:
        return Finding("outage", "ok", detail)
    detail += f"; OUTAGE_TARGET_HOURS is {target:g}"
    if hours >= target:
        return Finding("outage", "ok", detail)
    return Finding("outage", "warning", detail, _larger(settings, folder, target * rate * size))


def _larger(settings: Settings, folder: Path, bytes_an_hour_each_second: float) -> str:
    needed = math.ceil(bytes_an_hour_each_second * 3600 * RESERVE / MIB) * MIB
    fix = f"set JOURNAL_MAX_BYTES={max(needed, settings.journal_max_bytes)}"
    disk = needed + settings.dead_letter_max_bytes
    if _room(settings, folder) < disk:
        fix += f", on a disk with {disk / GIB:.1f} GiB of room"
    return fix


def _usable(settings: Settings, folder: Path) -> int:
    """What the journal can really grow to."""
    return min(settings.journal_max_bytes, _room(settings, folder))


def _room(settings: Settings, folder: Path) -> int:
    path = settings.journal_path
    taken = (Path(f"{path}{side}") for side in ("", "-wal", ".reserve"))
    return shutil.disk_usage(folder).free + sum(map(_size, taken))


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
