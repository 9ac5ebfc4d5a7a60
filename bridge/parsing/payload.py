"""From a payload's bytes to its members, strictly."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from bridge.parsing.refusal import Refused, invalid, kind, not_json

MAX_NESTING = 200
MEMBERS = ("site_code", "sensor_id", "timestamp", "value")
# Possessive, and a string may lack its end: an unclosed one is not tried again at each quote.
_string_or_bracket = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL).finditer
_surrogate_escape = re.compile(r"\\u[dD][89a-fA-F]").search


def text_of(payload: bytes, most: int) -> str:
    if len(payload) > most:
        raise Refused(
            "payload_too_large",
            f"the payload has {len(payload)} bytes, more than {most}",
        )
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(
            "payload_not_utf8", f"byte {error.start} of the payload is not UTF-8: {error.reason}"
        ) from None


def strict_json(text: str) -> Any:
    if not text:
        not_json("the payload is empty")
    if text[0] == "\ufeff":
        not_json("the payload begins with a byte order mark")
    if _too_deep(text):
        not_json(f"the payload is nested deeper than {MAX_NESTING} levels")
    try:
        document = json.loads(text, parse_constant=_constant, parse_int=_integer)
    except json.JSONDecodeError as error:
        not_json(f"at character {error.pos}: {error.msg}")
    if _surrogate_escape(text):
        # Once more with all members: a later one of the same name replaces, but does not mend.
        _require_no_surrogates(json.loads(text, parse_int=str, object_pairs_hook=list))
    return document


def _too_deep(text: str) -> bool:
    """Whether brackets outside strings are nested beyond the limit; without recursion, and in
    one pass that never goes back, whatever a stranger sends."""
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    depth = 0
    for token in _string_or_bracket(text):
        if token.group() in ("[", "{"):
            depth += 1
            if depth > MAX_NESTING:
                return True
        elif token.group() in ("]", "}"):
            depth -= 1
    return False


def _constant(token: str) -> NoReturn:
    not_json(f"the token {token} is not JSON")


def _integer(digits: str) -> int | float:
    # Python refuses to convert longer ones; as a double they overflow anyway.
    return int(digits) if len(digits.lstrip("-")) <= 4300 else math.inf


def _require_no_surrogates(document: Any) -> None:
    try:
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        not_json("a string holds a lone surrogate")


def require_object(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        problem = f"the payload is {kind(document)}, not a JSON object"
        raise Refused("payload_not_object", problem)
    return document


def require_members(members: dict[str, Any]) -> None:
    missing = [name for name in MEMBERS if name not in members]
    if missing:
        raise Refused("field_missing", f"missing: {', '.join(missing)}")


def value_of(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        invalid("value", value, f"is {kind(value)}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Refused("field_invalid", "value overflows a double")
    return number + 0.0
