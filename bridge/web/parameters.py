"""What a caller asks for after the question mark, checked; and the ways not to answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bridge.journal.store import MOST


class Refused(Exception):
    """No answer but a status, and words that say why."""

    status = 400


class Unknown(Refused):
    """There is no such thing."""

    status = 404


class Unavailable(Refused):
    """There is, but not now."""

    status = 503


class Parameters:
    """Every method raises Refused for a value that is no such thing. An empty one counts as not
    given, as a form sends it."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given

    def text(self, name: str) -> str | None:
        return self._given.get(name) or None

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise Refused(f"{name} is missing: add ?{name}=…")
        return value

    def number(self, name: str, default: int, most: int = MOST) -> int:
        """Whole, from 0."""
        value = self.optional_number(name)
        if value is None:
            return default
        if value > most:
            raise Refused(f"{name}={value}: at most {most}")
        return value

    def optional_number(self, name: str) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdecimal()) or len(value) > 19 or int(value) > MOST:
            raise Refused(f"{name}={value!r}: not a whole number from 0")
        return int(value)

    def flag(self, name: str) -> bool:
        return self.choice(name, ("0", "1"), "0") == "1"

    def choice(self, name: str, choices: Iterable[str], default: str) -> str:
        return self.optional_choice(name, choices) or default

    def optional_choice(self, name: str, choices: Iterable[str]) -> str | None:
        value, known = self.text(name), list(choices)
        if value is not None and value not in known:
            raise Refused(f"{name}={value!r}: not one of {', '.join(known)}")
        return value
