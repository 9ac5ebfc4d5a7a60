"""Readings from a CSV file, sent again as if they were made now."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from bridge.cli.readings import Due, Sample
from bridge.clock import Clock
from bridge.errors import EXIT_USAGE, FatalError
from bridge.parsing.names import name_problem
from bridge.times import iso_us

COLUMNS = ("timestamp", "site_code", "pi_tag", "sensor_id", "value")
_json_number = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RecordingUnusable(FatalError):
    """The file cannot be replayed; the message names the file, the line and what is wrong."""

    exit_code = EXIT_USAGE


class Extent(NamedTuple):
    """A recording's first and last time, in microseconds since 1970, and its number of readings."""

    first_us: int
    last_us: int
    readings: int


class _Row(NamedTuple):
    at_us: int
    sample: Sample


def extent(path: Path) -> Extent:
    """Read the whole file once. Raises RecordingUnusable for the first line that is no reading."""
    first, last, number = None, 0, 0
    for row in _rows(path):
        first = row.at_us if first is None else min(first, row.at_us)
        last = max(last, row.at_us) if number else row.at_us
        number += 1
    if first is None:
        raise RecordingUnusable(f"{path} holds no reading.")
    return Extent(first, last, number)


def replayed(path: Path, whole: Extent, speed: float, due: Due, clock: Clock) -> Iterator[Sample]:
    """The file's readings in its order, each yielded when it is due, until `due` says no.

    speed: how many recorded seconds pass in one second; 0 for no waiting.
    All times are shifted by the same: at a speed of 1 or more (and 0), the last reading's time is
    the moment at which it is sent; at a lower speed, the first one's, so that no reading is ever
    ahead of its time. Values keep the file's text.
    """
    shift_us = clock.now_us() - _moment_of_start(whole, speed)
    for row in _rows(path):
        if not due((row.at_us - whole.first_us) / 1e6 / speed if speed else 0.0):
            return
        yield row.sample._replace(timestamp=iso_us(row.at_us + shift_us))


def _moment_of_start(whole: Extent, speed: float) -> int:
    """The recorded time that is to be now."""
    if 0 < speed < 1:
        return whole.first_us
    span = whole.last_us - whole.first_us
    return whole.last_us - (round(span / speed) if speed else 0)


def _rows(path: Path) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            _require_columns(reader.fieldnames or ())
            for line in reader:
                yield _row(line)
        except (ValueError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
            raise RecordingUnusable(f"{path}, line {reader.line_num}: {error}.") from None


def _require_columns(names: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise ValueError(f"there is no column {', '.join(missing)}")


def _row(line: dict[str, str | None]) -> _Row:
    cells = {name: line[name] for name in COLUMNS}
    for name in ("site_code", "pi_tag", "sensor_id"):
        if problem := name_problem(cells[name] or ""):
            raise ValueError(f"{name} {problem}")
    site, tag, sensor = (cells[name] or "" for name in ("site_code", "pi_tag", "sensor_id"))
    if set("/+#") & set(site + tag):
        raise ValueError("site_code and pi_tag cannot be levels of a topic with /, + or #")
    return _Row(_micros(cells["timestamp"] or ""), Sample(site, tag, sensor, "", _json(cells)))


def _micros(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"timestamp {text!r} is no ISO 8601 time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _json(cells: dict[str, str | None]) -> str:
    """A number's text as it is; any other text as a JSON string, as a gateway would send it."""
    text = cells["value"] or ""
    return text if _json_number(text) else json.dumps(text)
