"""What `check` finds about this machine's clock, by the time that Google's answers carry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests

from bridge.cli.findings import Finding, lasting
from bridge.settings import Settings

GOOGLE = "https://bigquery.googleapis.com"
SECONDS = 10.0
TOLERATED = 5.0  # an answer's date has whole seconds, and was some time on its way
FIX = "let the machine follow a time server: apt-get install chrony (or timedatectl set-ntp true)"


def clock_findings(
    settings: Settings, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> list[Finding]:
    """Blocks up to 10 s for one request without credentials."""
    where = (settings.bigquery_emulator_host or GOOGLE).rstrip("/")
    before = now()
    try:
        date = requests.head(where, timeout=SECONDS, allow_redirects=False).headers["Date"]
        theirs = parsedate_to_datetime(date)
    except (requests.RequestException, KeyError, ValueError) as error:
        detail = f"{where} does not tell the time ({error or type(error).__name__})"
        return [Finding("clock", "warning", detail, "look at the network, and at a proxy")]
    middle = before + (now() - before) / 2
    return [_judged((middle - theirs).total_seconds(), settings.timestamp_max_future_seconds)]


def _judged(ahead: float, allowed: float) -> Finding:
    direction = "ahead of" if ahead > 0 else "behind"
    if abs(ahead) <= TOLERATED:
        return Finding("clock", "ok", "agrees with Google's within 5 seconds")
    detail = f"{lasting(abs(ahead))} {direction} Google's"
    if abs(ahead) <= allowed:
        return Finding("clock", "warning", f"{detail}: received_at is wrong by that", FIX)
    harm = "readings from the future are taken" if ahead > 0 else "good readings are refused"
    detail += f", more than TIMESTAMP_MAX_FUTURE_SECONDS ({allowed:g}): {harm}"
    return Finding("clock", "failed", detail, FIX)
