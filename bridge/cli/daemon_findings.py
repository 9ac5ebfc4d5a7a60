"""What `check` finds in the running daemon: its own answers on the loopback."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from bridge.cli.findings import Finding, lasting
from bridge.journal.survey import holder
from bridge.settings import Settings

SECONDS = 5.0
LATE_SECONDS = 300.0
ANY_ADDRESS = ("0.0.0.0", "::")


class Daemon(NamedTuple):
    """A bridge that answers. `ready`, `ledger`: its documents, of which a stranger sees no more
    than a word; `metrics`: those without labels, by name."""

    ready: dict[str, Any]
    ledger: dict[str, Any]
    metrics: dict[str, float]

    @property
    def tells(self) -> bool:
        """Whether it shows more than a word."""
        return "sinks" in self.ready

    @property
    def taken(self) -> int:
        return int(self.ledger.get("totals", {}).get("taken", 0))


def ask(settings: Settings) -> Daemon | None:
    """The daemon of these settings on this machine; None where no bridge answers. Blocks for up to
    5 s for each of three requests."""
    try:
        _, ready = _get(settings, "/readyz")
        document = json.loads(ready)
        if not isinstance(document, dict) or "status" not in document:
            return None
        seen, ledger = _get(settings, "/ledger")
        if seen != 200:
            return Daemon(document, {}, {})
        return Daemon(document, json.loads(ledger), _metrics(_get(settings, "/metrics")[1]))
    except (OSError, ValueError, http.client.HTTPException):
        return None


def daemon_findings(settings: Settings, daemon: Daemon | None) -> Iterator[Finding]:
    where = _where(settings)
    if daemon is None:
        yield _nobody(settings, where)
    elif not daemon.tells:
        fix = "set HTTP_TOKEN or HTTP_TOKEN_FILE as the daemon has it"
        yield Finding("daemon", "warning", f"{where} answers, but shows nothing to strangers", fix)
    else:
        yield _readiness(daemon, where)
        yield _session(daemon)
        yield from _sinks(daemon)
        yield from _losses(daemon)


def _nobody(settings: Settings, where: str) -> Finding:
    process = holder(settings.journal_path)
    if process is None:
        detail = f"not running here (no bridge answers on {where})"
        return Finding("daemon", "warning", detail, "start it with `run`, if it should be")
    detail = f"process {process} runs on {settings.journal_path}, but none answers on {where}"
    fix = "set PORT and HTTP_HOST as that process has them; it may also still be starting"
    return Finding("daemon", "warning", detail, fix)


def _readiness(daemon: Daemon, where: str) -> Finding:
    reason = daemon.ready.get("reason")
    if reason:
        fix = "do what the findings on broker, journal and disk say"
        return Finding("daemon", "failed", f"takes no readings: {reason}", fix)
    started = daemon.metrics.get("process_start_time_seconds")
    since = f", up for {lasting(time.time() - started)}" if started else ""
    return Finding("daemon", "ok", f"answers on {where}{since}; it takes readings")


def _session(daemon: Daemon) -> Finding:
    lost = int(daemon.metrics.get("bridge_mqtt_sessions_lost_total", 0))
    connected = "connected" if daemon.metrics.get("bridge_mqtt_connected") else "not connected"
    detail = f"{connected}; {daemon.taken} messages taken since the start"
    if lost:
        detail += f"; the broker has forgotten the session {lost} times, with what it had queued"
        fix = (
            "in mosquitto.conf set persistence true, autosave_interval 1 and "
            "persistent_client_expiration 14d; then restart the bridge to start this count anew"
        )
        return Finding("session", "warning", detail, fix)
    return Finding("session", "ok", detail)


def _sinks(daemon: Daemon) -> Iterator[Finding]:
    for name, sink in daemon.ready["sinks"].items():
        what, waits = f"sink {name}", f"{sink['pending']} readings wait"
        age = float(sink["oldest_pending_seconds"])
        if sink["held"]:
            detail = f"held, {waits}: {sink['last_error']}"
            yield Finding(what, "failed", detail, sink["held"])
        elif sink["last_error"] or age > LATE_SECONDS:
            detail = f"{waits}, the oldest for {lasting(age)}: {sink['last_error'] or 'too slow'}"
            fix = "nothing, unless it lasts; then look at the service and the way to it"
            yield Finding(what, "warning", detail, fix)
        else:
            yield Finding(what, "ok", waits)


def _losses(daemon: Daemon) -> Iterator[Finding]:
    if loss := daemon.ready.get("loss"):
        fix = "keep the file that was set aside until nothing is missing; then run "
        fix += "`check --clear-journal-loss`"
        yield Finding("journal loss", "warning", f"the journal was damaged: {loss}", fix)
    if daemon.ledger.get("balanced") is False:
        fix = "keep the journal's file and report it: this is a fault in the bridge"
        yield Finding("ledger", "failed", "it does not balance", fix)
    if dropped := int(daemon.metrics.get("bridge_qos0_dropped_total", 0)):
        detail = f"{dropped} messages of QoS 0 came while the journal took nothing, and are lost"
        yield Finding("QoS 0", "warning", detail, "let the sensors publish with QoS 1")


# --- asking --------------------------------------------------------------------------------------


def _host(settings: Settings) -> str:
    return "127.0.0.1" if settings.listen_host in ANY_ADDRESS else settings.listen_host


def _where(settings: Settings) -> str:
    return f"http://{_host(settings)}:{settings.port}"


def _get(settings: Settings, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(_host(settings), settings.port, timeout=SECONDS)
    try:
        connection.request("GET", path, headers=_credential(settings))
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def _credential(settings: Settings) -> dict[str, str]:
    """Needed only where the daemon does not listen on the loopback. One in Secret Manager is not
    fetched for it."""
    token = None
    with suppress(OSError, ValueError):
        token = settings.token
    return {"Authorization": f"Bearer {token}"} if token else {}


def _metrics(text: str) -> dict[str, float]:
    lines = (line.split(" ") for line in text.splitlines() if not line.startswith("#"))
    return {line[0]: float(line[1]) for line in lines if len(line) == 2 and "{" not in line[0]}
