"""What came of the scenarios: a table for the terminal, JSON, and a page to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from chaos.runner import Result

COLUMNS = (
    ("acknowledged", "sent"),
    ("pubsub", "Pub/Sub"),
    ("copies", "copies"),
    ("inversions", "disorder"),
    ("bigquery", "rows"),
    ("doubled_rows", "doubled"),
    ("dead_letters", "dead"),
    ("lost", "lost"),
)


def table(results: Sequence[Result]) -> Table:
    """For the terminal."""
    made = Table("scenario", *(title for _, title in COLUMNS), "recovery", "", box=SIMPLE_HEAD)
    for result in results:
        mark = "[green]✓[/]" if result.holds else "[red]✗[/]"
        made.add_row(result.scenario.name, *_figures(result), mark)
    return made


def summary(results: Sequence[Result]) -> str:
    """One sentence."""
    bad = sum(not result.holds for result in results)
    readings = sum(r.verdict.acknowledged for r in results if r.verdict is not None)
    if not bad:
        return (
            f"{len(results)} scenarios, {readings:,} readings: nothing lost, nothing doubled, "
            "nothing out of order."
        )
    return f"{bad} of {len(results)} scenarios fail ({readings:,} readings)."


def flaws(result: Result) -> str:
    """What is not as it must be, in words; nothing where all is well."""
    verdict = result.verdict
    if verdict is None:
        return result.error
    counts = {
        "lost in Pub/Sub": verdict.lost_pubsub,
        "lost in BigQuery": verdict.lost_bigquery,
        "rows doubled": verdict.doubled_rows,
        "out of order": verdict.inversions,
        "never sent": verdict.strange,
    }
    words = [f"{count} {name}" for name, count in counts.items() if count]
    return "; ".join([*words, *verdict.findings])


def document(results: Sequence[Result]) -> dict[str, Any]:
    """All of it, for machines."""
    return {
        "holds": all(result.holds for result in results),
        "scenarios": [
            {
                "name": result.scenario.name,
                "group": result.scenario.group,
                "story": result.scenario.story,
                "holds": result.holds,
                "seconds": round(result.seconds, 1),
                "error": result.error,
                "verdict": None
                if result.verdict is None
                else {**asdict(result.verdict), "lost": result.verdict.lost},
            }
            for result in results
        ],
    }


def page(results: Sequence[Result]) -> str:
    """All of it, for people, in Markdown."""
    titles = ["scenario", *(title for _, title in COLUMNS), "recovery", ""]
    lines = ["# What was broken, and what came of it", "", summary(results), ""]
    for group in dict.fromkeys(result.scenario.group for result in results):
        lines += [f"## {group}", "", _row(titles), _row(["---"] * len(titles))]
        for result in (r for r in results if r.scenario.group == group):
            name = f"`{result.scenario.name}`: {result.scenario.story}"
            mark = "✓" if result.holds else f"✗ {flaws(result)}"
            lines.append(_row([name, *_figures(result), mark]))
        lines.append("")
    return "\n".join(lines)


def write(results: Sequence[Result], directory: Path) -> None:
    """`report.md` and `report.json` into a directory, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.md").write_text(page(results))
    (directory / "report.json").write_text(json.dumps(document(results), indent=1) + "\n")


def _figures(result: Result) -> list[str]:
    verdict = result.verdict
    if verdict is None:
        return ["–"] * (len(COLUMNS) + 1)
    counts = [f"{getattr(verdict, name):,}" for name, _ in COLUMNS]
    return [*counts, f"{verdict.recovery_seconds:.1f} s"]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
