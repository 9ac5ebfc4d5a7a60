"""What the demo shows at its end: a table and a sentence, or JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bridge.cli.demo_proof import Check, Found, Published, once


class Report(NamedTuple):
    """What came of it. `log`: the end of the bridge's log."""

    published: Published
    found: Found
    checks: list[Check]
    log: str

    @property
    def proven(self) -> bool:
        return all(check.holds for check in self.checks)


def print_report(report: Report, console: Console) -> None:
    """The checks as a table, and one sentence."""
    table = Table("What was published, and what arrived", "expected", "found", "")
    for check in report.checks:
        mark = "[green]✓[/]" if check.holds else "[red]✗[/]"
        table.add_row(check.name, _cell(check.expected), _cell(check.found), mark)
    console.print(table)
    console.print(_sentence(report), soft_wrap=True, highlight=False)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _sentence(report: Report) -> str:
    published, found = report.published, report.found
    counted = (
        f"{len(published.readings):,} readings published, {len(once(found.events)):,} events in "
        f"Pub/Sub, {len(found.rows):,} rows in BigQuery"
    )
    if report.proven:
        return f"{counted}: nothing lost, nothing doubled, nothing out of order."
    failed = sum(not check.holds for check in report.checks)
    return f"{counted}: the proof fails in {failed} of {len(report.checks)} points."


def document(report: Report) -> dict[str, Any]:
    """The report as JSON has it."""
    published, found = report.published, report.found
    return {
        "proven": report.proven,
        "published": len(published.readings),
        "pubsub": len(once(found.events)),
        "bigquery": len(found.rows),
        "duplicates": published.duplicates,
        "junk": dict(sorted(published.junk.items())),
        "dead_letters": dict(sorted(Counter(found.dead_letters).items())),
        "checks": [{**check._asdict(), "holds": check.holds} for check in report.checks],
        "ledger": found.ledger,
    }
