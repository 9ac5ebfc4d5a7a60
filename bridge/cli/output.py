"""How commands print: tables for people, JSON for programs, nothing that moves a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 240

format_option = click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print.",
)


def print_json(document: Any) -> None:
    click.echo(json_text(document, orjson.OPT_INDENT_2))


def json_text(document: Any, option: int = 0) -> str:
    """JSON in which whatever is not for a terminal is escaped: JSON itself asks that only of
    characters below a space, and DEL, U+0080 to U+009F and U+202E are as good at it."""
    lines = orjson.dumps(document, option=option).decode().split("\n")
    return "\n".join(line if line.isprintable() else _escaped(line) for line in lines)


def _escaped(line: str) -> str:
    return "".join(
        character if character.isprintable() else json.dumps(character)[1:-1] for character in line
    )


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Cells are printed as they are: neither markup nor control sequences in them count."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    console(PIPE_WIDTH).print(table)


def console(pipe_width: int) -> Console:
    """As wide as the terminal. A file or a pipe has no width: rows are not to be folded for it,
    before `pipe_width`."""
    found = Console()
    return found if found.is_terminal else Console(width=pipe_width)


def printable(text: str) -> str:
    """Control characters, and what else is not for a terminal, as escapes. Line ends too."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
