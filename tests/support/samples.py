"""Valid messages and readings with ascending values."""

from __future__ import annotations

import json

from bridge.reading import Limits, Message, Reading, parse

NOW_US = 1_795_000_000_000_000


def sample_message(value: float, site: str = "MOR", received_us: int = NOW_US) -> Message:
    """Its event time is a second before it is received."""
    payload = {
        "site_code": site,
        "sensor_id": "FT-1",
        "timestamp": received_us // 1000 - 1000,
        "value": value,
    }
    topic = f"FCTS/FAE/{site}/SolvExtract/SX1-FLOW"
    return Message(topic, json.dumps(payload).encode(), received_us)


def sample(value: float, site: str = "MOR") -> Reading:
    parsed = parse(sample_message(value, site), Limits())
    assert isinstance(parsed, Reading), parsed
    return parsed


def samples(count: int, sites: tuple[str, ...] = ("MOR",), first: int = 0) -> list[Reading]:
    """Distinct readings, the sites in turn, values ascending."""
    return [
        sample(float(number), sites[number % len(sites)]) for number in range(first, first + count)
    ]
