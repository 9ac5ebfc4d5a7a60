"""A fault as a JSON document, refused in words before a server trips over it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from grpc import StatusCode

from localgcp.faults import Fault

_FIELDS = tuple(field.name for field in fields(Fault))
_COUNTS = {"skip": 0, "times": 1}


def fault(document: Any) -> Fault:
    """Raises ValueError, in words for the one who wrote it."""
    if not isinstance(document, dict):
        raise ValueError("a fault is a JSON object")
    if unknown := sorted(set(document) - set(_FIELDS)):
        raise ValueError(f"a fault has no {', '.join(unknown)}: only {', '.join(_FIELDS)}")
    if not document.get("call"):
        raise ValueError("a fault needs a call, such as pubsub.Publish")
    for name, value in document.items():
        _require(name, value)
    return Fault(**document)


def _require(name: str, value: Any) -> None:
    if name in _COUNTS:
        _require_count(name, value)
    elif name == "seconds":
        if not _is_number(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(f"seconds is a number from 0 on, not {value!r}")
    elif not isinstance(value, str):
        raise ValueError(f"{name} is a string, not {value!r}")
    elif name == "status" and value and not _is_status(value):
        raise ValueError(f"status is a gRPC error's name or an HTTP error's number, not {value!r}")


def _require_count(name: str, value: Any) -> None:
    if name == "times" and value is None:
        return
    if not _is_number(value, (int,)) or value < _COUNTS[name]:
        raise ValueError(f"{name} is a whole number from {_COUNTS[name]} on, not {value!r}")


def _is_number(value: Any, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _is_status(value: str) -> bool:
    if value.isascii() and value.isdigit():
        return 400 <= int(value) <= 599
    return value in StatusCode.__members__ and value != "OK"
