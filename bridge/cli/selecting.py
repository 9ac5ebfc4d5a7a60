"""Options that say which: spans of time, and which dead letters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from bridge.journal.letters import ENTRANCE, Selection
from bridge.times import us_of

SINKS = (ENTRANCE, "pubsub", "bigquery", "log")


class Moment(click.ParamType[int]):
    """A time of ISO 8601, as microseconds since 1970; without an offset it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(value)
            return us_of(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time such as 2026-11-21T03:00:00Z or 2026-11-21.")


def span_options(of: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--from` and `--to`, as first_us and before_us. `of`: which time they are about."""

    def added(function: Callable[..., Any]) -> Callable[..., Any]:
        first = click.option("--from", "first_us", type=Moment(), help=f"{of} at or after this.")
        before = click.option("--to", "before_us", type=Moment(), help=f"{of} before this.")
        return first(before(function))

    return added


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that make a `Selection`, which the command gets as `selection`."""

    @functools.wraps(function)
    def command(**options: Any) -> Any:
        selection = Selection(**{name: options.pop(name) for name in Selection._fields})
        return function(selection=selection, **options)

    decorated: Callable[..., Any] = command
    for option in (
        span_options("Only letters received"),
        click.option("--sink", type=click.Choice(SINKS), help="Only letters that this refused."),
        click.option("--site", help="Only letters of this site."),
        click.option("--reason", help="Only letters with this reason."),
    ):
        decorated = option(decorated)
    return decorated


def require_some(numbers: tuple[int, ...], selection: Selection) -> None:
    """Raises UsageError unless there is either: an operator says what he means."""
    if not numbers and selection == Selection():
        raise click.UsageError(
            "Say which: IDs, or at least one of --reason, --site, --sink, --from and --to."
        )
    if numbers and selection != Selection():
        raise click.UsageError("Give either IDs or what selects them, not both.")
