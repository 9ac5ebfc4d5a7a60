"""How `watch` shows what the bridge says: lines for a file or a pipe, a screen for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bridge.cli.output import printable

STYLES = {"ok": "green", "attention": "yellow", "wrong": "bold red"}
MARKS = {"ok": "✓ all right", "attention": "! needs a look", "wrong": "✗ something is wrong"}
MAX_FINDINGS = 5
# What stands around the tags: headline, line of figures, heads and borders of two tables, footer.
OTHER_LINES = 15

Document = dict[str, Any]


class View(NamedTuple):
    """What is there to be shown. tags: None where there are no figures of tags, and then `missing`
    says why. problem: why nothing newer came, in words."""

    overview: Document | None = None
    tags: Document | None = None
    missing: str | None = None
    problem: str | None = None
    offset: int = 0


# --- lines ----------------------------------------------------------------------------------------


def lines(view: View) -> Iterator[str]:
    """One block, without anything that only a terminal understands."""
    overview = view.overview
    if overview is None:
        yield printable(view.problem or "")
        return
    yield f"{overview['now']} {overview['environment']} {MARKS[overview['verdict']]}; {rates(view)}"
    for finding in overview["findings"]:
        yield f"  {_finding(finding)}"
    for sink in overview["sinks"]:
        yield f"  {_listed(_sink(sink))}"
    for tag in (view.tags or {}).get("tags", ()):
        yield f"  {_listed(_tag(tag))}"
    if view.missing:
        yield f"  {printable(view.missing)}"


def _listed(cells: dict[str, str]) -> str:
    return ", ".join(f"{head} {cell}" for head, cell in cells.items())


def rates(view: View) -> str:
    """The figures of the whole daemon in one line."""
    overview = view.overview or {}
    journal = overview["journal"]
    full = _seconds(journal["seconds_until_full_without_sinks"])
    return (
        f"received {_number(overview['rates']['received'])}/s, journal "
        f"{journal['bytes'] / max(1, journal['max_bytes']):.1%} full, lasts {full} without sinks, "
        f"dead letters {_number(overview['dead_letters_total'])}, sites "
        f"{overview['sites_total']}, tags {_number(overview['tags_total'])}"
    )


def _finding(finding: Document) -> str:
    since = f" (since {finding['since'][:19]}Z)" if finding["since"] else ""
    return printable(f"{finding['level']}: {finding['what']}{since}. {finding['remedy']}")


def _sink(sink: Document) -> dict[str, str]:
    return {
        "sink": sink["name"],
        "settled/s": _number(sink["settled_per_second"]),
        "backlog": _number(sink["pending"]),
        "oldest": _seconds(sink["oldest_pending_seconds"]),
        "p50": _seconds(sink["latency_p50_seconds"]),
        "p99": _seconds(sink["latency_p99_seconds"]),
        "error": printable(sink["held"] or sink["last_error"] or "–"),
    }


def _tag(tag: Document) -> dict[str, str]:
    return {
        "tag": printable(f"{tag['site']}/{tag['pi_tag']}"),
        "last": _number(tag["last_value"]),
        "1 min": _number(tag["average_1m"]),
        "5 min": _number(tag["average_5m"]),
        "30 min": _number(tag["average_30m"]),
        "count": _number(tag["count_30m"]),
        "age": _seconds(tag["age_seconds"]),
        "state": " ".join(tag["states"]) or "–",
    }


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if value and not 1e-3 <= abs(value) < 1e9:
        return f"{value:.4g}"
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def _seconds(value: float | None) -> str:
    """In the largest unit of which there are two."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


# --- screen ---------------------------------------------------------------------------------------


def room_for_tags(height: int, overview: Document | None) -> int:
    """How many tags fit beside what else the screen shows."""
    sinks = len(overview["sinks"]) if overview else 2
    found = min(MAX_FINDINGS, len(overview["findings"])) if overview else 0
    return max(1, height - OTHER_LINES - sinks - found)


def screen(view: View) -> RenderableType:
    """Everything, as it is to stand on the terminal."""
    parts: list[RenderableType] = []
    if view.problem:
        parts.append(Text(printable(view.problem), style="bold red"))
    if view.overview is not None:
        parts.extend(_parts(view, view.overview))
    parts.append(Text("q: end   n, p: next and previous page of tags", style="dim"))
    return Group(*parts)


def _parts(view: View, overview: Document) -> Iterator[RenderableType]:
    verdict = overview["verdict"]
    headline = f"{overview['environment']} {MARKS[verdict]}  {overview['now'][:19]}Z"
    yield Text(headline, style=STYLES[verdict], overflow="ellipsis", no_wrap=True)
    yield Text(rates(view), overflow="ellipsis", no_wrap=True)
    for finding in overview["findings"][:MAX_FINDINGS]:
        style = STYLES[finding["level"]]
        yield Text(_finding(finding), style=style, overflow="ellipsis", no_wrap=True)
    yield _table("Sinks", overview["sinks"], _sink)
    if view.tags is not None:
        shown = view.tags["tags"]
        last = view.offset + len(shown)
        yield _table(f"Tags {view.offset + 1}–{last} of {view.tags['total']:,}", shown, _tag)
    if view.missing:
        yield Text(printable(view.missing), style="yellow")


def _table(
    title: str, documents: Sequence[Document], row: Callable[[Document], dict[str, str]]
) -> RenderableType:
    if not documents:
        return Text(f"{title}: none")
    table = Table(title=title, title_justify="left", expand=True)
    cells = [row(document) for document in documents]
    for head in cells[0]:
        wide = head in ("tag", "sink", "error", "state")
        table.add_column(head, justify="left" if wide else "right", no_wrap=True)
    for each in cells:
        table.add_row(*(Text(cell) for cell in each.values()))
    return table
