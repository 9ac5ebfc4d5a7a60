"""Why a message is refused, in words that an operator understands."""

from __future__ import annotations

import json
from typing import Any, NoReturn


class Refused(Exception):
    """A message is refused. `str()` is the detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def not_json(problem: str) -> NoReturn:
    raise Refused("payload_not_json", problem)


def invalid(member: str, value: Any, problem: str) -> NoReturn:
    raise Refused("field_invalid", f"{member} {problem}: {quoted(value)}")


def quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 80 else f"{text[:77]}..."


def kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names: dict[type, str] = {str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")
