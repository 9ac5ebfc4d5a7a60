"""The documents of `/api/tags` and `/api/tag`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from bridge.statistics.rules import (
    KNOWN_FROM_READINGS,
    MINUTE_US,
    SPARK_MINUTES,
    STATES,
)
from bridge.statistics.tags import ORDERS, Minute, NoFigures, Tag, Wanted, average
from bridge.times import iso_us
from bridge.web.api import Document, Source, rounded
from bridge.web.parameters import Parameters, Unavailable, Unknown

MAX_TAGS = 500

T = TypeVar("T")


def tags(source: Source, given: Parameters) -> Document:
    """One page of tags."""
    wanted = Wanted(
        search=given.text("search") or "",
        site=given.text("site"),
        state=given.optional_choice("state", STATES),
        sort=given.choice("sort", ORDERS, "tag"),
        descending=given.flag("descending"),
        offset=given.number("offset", 0),
        limit=given.number("limit", 50, MAX_TAGS),
    )
    now_us = source.clock.now_us()
    total, found = _required(lambda: source.statistics.tags.page(wanted, now_us))
    return {"total": total, "tags": [_tag(tag, now_us) for tag in found]}


def tag(source: Source, given: Parameters) -> Document:
    """One tag with its minutes. Raises Unknown."""
    site, name = given.required("site"), given.required("pi_tag")
    now_us = source.clock.now_us()
    found = _required(lambda: source.statistics.tags.one(site, name, now_us))
    if found is None:
        raise Unknown(f"no reading of tag {name} of site {site} is known: see /api/tags")
    return _tag(found, now_us) | {"series": _series(found.minutes)}


def _required(question: Callable[[], T]) -> T:
    """What the figures of tags answer. Raises Unavailable."""
    try:
        return question()
    except NoFigures as error:
        raise Unavailable(f"there are no figures of tags just now: {error}") from error


def _tag(tag: Tag, now_us: int) -> Document:
    last = now_us // MINUTE_US
    half_hour = _since(tag, last - SPARK_MINUTES)
    known = tag.readings >= KNOWN_FROM_READINGS
    return {
        "site": tag.site,
        "pi_tag": tag.pi_tag,
        "last_value": tag.value,
        "last_event_time": iso_us(tag.event_us),
        "last_received_at": iso_us(tag.received_us),
        "age_seconds": rounded(max(0, now_us - tag.received_us) / 1e6),
        "usual_interval_seconds": rounded(tag.interval_us / 1e6) if known else None,
        "average_1m": rounded(tag.average_1m, 9),
        "average_5m": rounded(average(_since(tag, last - 5)), 9),
        "average_30m": rounded(average(half_hour), 9),
        "count_30m": sum(minute.readings for minute in half_hour),
        "clock_offset_seconds": rounded(tag.offset_us / 1e6),
        "out_of_order_30m": sum(minute.late for minute in half_hour),
        "unchanged_seconds": rounded((tag.received_us - tag.since_us) / 1e6),
        "states": tag.states,
        "spark": _spark(half_hour, last),
    }


def _since(tag: Tag, minute: int) -> list[Minute]:
    """With the open minute, which makes it up to a minute more."""
    return [one for one in tag.minutes if one.minute >= minute]


def _spark(minutes: Sequence[Minute], last: int) -> list[float | None]:
    by_minute = {minute.minute: rounded(average([minute]), 9) for minute in minutes}
    return [by_minute.get(minute) for minute in range(last - SPARK_MINUTES + 1, last + 1)]


def _series(minutes: Sequence[Minute]) -> Document:
    return {
        "at": [minute.minute * 60 for minute in minutes],
        "average": [rounded(average([minute]), 9) for minute in minutes],
        "minimum": [minute.low for minute in minutes],
        "maximum": [minute.high for minute in minutes],
        "count": [minute.readings for minute in minutes],
    }
