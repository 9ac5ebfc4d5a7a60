"""BigQuery's functions that SQLite has not, on the stored forms of values."""

from __future__ import annotations

import hashlib
import math
import operator
import re
import sqlite3
import time
from collections.abc import Callable
from datetime import datetime
from functools import reduce
from typing import Any, ClassVar

from localgcp.schema import EPOCH, MICROSECOND, Field, Misfit, from_json

UNITS = {
    "MICROSECOND": 1,
    "MILLISECOND": 1_000,
    "SECOND": 1_000_000,
    "MINUTE": 60_000_000,
    "HOUR": 3_600_000_000,
    "DAY": 86_400_000_000,
}
_HEX = re.compile(r"([+-]?)0[xX]([0-9a-fA-F]+)", re.ASCII)
_INT64 = range(-(2**63), 2**63)


class SqlFunctions:
    """What `register` put on one connection. `problem`: why the last one failed; SQLite itself
    only says that one did."""

    def __init__(self) -> None:
        self.problem = ""

    def register(self, db: sqlite3.Connection) -> None:
        for name, count, function in _SCALARS:
            db.create_function(name, count, self._telling(function), deterministic=name != "bq_now")
        # typeshed has no type for an aggregate that finalizes to None.
        for name, aggregate in _AGGREGATES:
            db.create_aggregate(name, 1, aggregate)  # type: ignore[arg-type]

    def _telling(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any) -> Any:
            try:
                return function(*values)
            except (ValueError, OverflowError, TypeError) as error:
                self.problem = str(error)
                raise

        return call


# --- casts ----------------------------------------------------------------------------------------


def cast(value: Any, source: str, target: str, safe: int) -> Any:
    """CAST and SAFE_CAST. `source` is "" where it is not known. Raises ValueError."""
    if value is None:
        return None
    try:
        return _CASTS[target](value, source)
    except (ValueError, Misfit, OverflowError):
        if safe:
            return None
        raise ValueError(f"Bad {target} value: {value}") from None


def _to_int64(value: Any, source: str) -> int:
    if isinstance(value, str):
        found = _HEX.fullmatch(value)
        number = int(found[1] + found[2], 16) if found else _plain("INTEGER", value)
    else:
        # Half away from zero, as BigQuery rounds.
        number = int(math.copysign(math.floor(abs(value) + 0.5), value)) if value % 1 else value
    if int(number) not in _INT64:
        raise ValueError("out of range")
    return int(number)


def _to_string(value: Any, source: str) -> str:
    if source == "TIMESTAMP":
        return _timestamp_text(value)
    if source == "BOOLEAN":
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def _timestamp_text(micros: int) -> str:
    moment = _moment(micros)
    text = f"{moment:%Y-%m-%d %H:%M:%S}"
    if moment.microsecond:
        text += f".{moment.microsecond:06}".rstrip("0")
    return text + "+00"


def _to_date(value: Any, source: str) -> str:
    if source == "TIMESTAMP" or isinstance(value, int):
        return _moment(value).date().isoformat()
    return str(_plain("DATE", value))


def _to_timestamp(value: Any, source: str) -> int:
    return int(value) if source == "TIMESTAMP" else int(_plain("TIMESTAMP", str(value)))


def _plain(kind: str, value: Any) -> Any:
    return from_json(Field("value", kind, "NULLABLE"), value)


_CASTS: dict[str, Callable[[Any, str], Any]] = {
    "INTEGER": _to_int64,
    "FLOAT": lambda value, source: _plain("FLOAT", value),
    "STRING": _to_string,
    "BOOLEAN": lambda value, source: int(
        _plain("BOOLEAN", value) if isinstance(value, str) else bool(value)
    ),
    "BYTES": lambda value, source: value.encode() if isinstance(value, str) else value,
    "TIMESTAMP": _to_timestamp,
    "DATE": _to_date,
}


# --- time -----------------------------------------------------------------------------------------


def _moment(micros: int) -> datetime:
    return EPOCH + micros * MICROSECOND


def _trunc(micros: int | None, unit: str) -> int | None:
    return None if micros is None else micros - micros % UNITS[unit]


def _diff(later: int | None, earlier: int | None, unit: str) -> int | None:
    if later is None or earlier is None:
        return None
    whole = abs(later - earlier) // UNITS[unit]
    return whole if later >= earlier else -whole


def _extract(unit: str, micros: int | None) -> int | None:
    if micros is None:
        return None
    if unit == "MILLISECOND":
        return _moment(micros).microsecond // 1000
    return int(getattr(_moment(micros), unit.lower()))


def _format(form: str, micros: int | None) -> str | None:
    return None if micros is None else _moment(micros).strftime(form)


def _floor_div(value: int | None, by: int) -> int | None:
    return None if value is None else value // by


def _now() -> int:
    return time.time_ns() // 1000


# --- strings and bytes ----------------------------------------------------------------------------


def _to_hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _from_hex(value: str | None) -> bytes | None:
    if value is None:
        return None
    return bytes.fromhex(value if len(value) % 2 == 0 else "0" + value)


def _starts_with(value: str | None, prefix: str | None) -> int | None:
    return None if value is None or prefix is None else int(value.startswith(prefix))


def _digest(value: str | bytes | None, algorithm: str) -> bytes | None:
    if value is None:
        return None
    data = value.encode() if isinstance(value, str) else value
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


_SCALARS: list[tuple[str, int, Callable[..., Any]]] = [
    ("bq_cast", 4, cast),
    ("bq_trunc", 2, _trunc),
    ("bq_diff", 3, _diff),
    ("bq_extract", 2, _extract),
    ("bq_format", 2, _format),
    ("bq_floor_div", 2, _floor_div),
    ("bq_now", 0, _now),
    ("bq_to_hex", 1, _to_hex),
    ("bq_from_hex", 1, _from_hex),
    ("bq_starts_with", 2, _starts_with),
    ("bq_digest", 2, _digest),
]


# --- aggregates -----------------------------------------------------------------------------------


class _Bits:
    """BIT_XOR and its kin over INT64: NULL where there is no value."""

    combine: ClassVar[Callable[[Any, Any], Any]]

    def __init__(self) -> None:
        self._values: list[int] = []

    def step(self, value: int | None) -> None:
        if value is not None:
            # Folded at once, so that a table's worth of values is not kept.
            self._values = [reduce(type(self).combine, self._values, value)]

    def finalize(self) -> int | None:
        return self._values[0] if self._values else None


class _BitXor(_Bits):
    combine = operator.xor


class _BitAnd(_Bits):
    combine = operator.and_


class _BitOr(_Bits):
    combine = operator.or_


_AGGREGATES: list[tuple[str, type[_Bits]]] = [
    ("bq_bit_xor", _BitXor),
    ("bq_bit_and", _BitAnd),
    ("bq_bit_or", _BitOr),
]
