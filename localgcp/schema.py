"""A table's columns, and what a value has to be to fit one.

Stored forms: TIMESTAMP as int64 microseconds since 1970, DATE as `YYYY-MM-DD`, JSON as text,
BOOLEAN as 0 or 1, the others as they are.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FIRST_MICROS, END_MICROS = -62_135_596_800_000_000, 253_402_300_800_000_000
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
    r"(\d{4}-\d{1,2}-\d{1,2})(?:[T ](\d{1,2}:\d{2}:\d{2})(\.\d{1,6})?)?"
    r"\s*(Z|UTC|[+-]\d{1,2}(?::\d{2})?)?",
    re.ASCII | re.IGNORECASE,
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


class Misfit(Exception):
    """A value that a column does not take. The message is the service's kind of words; `column`
    is its name."""

    def __init__(self, message: str, column: str = "") -> None:
        super().__init__(message)
        self.column = column


class Field(NamedTuple):
    name: str
    type: str
    mode: str


def parse(resource: dict[str, Any]) -> list[Field]:
    """The fields of a REST schema. Raises ValueError for what is not served here."""
    fields = []
    for item in resource.get("fields", []):
        kind = canonical_type(str(item["type"]))
        mode = str(item.get("mode") or "NULLABLE").upper()
        if kind not in SQL_TYPES or mode == "REPEATED":
            raise ValueError(f"column {item['name']}: {mode} {kind} is not served here")
        if not _NAME.fullmatch(str(item["name"])):
            raise ValueError(f"Invalid field name {item['name']!r}")
        fields.append(Field(str(item["name"]), kind, mode))
    if not fields:
        raise ValueError("a table without columns is not served here")
    names = [field.name.lower() for field in fields]
    if len(set(names)) < len(names):
        raise ValueError("two columns have the same name")
    return fields


def canonical_type(name: str) -> str:
    """REST's name of a type, for either of its names."""
    return _ALIASES.get(name.upper(), name.upper())


# --- in: values of JSON rows and query parameters -------------------------------------------------


def from_json(field: Field, value: Any) -> Any:
    """The stored form of a value of an insertAll row. Raises Misfit."""
    if value is None:
        return absent(field)
    if isinstance(value, dict):
        raise Misfit(f"This field: {field.name} is not a record.", field.name)
    if isinstance(value, list):
        raise Misfit(f"Array specified for non-repeated field: {field.name}.", field.name)
    return _FROM_JSON[field.type](field, value)


def absent(field: Field) -> None:
    """A missing value's stored form. Raises Misfit where there has to be one."""
    if field.mode == "REQUIRED":
        raise Misfit(f"Missing required field: {field.name}.", field.name)


def _text(field: Field, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _float(field: Field, value: Any) -> float:
    if not isinstance(value, bool) and _NUMBER.fullmatch(str(value)):
        number = float(value)
        if math.isfinite(number):
            return number
    raise _not_a("double", field, value)


def _integer(field: Field, value: Any) -> int:
    if not isinstance(value, bool) and _INTEGER.fullmatch(str(value)):
        number = int(value)
        if -(2**63) <= number < 2**63:
            return number
    raise _not_a("integer", field, value)


def _boolean(field: Field, value: Any) -> int:
    known = {"true": 1, "false": 0, "1": 1, "0": 0}
    if str(value).lower() not in known:
        raise _not_a("boolean", field, value)
    return known[str(value).lower()]


def _not_a(kind: str, field: Field, value: Any) -> Misfit:
    return Misfit(f"Cannot convert value to {kind} (bad value): {value}", field.name)


def _timestamp(field: Field, value: Any) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _in_range(field, round(value * 1_000_000), value)
    found = _TIMESTAMP.fullmatch(str(value))
    moment = _moment(found[1], found[2], found[4]) if found else None
    if found is None or moment is None:
        raise Misfit(f"Could not parse '{value}' as a timestamp", field.name)
    fraction = int((found[3] or ".0")[1:].ljust(6, "0"))
    return _in_range(field, (moment - EPOCH) // MICROSECOND + fraction, value)


def _moment(day: str, clock: str | None, zone: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(f"{_iso_day(day)}T{(clock or '00:00:00').zfill(8)}+00:00")
        return moment - _zone_offset(zone)
    except (ValueError, OverflowError):
        return None


def _zone_offset(zone: str | None) -> timedelta:
    if zone is None or zone.upper() in ("Z", "UTC"):
        return timedelta()
    hours, _, minutes = zone[1:].partition(":")
    if int(hours) > 14 or int(minutes or 0) > 59:
        raise ValueError("no such offset")
    offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
    return -offset if zone[0] == "-" else offset


def _in_range(field: Field, micros: int, value: Any) -> int:
    if not FIRST_MICROS <= micros < END_MICROS:
        raise Misfit(f"Timestamp out of range: {value}", field.name)
    return micros


def _iso_day(text: str) -> str:
    year, month, day = text.split("-")
    return date(int(year), int(month), int(day)).isoformat()


def _date(field: Field, value: Any) -> str:
    try:
        return _iso_day(str(value))
    except ValueError:
        raise Misfit(f"Invalid date: '{value}'", field.name) from None


def _bytes(field: Field, value: Any) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except binascii.Error:
        raise Misfit("Could not decode base64 string to bytes.", field.name) from None


def _json_text(field: Field, value: Any) -> str:
    """insertAll takes JSON columns as text."""
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        json.loads(text, parse_constant=_no_constant)
        text.encode()
    except (ValueError, RecursionError):
        raise Misfit(f"Invalid JSON text in field {field.name}.", field.name) from None
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
    "BYTES": _bytes,
    "DATE": _date,
}


# --- in: values of protobuf rows ------------------------------------------------------------------


def _days(field: Field, value: int) -> str:
    try:
        return (EPOCH.date() + timedelta(days=value)).isoformat()
    except OverflowError:
        raise Misfit(f"Date out of range: {value}", field.name) from None


def _utf8(field: Field, value: str | bytes) -> str:
    # protobuf hands out the bytes of a proto2 string that is no UTF-8.
    if isinstance(value, bytes):
        raise Misfit(f"Field {field.name} has invalid UTF-8", field.name)
    return value


def _number(field: Field, value: float) -> float:
    # SQLite would make NULL of it, behind the back of REQUIRED.
    if math.isnan(value):
        raise Misfit("NaN is not served here", field.name)
    return value


def _micros(field: Field, value: int) -> int:
    return _in_range(field, value, value)


# For the types that take not every value of their protobuf type, or store another.
FROM_PROTO: dict[str, Callable[[Field, Any], Any]] = {
    "STRING": _utf8,
    "JSON": lambda field, value: _json_text(field, _utf8(field, value)),
    "TIMESTAMP": _micros,
    "DATE": _days,
    "FLOAT": _number,
    "BOOLEAN": lambda _, value: int(value),
}


# --- out ------------------------------------------------------------------------------------------


def shown(field: Field, value: Any, int64_timestamps: bool = True) -> str | None:
    """A stored value as REST answers it: timestamps as microseconds, or else as seconds."""
    if value is None:
        return None
    if field.type == "BOOLEAN":
        return "true" if value else "false"
    if field.type == "FLOAT":
        return repr(float(value)).replace("inf", "Infinity")
    if field.type == "BYTES":
        return base64.b64encode(value).decode()
    if field.type == "TIMESTAMP" and not int64_timestamps:
        return repr(value / 1_000_000)
    return str(value)
