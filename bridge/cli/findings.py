"""What a finding of `check` is."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """One line of `check`. fix: what to do, empty where nothing is to be done."""

    what: str
    result: Literal["ok", "warning", "failed"]
    detail: str
    fix: str = ""


def lasting(seconds: float) -> str:
    """A time in the one unit that an operator would say it in."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} seconds"
