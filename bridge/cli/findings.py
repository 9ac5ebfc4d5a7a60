"""What `check` finds, and the findings that need no service."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal, NamedTuple

from bridge.settings import Settings

GIB = 1024**3


class Finding(NamedTuple):
    """One line of `check`. fix: what to do, empty where nothing is to be done."""

    what: str
    result: Literal["ok", "warning", "failed"]
    detail: str
    fix: str = ""


def journal_findings(settings: Settings) -> list[Finding]:
    """Whether the journal's folder can be written, and has room for what it may grow to."""
    folder = _existing(settings.journal_path.absolute().parent)
    if not os.access(folder, os.W_OK):
        fix = f"let the bridge's user write {folder}, or set JOURNAL_PATH"
        return [Finding("journal", "failed", f"{folder} cannot be written", fix)]
    findings = [Finding("journal", "ok", f"{settings.journal_path} can be written")]
    free = shutil.disk_usage(folder).free + _size(settings.journal_path)
    wanted = settings.journal_max_bytes + settings.dead_letter_max_bytes
    detail = f"{free / GIB:.1f} GiB free, {wanted / GIB:.1f} GiB may be needed"
    if free < wanted:
        fix = "give the disk more room, or lower JOURNAL_MAX_BYTES"
        return [*findings, Finding("disk", "warning", detail, fix)]
    return [*findings, Finding("disk", "ok", detail)]


def require_endpoint(settings: Settings) -> list[Finding]:
    if settings.pubsub_endpoint or settings.pubsub_emulator_host:
        return []
    return [
        Finding(
            "Pub/Sub endpoint",
            "warning",
            "PUBSUB_ENDPOINT is not set: publishers in several regions are not ordered together",
            "set the topic's region, such as us-central1-pubsub.googleapis.com",
        )
    ]


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
