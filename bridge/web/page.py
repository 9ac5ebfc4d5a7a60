"""What the operators' page says: the findings in order of weight, and figures as people read them.

Pure; `templates/page.html` lays it out. A finding always carries its remedy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from bridge.snapshot import Ledger, SinkState, SiteCounts, State
from bridge.web.ledger import summed

MAX_SITES = 200
MAX_NAMED = 10
LATE_SECONDS = 300.0
NEARLY_FULL_SECONDS = 24 * 3600.0

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Finding:
    """Something an operator should know, and what to do about it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Page:
    """Everything the template shows. `wrong`: now; `since_start`: happened, and is over."""

    wrong: list[Finding]
    since_start: list[Finding]
    state: State
    sites: list[tuple[str, SiteCounts]]
    sites_left_out: int
    totals: SiteCounts
    balanced: bool
    taken: int


def page(state: State, ledger: Ledger, stalled: str | None) -> Page:
    """The page of one moment."""
    return Page(
        wrong=list(_wrong(state, ledger, stalled)),
        since_start=list(_since_start(state, ledger)),
        state=state,
        sites=list(islice(ledger.sites.items(), MAX_SITES)),
        sites_left_out=max(0, len(ledger.sites) - MAX_SITES),
        totals=summed(ledger.sites.values(), (sink.name for sink in state.sinks)),
        balanced=ledger.balanced,
        taken=ledger.taken,
    )


def _wrong(state: State, ledger: Ledger, stalled: str | None) -> Iterator[Finding]:
    if stalled is not None:
        yield Finding(
            f"No progress: {stalled}",
            "The process ends itself and is started again on the same journal. If this page "
            "stays, restart it by hand; the log names the part that hangs.",
        )
    if state.unready is not None:
        yield Finding(f"No readings are taken: {state.unready}", _unready_remedy(state))
    if state.loss is not None:
        yield Finding(
            f"The journal was damaged: {state.loss}",
            "The damaged file is kept beside the journal: keep it until you know that nothing is "
            "missing. `check --clear-journal-loss` then clears this.",
        )
    for sink in state.sinks:
        yield from _wrong_with(sink)
    if state.journal_seconds_until_full < NEARLY_FULL_SECONDS:
        yield Finding(
            f"The journal is full in {duration(state.journal_seconds_until_full)}",
            "Mend the sink that is behind, or raise JOURNAL_MAX_BYTES if the disk has room. A "
            "full journal loses nothing: the broker holds the messages until there is room.",
        )
    if not ledger.balanced:
        yield Finding(
            f"The ledger does not balance: {_unbalanced(ledger)}",
            "Keep the journal's file and report it: this is a fault in the bridge.",
        )


def _unready_remedy(state: State) -> str:
    if state.mqtt_connected:
        return "Readings wait at the broker and are taken as soon as this is over."
    return (
        "See that the broker runs and can be reached at MQTT_BROKER and MQTT_PORT, with the "
        "right credentials. The bridge keeps trying by itself."
    )


def _wrong_with(sink: SinkState) -> Iterator[Finding]:
    if sink.held is not None:
        yield Finding(
            f"{sink.name} needs an operator: {sink.held}",
            "Nothing is lost: readings wait in the journal, and the write is tried again and "
            "again by itself.",
        )
    elif sink.last_error is not None:
        yield Finding(
            f"{sink.name} does not take readings just now: {sink.last_error}",
            "Nothing to do yet: readings wait in the journal, and the write is tried again.",
        )
    elif sink.oldest_pending_seconds > LATE_SECONDS:
        yield Finding(
            f"{sink.name} is {duration(sink.oldest_pending_seconds)} behind",
            "It works, but slower than readings come. If the age keeps growing, look at the "
            "service's quota and at the way to it.",
        )


def _unbalanced(ledger: Ledger) -> str:
    names = [
        site or "(malformed topics)" for site, line in ledger.sites.items() if not line.balanced
    ]
    more = f" and {count(len(names) - MAX_NAMED)} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _since_start(state: State, ledger: Ledger) -> Iterator[Finding]:
    if state.sessions_lost:
        yield Finding(
            f"The broker forgot the bridge's session {times(state.sessions_lost)}",
            "What it had queued then is lost. See that its persistence is on and that no other "
            "client uses MQTT_CLIENT_ID.",
        )
    if state.broker_dropped:
        yield Finding(
            f"The broker dropped {count(state.broker_dropped)} messages, by its own count",
            "Raise max_queued_messages and max_queued_bytes in its configuration.",
        )
    if state.qos0_dropped:
        yield Finding(
            f"{count(state.qos0_dropped)} messages of QoS 0 came while the journal was full",
            "They are lost. Let the sensors publish with QoS 1, where this cannot happen.",
        )
    refused = _dead_letters(state, ledger)
    if refused:
        yield Finding(
            f"{count(refused)} readings became dead letters",
            "They are kept. See them with the dead-letters list command.",
        )


def _dead_letters(state: State, ledger: Ledger) -> int:
    totals = summed(ledger.sites.values())
    by_sinks = sum(sink.dead_lettered for sink in totals.sinks.values())
    return sum(state.rejected_by_reason.values()) + by_sinks


def count(number: int) -> str:
    """1234567 → 1,234,567."""
    return f"{number:,}"


def times(number: int) -> str:
    return "once" if number == 1 else f"{count(number)} times"


def size(octets: int) -> str:
    """Bytes in the unit that leaves one to four digits."""
    value = float(octets)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def duration(seconds: float) -> str:
    """Seconds in the two largest units: `3 min 5 s`."""
    if math.isinf(seconds):
        return "for ever"
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    left = int(seconds)
    parts: list[str] = []
    for length, unit in _UNITS:
        number, left = divmod(left, length)
        if number or parts:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])


def when(seconds: float) -> str:
    """How far off something is that may never come."""
    return "not in sight" if math.isinf(seconds) else f"in {duration(seconds)}"
