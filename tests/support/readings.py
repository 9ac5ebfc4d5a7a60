"""Messages and readings for tests."""

from __future__ import annotations

import json
from typing import Any

from bridge import reading as reading_module
from bridge.reading import Limits, Message, Reading, Rejection, event_id, parse
from tests.support.clock import START_US

TOPIC = "FCTS/FAE/MOR/SolvExtract/FT-101"
LIMITS = Limits()


def members(**changes: Any) -> dict[str, Any]:
    """A valid payload's members, with changes; a member changed to `...` is left out."""
    whole: dict[str, Any] = {
        "site_code": "MOR",
        "sensor_id": "S1",
        "timestamp": "2026-09-21T14:00:00Z",
        "value": 12.5,
    } | changes
    return {name: value for name, value in whole.items() if value is not ...}


def text(**changes: Any) -> str:
    """A valid payload's text, with changes. A change that is a `Raw` stands as it is."""
    rows = [
        f"{json.dumps(name)}: {value.text if isinstance(value, Raw) else json.dumps(value)}"
        for name, value in members(**changes).items()
    ]
    return "{" + ", ".join(rows) + "}"


class Raw:
    """JSON text that Python would not write like that."""

    def __init__(self, text: str) -> None:
        self.text = text


def judged(
    payload: bytes | str,
    topic: str = TOPIC,
    limits: Limits = LIMITS,
    received_us: int = START_US,
) -> Reading | Rejection:
    return parse(_message(payload, topic, received_us), limits)


def _message(payload: bytes | str, topic: str, received_us: int) -> Message:
    raw = payload if isinstance(payload, bytes) else payload.encode("utf-8", "surrogatepass")
    return Message(topic, raw, received_us)


def accepted(
    payload: bytes | str,
    topic: str = TOPIC,
    limits: Limits = LIMITS,
    received_us: int = START_US,
) -> Reading:
    result = judged(payload, topic, limits, received_us)
    assert isinstance(result, Reading), result
    # The judge agrees, whichever way the message took.
    assert reading_module._long_way(_message(payload, topic, received_us), limits) == result
    return result


def refused(
    payload: bytes | str,
    topic: str = TOPIC,
    limits: Limits = LIMITS,
    received_us: int = START_US,
) -> Rejection:
    result = judged(payload, topic, limits, received_us)
    assert isinstance(result, Rejection), result
    return result


def reading(number: int, site: str = "MOR", **changes: Any) -> Reading:
    """A reading of its own per number and site."""
    plain = Reading(
        event_id=b"",
        site=site,
        pi_tag="FT-101",
        sensor_id="S1",
        event_us=START_US + number * 1_000_000,
        value=float(number),
        received_us=START_US + number,
        attributes=None,
    )._replace(**changes)
    return plain._replace(event_id=event_id(plain))


def rejection(payload: bytes = b"Bad Input", site: str = "MOR") -> Rejection:
    result = refused(payload, f"FCTS/FAE/{site}/SolvExtract/FT-101")
    assert result.site == site
    return result
