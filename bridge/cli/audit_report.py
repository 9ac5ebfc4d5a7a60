"""What `audit` says: on a terminal, as JSON, and as a report that an auditor can keep.

The SHA-256 is of the lines as JSON, one a line, as they stand in the Markdown report between the
fences: whoever keeps the report can compute it again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import click
import orjson

from bridge.audit import DIFFERENT, EQUAL, UNSETTLED, Line
from bridge.cli.output import json_text, print_table, printable
from bridge.journal.account import Record
from bridge.snapshot import OTHER_SITE
from bridge.times import iso_us

EPOCH = date(1970, 1, 1)
PUBSUB_NOTE = (
    "The bridge's own record of the message ids that Pub/Sub answered with. "
    "It was written down when the answers came; Pub/Sub itself was not asked."
)
SURPLUS = (
    "Rows that the ledger does not know may come from: another bridge on the same table, an "
    "instance that ended without handing over its ledger, rows written by hand or by `replay "
    "--allow-duplicates`, and, with insert_all, rows sent again after Google's minute."
)
SALVAGED = (
    "This journal was damaged and salvaged once: the ledger may have lost lines, or have counted "
    "readings a second time. A difference can come from that alone."
)
FOLDED = f"{OTHER_SITE}: sites past the first 10,000, counted together."


class Report(NamedTuple):
    """One audit. span: the first and the last day. since: what was received before is left out."""

    made_at: datetime
    version: str
    journal: str
    destination: str
    topic: str
    since: datetime
    salvaged: str | None
    span: tuple[date, date]
    sites: list[str]
    lines: list[Line]
    record: Record

    @property
    def verdict(self) -> str:
        counted = Counter(line.verdict for line in self.lines)
        total = len(self.lines)
        if counted[DIFFERENT]:
            return f"DIFFERENT: {counted[DIFFERENT]} of {total} lines differ"
        if counted[UNSETTLED]:
            left = counted[UNSETTLED]
            return f"EQUAL as far as it can be judged: {left} of {total} lines are not settled yet"
        return f"EQUAL: all {total} lines agree" if total else "NOTHING to compare"

    @property
    def notes(self) -> list[str]:
        return [
            *([SALVAGED] if self.salvaged else []),
            *([FOLDED] if any(line.site == OTHER_SITE for line in self.lines) else []),
            *([SURPLUS] if any(_surplus(line) for line in self.lines) else []),
        ]


def _surplus(line: Line) -> bool:
    return line.verdict == DIFFERENT and line.found.rows > line.settled.readings


# --- machine --------------------------------------------------------------------------------------


def document(report: Report) -> dict[str, Any]:
    lines = list(_documents(report))
    first, last = report.span
    return {
        "verdict": report.verdict,
        "made_at": report.made_at.isoformat(),
        "bridge_version": report.version,
        "journal": report.journal,
        "table": report.destination,
        "topic": report.topic,
        "from": str(first),
        "to": str(last),
        "sites": report.sites,
        "received_since": report.since.isoformat(),
        "notes": report.notes,
        "lines": lines,
        "sha256": _digest(_jsonl(lines)),
        "pubsub": {
            "note": PUBSUB_NOTE,
            "days": list(_confirmed(report)),
            "last_messages": [
                {"site": site, "message_id": message_id, "answered_at": iso_us(moment)}
                for site, message_id, moment in report.record.published
            ],
        },
    }


def _documents(report: Report) -> Iterator[dict[str, Any]]:
    for line in report.lines:
        yield {
            "site": line.site,
            "day": _day(line.day),
            "received_until": iso_us(line.until_us),
            "settled": line.settled.readings,
            "settled_checksum": f"{line.settled.checksum:032x}",
            "rows": line.found.rows,
            "ids": line.found.ids,
            "rows_checksum": f"{line.found.checksum:032x}",
            "verdict": line.verdict,
            "words": line.words,
            **{name: list(ids) for name, ids in line.ids._asdict().items() if ids},
        }


def _confirmed(report: Report) -> Iterator[dict[str, Any]]:
    for (site, day), tally in sorted(report.record.lines.items(), key=lambda item: item[0][::-1]):
        if not report.sites or site in report.sites:
            yield {
                "site": site,
                "day": _day(day),
                "answered": tally.readings,
                "checksum": f"{tally.checksum:032x}",
            }


def _day(number: int) -> str:
    return str(EPOCH + timedelta(number))


def _jsonl(lines: list[dict[str, Any]]) -> str:
    return "".join(json_text(line) + "\n" for line in lines)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def json_report(report: Report) -> str:
    return json_text(document(report), orjson.OPT_INDENT_2) + "\n"


# --- people ---------------------------------------------------------------------------------------

SHOWN = 100
COLUMNS = ("day", "site", "settled", "rows", "ids", "checksum", "verdict", "")


def print_report(report: Report) -> None:
    """Of very many lines only those that are not equal."""
    many = len(report.lines) > SHOWN
    lines = [line for line in report.lines if not many or line.verdict != EQUAL]
    print_table(f"{report.destination} against the ledger", COLUMNS, map(_row, lines))
    if many:
        click.echo(f"{len(report.lines) - len(lines)} lines that are equal are not shown.")
    for line in report.lines:
        for words in _named(line):
            click.echo(printable(words))
    _print_record(report)
    for note in [PUBSUB_NOTE, *report.notes, f"{report.verdict}."]:
        click.echo(note)


def _print_record(report: Report) -> None:
    """Per day, over all sites."""
    total: Counter[str] = Counter()
    for one in _confirmed(report):
        total[one["day"]] += one["answered"]
    rows = [(day, f"{answered:,}") for day, answered in total.items()]
    print_table("Pub/Sub: the bridge's own record", ("day", "answered"), rows)


def _row(line: Line) -> tuple[str, ...]:
    same = line.settled.checksum == line.found.checksum
    return (
        _day(line.day),
        line.site,
        f"{line.settled.readings:,}",
        f"{line.found.rows:,}",
        f"{line.found.ids:,}",
        "same" if same else "another",
        line.verdict,
        line.words,
    )


def _named(line: Line) -> Iterator[str]:
    for name, ids in line.ids._asdict().items():
        if ids:
            yield f"{_day(line.day)} {line.site}, {name}: {' '.join(ids)}"


def markdown(report: Report) -> str:
    """For people, with the lines for programs at its end."""
    return "\n".join([*_head(report), *_tables(report), *_evidence(report)]) + "\n"


def _head(report: Report) -> Iterator[str]:
    first, last = report.span
    yield f"# Audit: {report.verdict}"
    yield ""
    yield f"- made at {report.made_at.isoformat()}, by version {report.version} of the bridge"
    yield f"- journal: `{report.journal}`"
    yield f"- table: `{report.destination}`"
    yield f"- days of event time: {first} to {last}, UTC"
    if report.sites:
        yield f"- sites: {', '.join(map(_cell, report.sites))}"
    yield f"- compared is what was received since {report.since.isoformat()}, up to each line's"
    yield "  `received_until`"
    yield "- method: rows, different ids, and the sum of the ids as 128-bit numbers modulo 2^128"
    yield ""


def _tables(report: Report) -> Iterator[str]:
    yield from _table(COLUMNS, map(_row, report.lines))
    yield ""
    for line in report.lines:
        for words in _named(line):
            yield f"- {_cell(words)}"
    yield ""
    for note in report.notes:
        yield note
        yield ""
    yield "## Pub/Sub: the bridge's own record"
    yield ""
    yield PUBSUB_NOTE
    yield ""
    days = ((one["day"], one["site"], f"{one['answered']:,}") for one in _confirmed(report))
    yield from _table(("day", "site", "answered"), days)
    yield ""
    last = ((site, name, iso_us(moment)) for site, name, moment in report.record.published)
    yield from _table(("site", "last message id", "answered at"), last)
    yield ""


def _table(columns: tuple[str, ...], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("<", "&lt;")


def _evidence(report: Report) -> Iterator[str]:
    text = _jsonl(list(_documents(report)))
    yield "## The lines"
    yield ""
    yield f"SHA-256 of what stands between the fences: `{_digest(text)}`"
    yield ""
    yield "```jsonl"
    if text:
        yield text[:-1]
    yield "```"
