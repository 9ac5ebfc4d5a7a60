"""What `check` finds about the broker, as far as a client can tell."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bridge.cli.findings import Finding
from bridge.cli.probe import ENOUGH, LISTEN_SECONDS, OWN_TOPIC, SILENT, Heard, probe
from bridge.settings import Settings

OLDEST = (2, 0, 11)  # that the bridge is tried with
QUEUE_FIX = (
    "in mosquitto.conf set max_queued_messages 1000000 and max_queued_bytes 536870912, and restart "
    "it (in the container: MQTT_QUEUE_MESSAGES, MQTT_QUEUE_BYTES)"
)


def broker_findings(settings: Settings, taken: int | None) -> Iterator[Finding]:
    """Connect with a clean session, under an id of its own. Blocks up to 10 s. taken: messages
    that a running daemon has taken; None where none runs. Raises ConfigurationError."""
    where = f"{settings.mqtt_broker}:{settings.mqtt_port}"
    try:
        heard = probe(settings)
    except OSError as error:
        fix = "start the broker, or set MQTT_BROKER, MQTT_PORT and MQTT_TLS to where it listens"
        yield Finding("broker", "failed", f"{where} cannot be reached ({error})", fix)
        return
    yield _connection(settings, where, heard)
    if heard.problem is None:
        yield _version(settings, heard)
        yield from _counters(heard)
        yield _reading(settings, heard, taken)
        yield from _retained(settings, heard)
        yield _writing(heard)


def _connection(settings: Settings, where: str, heard: Heard) -> Finding:
    if heard.problem == SILENT:
        fix = "check MQTT_PORT and MQTT_TLS: what listens there does not answer as a broker"
        return Finding("broker", "failed", f"{where}: {heard.problem}", fix)
    if heard.problem is not None:
        fix = "let the user of MQTT_USERNAME connect and read MQTT_TOPIC"
        return Finding("broker", "failed", f"{where}: {heard.problem}", fix)
    return Finding("broker", "ok", f"{where} grants a subscription to {settings.mqtt_topic}")


def _version(settings: Settings, heard: Heard) -> Finding:
    text = heard.counters.get("version")
    if text is None:
        detail = (
            "the broker does not show its counters ($SYS) to this user: what it drops stays "
            "unknown, and bridge_broker_dropped_messages is missing"
        )
        fix = f"{_place(settings)}: topic read $SYS/broker/#"
        return Finding("broker version", "warning", detail, fix)
    found = re.fullmatch(r"mosquitto version (\d+)\.(\d+)\.(\d+)", text)
    if found and tuple(map(int, found.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        detail = f"{text} is older than {oldest}, the oldest that the bridge is tried with"
        fix = "install a later one (Debian 12: apt-get install mosquitto)"
        return Finding("broker version", "warning", detail, fix)
    return Finding("broker version", "ok", text)


def _counters(heard: Heard) -> Iterator[Finding]:
    dropped = heard.counters.get("dropped")
    if dropped is None:
        return
    stored = heard.counters.get("stored messages", "unknown")
    size = heard.counters.get("stored bytes", "unknown")
    detail = (
        f"since its start the broker has dropped {dropped} messages; it holds {stored} messages of "
        f"{size} bytes (all of its clients together, its own retained counters included)"
    )
    if dropped.isdigit() and int(dropped) > 0:
        yield Finding("broker queue", "warning", detail, QUEUE_FIX)
    else:
        yield Finding("broker queue", "ok", detail)


def _reading(settings: Settings, heard: Heard, taken: int | None) -> Finding:
    """A subscription that is granted proves nothing: Mosquitto grants each, and its rules filter
    what is delivered."""
    if heard.live or heard.retained:
        return Finding("reading", "ok", f"messages under {settings.mqtt_topic} are delivered")
    if taken:
        detail = f"none came just now, but the running daemon has taken {taken} messages"
        return Finding("reading", "ok", detail)
    detail = (
        f"nothing came within {LISTEN_SECONDS:g} s, and the daemon has taken nothing: whether the "
        "broker's rules let this user read cannot be told without a sensor's message"
    )
    fix = (
        f"{_place(settings)}: topic read {settings.mqtt_topic}; then have a sensor send, and run "
        "`check` again"
    )
    return Finding("reading", "warning", detail, fix)


def _retained(settings: Settings, heard: Heard) -> Iterator[Finding]:
    if heard.retained:
        count = f"{ENOUGH} or more" if heard.retained >= ENOUGH else str(heard.retained)
        detail = (
            f"the broker keeps {count} retained messages under {settings.mqtt_topic}: the bridge "
            "ignores them, and takes what is sent live"
        )
        fix = "let the sensors publish without the retain flag, if nobody else wants it"
        yield Finding("retained", "warning", detail, fix)


def _writing(heard: Heard) -> Finding:
    """Never under the filter: the bridge would take it for a reading."""
    told = {
        True: f"a message to {OWN_TOPIC}/… came back: this user may also write outside the "
        "sensors' topics, which the bridge never does",
        False: f"this user may not write to {OWN_TOPIC}/…, which the bridge never does",
        None: f"a message to {OWN_TOPIC}/… did not come back: this user may not write or read "
        "there, and the bridge does neither",
    }
    return Finding("writing", "ok", told[heard.may_write])


def _place(settings: Settings) -> str:
    """Where a rule of Mosquitto's belongs."""
    user = settings.mqtt_username
    return f"in its acl_file, below `user {user}`" if user else "at the top of its acl_file"
