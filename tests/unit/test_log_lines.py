"""Every line that the daemon can log keeps the rules of docs/log.md, and stands in its tables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "log.md").read_text()
LEVELS = ("debug", "info", "warning", "error", "critical")
# Methods that log their first argument, at this level.
WRAPPERS = {"_disturbed": "WARNING", "_disturbed_for_good": "ERROR"}
# Made by the handler itself, with a number in front.
MADE_ELSEWHERE = {("ERROR", "log lines are lost")}
ACTIONS = (
    "Correct", "Do", "Export", "Have", "Keep", "Let", "Look", "Mend", "Nothing is to be done",
    "Remove", "Report", "See", "Set", "Start", "Stop", "Unset",
)  # fmt: skip


class Line(NamedTuple):
    """One call that logs. `message`: None where it is an error's own words."""

    where: str
    level: str
    message: str | None
    call: ast.Call

    @property
    def head(self) -> tuple[str, str]:
        """As in the page's tables: what happened."""
        return self.level, re.split("[:.]", self.message or "")[0]


def calls(path: Path) -> Iterator[Line]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name, owner = node.func.attr, node.func.value
        logs = isinstance(owner, ast.Name) and owner.id == "log" and name in (*LEVELS, "exception")
        if not logs and name not in WRAPPERS:
            continue
        first = node.args[0]
        text = first.value if isinstance(first, ast.Constant) else None
        assert text is None or isinstance(text, str)
        where = f"{path.relative_to(ROOT)}:{node.lineno}"
        yield Line(where, WRAPPERS.get(name, name.upper()), text, node)


LINES = [
    line
    for folder in ("bridge", "container")
    for path in sorted((ROOT / folder).rglob("*.py"))
    for line in calls(path)
]
WORDED = [line for line in LINES if line.message is not None]
SERIOUS = [line for line in WORDED if line.level in ("WARNING", "ERROR", "CRITICAL")]


def where(line: Line) -> str:
    return line.where


def table(heading: str) -> Iterator[list[str]]:
    """The rows of the tables under this heading and those below it."""
    part = re.split(rf"^## {heading}$", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    for row in part.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith("| ") and "---" not in cells[0]:
            yield cells


def test_there_are_lines_to_look_at() -> None:
    assert len(WORDED) > 40


def test_the_pages_tables_and_the_code_name_the_same_lines_at_the_same_levels() -> None:
    listed = [(row[0], row[1]) for row in table("The lines") if row[0] in map(str.upper, LEVELS)]
    assert len(listed) == len(set(listed))
    assert set(listed) == {line.head for line in WORDED} | MADE_ELSEWHERE


def test_each_listed_line_says_what_it_means_what_the_bridge_does_and_what_you_do() -> None:
    for row in table("The lines"):
        assert len(row) == 5, row
        assert all(row), row


@pytest.mark.parametrize("line", WORDED, ids=where)
def test_a_message_is_the_same_each_time_and_begins_in_lower_case(line: Line) -> None:
    assert line.message
    assert not re.search(r"%[a-z]|[{}]", line.message), "what varies belongs into the fields"
    assert len(line.call.args) == (2 if _wrapped(line) else 1)
    assert line.message[:4] == "QoS " or line.message[0].islower()
    assert not line.message.endswith(".")


def _wrapped(line: Line) -> bool:
    return isinstance(line.call.func, ast.Attribute) and line.call.func.attr in WRAPPERS


@pytest.mark.parametrize("line", SERIOUS, ids=where)
def test_what_is_serious_says_what_the_bridge_does_about_it_and_ends_with_what_you_do(
    line: Line,
) -> None:
    assert line.message
    told, _, action = line.message.rpartition(". ")
    assert ": " in told, "what happened: what the bridge does. What you do"
    assert action.startswith(ACTIONS), f"{action!r} does not begin with what to do"


@pytest.mark.parametrize("line", [line for line in LINES if line.message is None], ids=where)
def test_only_an_error_that_ends_the_process_is_said_in_its_own_words(line: Line) -> None:
    text = ast.unparse(line.call.args[0])
    # The others are the bodies of the methods through which some lines go.
    own_words = {("CRITICAL", "str(error)"), ("WARNING", "message"), ("ERROR", "message")}
    assert (line.level, text) in own_words


@pytest.mark.parametrize("line", LINES, ids=where)
def test_the_fields_have_names_that_the_page_explains(line: Line) -> None:
    known = {name.strip("`") for row in table("Fields") for name in row[0].split(", ")}
    extra = [word.value for word in line.call.keywords if word.arg == "extra"]
    dicts = [node for part in extra for node in ast.walk(part) if isinstance(node, ast.Dict)]
    for key in [key for node in dicts for key in node.keys]:
        if isinstance(key, ast.Constant) and key.value not in ("fields", "every", "apart"):
            assert key.value in known


@pytest.mark.parametrize("line", WORDED, ids=where)
def test_only_local_readings_and_the_end_of_the_process_escape_the_limit_of_repetitions(
    line: Line,
) -> None:
    if "'every'" in ast.unparse(line.call):
        assert line.level == "CRITICAL" or line.where.startswith("bridge/sinks/log.py")
