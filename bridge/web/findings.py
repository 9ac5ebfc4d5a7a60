"""What an operator should know, in order of weight, each with its remedy. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from bridge.snapshot import Ledger, SinkState, State
from bridge.web.ledger import summed
from bridge.web.words import count, duration, times

MAX_NAMED = 10
LATE_SECONDS = 300.0
BEHIND_SECONDS = 60.0
NEARLY_FULL_SECONDS = 24 * 3600.0

HELD_REMEDY = (
    "Nothing is lost: readings wait in the journal, and the write is tried again and again by "
    "itself."
)
ERROR_REMEDY = "Nothing to do yet: readings wait in the journal, and the write is tried again."

Level = Literal["wrong", "attention"]
Verdict = Literal["ok", "attention", "wrong"]


@dataclass(frozen=True)
class Finding:
    """Something an operator should know, and what to do about it.

    level: `wrong` is for somebody to act on; `attention` may pass by itself, or is over.
    fact: under which name the statistics know since when it is so; None where nobody does.
    """

    level: Level
    what: str
    remedy: str
    fact: str | None = None


def verdict(findings: list[Finding]) -> Verdict:
    """Of all findings together."""
    if any(finding.level == "wrong" for finding in findings):
        return "wrong"
    return "attention" if findings else "ok"


def now(state: State, ledger: Ledger, stalled: str | None) -> Iterator[Finding]:
    """What is the case at this moment."""
    if stalled is not None:
        yield Finding(
            "wrong",
            f"No progress: {stalled}",
            "The process ends itself and is started again on the same journal. If this page "
            "stays, restart it by hand; the log names the part that hangs.",
        )
    if state.unready is not None:
        yield Finding(
            "wrong",
            f"No readings are taken: {state.unready}",
            _unready_remedy(state),
            "unready",
        )
    if state.loss is not None:
        yield Finding(
            "wrong",
            f"The journal was damaged: {state.loss}",
            "The damaged file is kept beside the journal: keep it until you know that nothing is "
            "missing. `check --clear-journal-loss` then clears this.",
            "loss",
        )
    for sink in state.sinks:
        yield from _wrong_with(sink)
    if _fills_up(state):
        yield Finding(
            "wrong",
            f"The journal is full in {duration(state.journal_seconds_until_full)}",
            "Mend the sink that is behind, or raise JOURNAL_MAX_BYTES if the disk has room. A "
            "full journal loses nothing: the broker holds the messages until there is room.",
        )
    if not ledger.balanced:
        yield Finding(
            "wrong",
            f"The ledger does not balance: {_unbalanced(ledger)}",
            "Keep the journal's file and report it: this is a fault in the bridge.",
        )


def _fills_up(state: State) -> bool:
    """Settled readings are kept only while there is room: with every sink up to date it is they
    that make the journal grow."""
    behind = any(sink.oldest_pending_seconds >= BEHIND_SECONDS for sink in state.sinks)
    return behind and state.journal_seconds_until_full < NEARLY_FULL_SECONDS


def _unready_remedy(state: State) -> str:
    if state.mqtt_connected:
        return "Readings wait at the broker and are taken as soon as this is over."
    return (
        "See that the broker runs and can be reached at MQTT_BROKER and MQTT_PORT, with the "
        "right credentials. The bridge keeps trying by itself."
    )


def _wrong_with(sink: SinkState) -> Iterator[Finding]:
    late = sink.oldest_pending_seconds > LATE_SECONDS
    if sink.held is not None:
        yield Finding(
            "wrong",
            f"{sink.name} needs an operator: {sink.held}",
            HELD_REMEDY,
            f"held {sink.name}",
        )
    elif sink.last_error is not None:
        yield Finding(
            "wrong" if late else "attention",
            f"{sink.name} does not take readings just now: {sink.last_error}",
            ERROR_REMEDY,
            f"error {sink.name}",
        )
    elif late:
        yield Finding(
            "attention",
            f"{sink.name} is {duration(sink.oldest_pending_seconds)} behind",
            "It works, but slower than readings come. If the age keeps growing, look at the "
            "service's quota and at the way to it.",
        )


def sink_remedy(sink: SinkState) -> str | None:
    """What to do about a sink's error; None where it has none."""
    if sink.held is not None:
        return HELD_REMEDY
    return None if sink.last_error is None else ERROR_REMEDY


def _unbalanced(ledger: Ledger) -> str:
    names = [
        site or "(malformed topics)" for site, line in ledger.sites.items() if not line.balanced
    ]
    more = f" and {count(len(names) - MAX_NAMED)} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def since_start(state: State, ledger: Ledger) -> Iterator[Finding]:
    """What has happened and is over."""
    if state.sessions_lost:
        yield Finding(
            "attention",
            f"The broker forgot the bridge's session {times(state.sessions_lost)}",
            "What it had queued then is lost. See that its persistence is on and that no other "
            "client uses MQTT_CLIENT_ID.",
            "sessions_lost",
        )
    if state.broker_dropped:
        yield Finding(
            "attention",
            f"The broker dropped {count(state.broker_dropped)} messages, by its own count",
            "Raise max_queued_messages and max_queued_bytes in its configuration.",
            "broker_dropped",
        )
    if state.qos0_dropped:
        yield Finding(
            "attention",
            f"{count(state.qos0_dropped)} messages of QoS 0 came while the journal was full",
            "They are lost. Let the sensors publish with QoS 1, where this cannot happen.",
            "qos0_dropped",
        )
    refused = _dead_letters(state, ledger)
    if refused:
        yield Finding(
            "attention",
            f"{count(refused)} readings became dead letters",
            "They are kept. See them with the dead-letters list command.",
            "dead_letters",
        )


def _dead_letters(state: State, ledger: Ledger) -> int:
    totals = summed(ledger.sites.values())
    by_sinks = sum(sink.dead_lettered for sink in totals.sinks.values())
    return sum(state.rejected_by_reason.values()) + by_sinks
