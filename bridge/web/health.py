"""What the two health paths answer: one word for everybody, the reason for those who may see."""

from __future__ import annotations

from typing import Any, NamedTuple

from bridge.snapshot import Daemon, SinkState


class Health(NamedTuple):
    status: int
    document: dict[str, Any]


def live(daemon: Daemon, detailed: bool) -> Health:
    """Whether the process works at all. A stuck sink, an absent broker or a full journal do not
    matter here: a platform that restarts an instance throws its disk away."""
    reason = daemon.stalled()
    details = _details(reason, daemon.state().sinks) if detailed else {}
    return _health(reason, details)


def ready(daemon: Daemon, detailed: bool) -> Health:
    """Whether readings are taken: subscribed, and the journal accepts writes."""
    state = daemon.state()
    details = _details(state.unready, state.sinks) | {"loss": state.loss} if detailed else {}
    return _health(state.unready, details)


def _health(reason: str | None, details: dict[str, Any]) -> Health:
    if reason is None:
        return Health(200, {"status": "ok"} | details)
    return Health(503, {"status": "unavailable"} | details)


def _details(reason: str | None, sinks: tuple[SinkState, ...]) -> dict[str, Any]:
    return {"reason": reason, "sinks": {sink.name: _sink(sink) for sink in sinks}}


def _sink(sink: SinkState) -> dict[str, Any]:
    return {
        "pending": sink.pending,
        "oldest_pending_seconds": sink.oldest_pending_seconds,
        "held": sink.held,
        "last_error": sink.last_error,
    }
