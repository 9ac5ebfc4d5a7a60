"""The documents of `/api/dead-letters`."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import orjson

from bridge.errors import JournalError
from bridge.journal import letter_pages
from bridge.journal.letter_pages import Summary
from bridge.journal.letters import Selection
from bridge.journal.store import MOST
from bridge.sinks.letter_json import hex_dump, letter_document
from bridge.times import iso_us
from bridge.web.api import Document, Source, asked
from bridge.web.parameters import Parameters, Unavailable, Unknown

MAX_LETTERS = 500


def letters(source: Source, given: Parameters) -> Document:
    """One page of letters, newest first, and how many there are by reason."""
    chosen, before = _chosen(given), given.number("before", MOST)
    limit = given.number("limit", 50, MAX_LETTERS)
    reasons = asked(lambda: source.statistics.tags.reasons(chosen.site, chosen.sink))
    try:
        found = letter_pages.page(source.statistics.journal_path, chosen, limit, before)
    except JournalError as error:
        raise Unavailable(str(error)) from error
    return {
        "total": _total(reasons, chosen.reason),
        "reasons": reasons,
        "letters": [_summary(letter) for letter in found],
    }


def _total(reasons: dict[str, int] | None, reason: str | None) -> int | None:
    if reasons is None:
        return None
    return sum(reasons.values()) if reason is None else reasons.get(reason, 0)


def letter(source: Source, number: int) -> Document:
    """One letter, whole. Raises Unknown."""
    try:
        found = letter_pages.one(source.statistics.journal_path, min(number, MOST))
    except JournalError as error:
        raise Unavailable(str(error)) from error
    if found is None:
        raise Unknown(f"there is no dead letter {number}: it was let go, or never was")
    return letter_document(found) | {"payload": _payload(found.payload)}


def download(source: Source, given: Parameters) -> Iterator[bytes]:
    """All chosen letters as JSON lines, a few in memory at a time. Taking from it may raise
    JournalError."""
    found = letter_pages.all_of(source.statistics.journal_path, _chosen(given))
    return (orjson.dumps(letter_document(letter)) + b"\n" for letter in found)


def _chosen(given: Parameters) -> Selection:
    return Selection(given.text("reason"), given.text("site"), given.text("sink"))


def _summary(letter: Summary) -> Document:
    return {
        "id": letter.id,
        "sink": letter.sink,
        "reason": letter.reason,
        "detail": letter.detail,
        "site": letter.site,
        "topic": letter.topic,
        "payload_bytes": letter.payload_bytes,
        "received_at": iso_us(letter.received_us),
        "event_id": letter.event_id.hex() if letter.event_id else None,
        "excerpt": letter.excerpt.decode("utf-8", "backslashreplace"),
    }


def _payload(payload: bytes) -> Document:
    """As text where it is UTF-8, else as a dump."""
    encoded = base64.b64encode(payload).decode("ascii")
    try:
        return {"text": payload.decode("utf-8"), "hex": None, "payload_base64": encoded}
    except UnicodeDecodeError:
        return {"text": None, "hex": "\n".join(hex_dump(payload)), "payload_base64": encoded}
