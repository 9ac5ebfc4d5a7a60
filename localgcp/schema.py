"""A table's columns, and what a value has to be to fit one. Stored forms: TIMESTAMP as int64
microseconds since 1970, JSON as text, the others as they are."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALIASES = {"FLOAT64": "FLOAT", "INT64": "INTEGER", "BOOL": "BOOLEAN"}
SQL_TYPES = {
    "STRING": "TEXT",
    "FLOAT": "REAL",
    "INTEGER": "INTEGER",
    "BOOLEAN": "INTEGER",
    "TIMESTAMP": "INTEGER",
    "JSON": "TEXT",
    "BYTES": "BLOB",
    "DATE": "TEXT",
}
_TIMESTAMP = re.compile(
    r"(\d{1,4}-\d{1,2}-\d{1,2})(?:[T ](\d{1,2}:\d{2}:\d{2})(\.\d{1,6})?)?"
    r"\s*(Z|UTC|[+-]\d{2}:\d{2})?",
    re.ASCII | re.IGNORECASE,
)


class Misfit(Exception):
    """A value that a column does not take; the message is the service's kind of words."""


class Field(NamedTuple):
    name: str
    type: str
    mode: str


def parse(resource: dict[str, Any]) -> list[Field]:
    """The fields of a REST schema. Raises ValueError for a type that is not served here."""
    fields = []
    for item in resource.get("fields", []):
        kind = canonical_type(str(item["type"]))
        mode = str(item.get("mode") or "NULLABLE").upper()
        if kind not in SQL_TYPES or mode == "REPEATED":
            raise ValueError(f"column {item['name']}: {mode} {kind} is not served here")
        fields.append(Field(str(item["name"]), kind, mode))
    return fields


def canonical_type(name: str) -> str:
    """REST's name of a type, for either of its names."""
    return _ALIASES.get(name.upper(), name.upper())


def from_json(field: Field, value: Any) -> Any:
    """The stored form of a value of an insertAll row. Raises Misfit."""
    if value is None:
        return _null(field)
    return _FROM_JSON[field.type](field, value)


def _null(field: Field) -> None:
    if field.mode == "REQUIRED":
        raise Misfit(f"Missing required field: {field.name}.")


def _text(field: Field, value: Any) -> str:
    if isinstance(value, dict | list):
        raise Misfit(f"{field.name}: cannot convert a record or array to STRING")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _float(field: Field, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise Misfit(f"Cannot convert value to double (bad value): {value}") from None
    if isinstance(value, bool) or not math.isfinite(number):
        raise Misfit(f"Cannot convert value to double (bad value): {value}")
    return number


def _integer(field: Field, value: Any) -> int:
    try:
        number = int(str(value), 10)
    except ValueError:
        raise Misfit(f"Cannot convert value to integer (bad value): {value}") from None
    if isinstance(value, bool) or not -(2**63) <= number < 2**63:
        raise Misfit(f"Cannot convert value to integer (bad value): {value}")
    return number


def _boolean(field: Field, value: Any) -> int:
    known = {"true": 1, "false": 0, "1": 1, "0": 0}
    if str(value).lower() not in known:
        raise Misfit(f"Cannot convert value to boolean (bad value): {value}")
    return known[str(value).lower()]


def _timestamp(field: Field, value: Any) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _in_range(field, round(value * 1_000_000), value)
    found = _TIMESTAMP.fullmatch(str(value))
    if not found:
        raise Misfit(f"Could not parse '{value}' as a timestamp")
    day, clock, fraction, zone = found.groups()
    zone = "+00:00" if zone is None or zone.upper() in ("Z", "UTC") else zone
    year, month, date = day.split("-")
    text = f"{int(year):04}-{int(month):02}-{int(date):02}T{(clock or '00:00:00').zfill(8)}{zone}"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Misfit(f"Could not parse '{value}' as a timestamp") from None
    micros = (moment - _EPOCH) // timedelta(microseconds=1)
    return _in_range(field, micros + int((fraction or ".0")[1:].ljust(6, "0")), value)


def _in_range(field: Field, micros: int, value: Any) -> int:
    if not -62_135_596_800_000_000 <= micros < 253_402_300_800_000_000:
        raise Misfit(f"{field.name}: timestamp out of range: {value}")
    return micros


def _json_text(field: Field, value: Any) -> str:
    """insertAll takes JSON columns as text."""
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        json.loads(text, parse_constant=_no_constant)
    except ValueError:
        raise Misfit(f"{field.name}: invalid JSON text") from None
    return text


def _no_constant(token: str) -> None:
    raise ValueError(token)


_FROM_JSON: dict[str, Callable[[Field, Any], Any]] = {
    "STRING": _text,
    "FLOAT": _float,
    "INTEGER": _integer,
    "BOOLEAN": _boolean,
    "TIMESTAMP": _timestamp,
    "JSON": _json_text,
    "BYTES": _text,
    "DATE": _text,
}


def check_stored(field: Field, value: Any) -> Any:
    """The stored form of a value out of a protobuf row. Raises Misfit."""
    if value is None:
        return _null(field)
    if field.type == "JSON":
        return _json_text(field, value)
    if field.type == "TIMESTAMP":
        return _in_range(field, value, value)
    return value


def shown(field: Field, value: Any) -> str | None:
    """A stored value as REST answers it (timestamps as int64 microseconds)."""
    if value is None:
        return None
    if field.type == "BOOLEAN":
        return "true" if value else "false"
    return repr(value) if field.type == "FLOAT" else str(value)
