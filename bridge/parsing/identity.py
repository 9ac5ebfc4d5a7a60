"""Canonical JSON and the event id: BLAKE2b with a 16-byte digest over

len(site) site  len(tag) tag  len(sensor) sensor   lengths: 4 bytes, big-endian; text: UTF-8
event time                                         8 bytes, signed, microseconds since 1970
value                                              8 bytes, IEEE 754 double, big-endian
len(attributes) attributes                         canonical JSON (see `canonical_json`)
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

from bridge.parsing.payload import MEMBERS
from bridge.parsing.refusal import Refused, quoted

_doubles = struct.Struct(">qd").pack
_length = struct.Struct(">I").pack


def canonical_json(value: Any) -> str:
    """The one text of equal JSON values: members sorted by code point, no white space, no
    needless escapes; a whole number of a magnitude below 2^63 without fraction and exponent,
    any other non-integer by its shortest digits. ValueError for what overflows a double."""
    return json.dumps(
        _normal(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _normal(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, float) and abs(value) < 2**63 and value.is_integer():
        return int(value)
    return value


def attributes_of(members: dict[str, Any]) -> str | None:
    further = {name: member for name, member in members.items() if name not in MEMBERS}
    return canonical_json(further) if further else None


def checked_attributes(members: dict[str, Any]) -> str | None:
    for name in members.keys() - set(MEMBERS):
        try:
            canonical_json(members[name])
        except ValueError:
            raise Refused(
                "field_invalid", f"{quoted(name)} holds a number that overflows a double"
            ) from None
    return attributes_of(members)


def digest(
    prefix: bytes, sensor: str, event_us: int, value: float, attributes: str | None
) -> bytes:
    content = (
        prefix
        + prefixed(sensor)
        + _doubles(event_us, value)
        + (_NO_ATTRIBUTES if attributes is None else prefixed(attributes))
    )
    return hashlib.blake2b(content, digest_size=16).digest()


def prefixed(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return _length(len(encoded)) + encoded


_NO_ATTRIBUTES = prefixed("{}")
