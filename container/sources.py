"""A secret's text from where the settings say that it is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from bridge.secrets import fetch
from container.settings import Settings


class Secret(NamedTuple):
    """`variable` is the one that said where the text is: for errors, which must not show `text`."""

    variable: str
    text: str


def secret(settings: Settings, variable: str) -> Secret | None:
    """None where none is configured. Blocks for a call where it is in Secret Manager. Raises
    ConfigurationError. `variable`: the name without _FILE and _SECRET, of which one is set."""
    for name, source in settings.sources(variable).items():
        if isinstance(source, SecretStr):
            return Secret(name, source.get_secret_value())
        if isinstance(source, Path):
            return Secret(name, source.read_text(encoding="utf-8"))
        return Secret(name, fetch(name, source))
    return None
