"""`audit`: the ledger by day against BigQuery."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import click

from bridge import settings
from bridge.audit import DIFFERENT, Audit, Line
from bridge.cli import audit_report
from bridge.cli.audit_report import Report
from bridge.cli.output import format_option, print_json
from bridge.cli.progress import shown
from bridge.clock import SystemClock
from bridge.errors import EXIT_FINDING, ConfigurationError, FatalError
from bridge.journal.account import Account, Accounts, Basis
from bridge.settings import Settings
from bridge.sinks.bigquery_sums import TableSums
from bridge.snapshot import OTHER_SITE
from bridge.times import from_us

DAYS = 7
EPOCH = date(1970, 1, 1)

day_type = click.DateTime(["%Y-%m-%d"])


@click.command(short_help="Compare the ledger with BigQuery, day by day.")
@click.option("--from", "first", type=day_type, metavar="DAY", help="First day of event time, UTC.")
@click.option("--to", "last", type=day_type, metavar="DAY", help="Last day; else the newest.")
@click.option("--site", "sites", multiple=True, help="Only this site; may be given several times.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a report to keep: JSON where the name ends in .json, else Markdown.",
)
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    first: datetime | None,
    last: datetime | None,
    sites: tuple[str, ...],
    report: Path | None,
    style: str,
) -> None:
    """Compare what the bridge has settled with what BigQuery holds, per site and day of event time:
    the number of rows, of different ids, and a checksum of the ids.

    Without --from: the last seven days. Works beside a running daemon. Exit code 0: equal, as far
    as it can be judged now; 1: a difference.
    """
    configured = settings.load()
    if configured.local:
        raise ConfigurationError(
            "APP_ENV=LOCAL writes to no table that could be audited. "
            "Remedy: set APP_ENV to DEV, PPRD or PRD."
        )
    accounts = Accounts(configured.journal_path, "bigquery")
    basis = accounts.basis()
    _require_same_table(configured, basis)
    span = _span(basis, _day(first), _day(last))
    with _table(configured) as table:
        lines = _audited(accounts, table, sites, span)
    made = _report(configured, basis, span, sites, lines)
    if report is not None:
        _write(report, made)
    if style == "json":
        print_json(audit_report.document(made))
    else:
        audit_report.print_report(made)
    if any(line.verdict == DIFFERENT for line in lines):
        ctx.exit(EXIT_FINDING)


def _require_same_table(configured: Settings, basis: Basis) -> None:
    expected = (
        f"{configured.gcp_project_id}.{configured.bigquery_dataset}.{configured.bigquery_table}"
    )
    counted = basis.destination.partition(" by ")[0]
    if counted != expected:
        raise ConfigurationError(
            f"BIGQUERY_TABLE: the journal {configured.journal_path} counts what went to {counted}, "
            f"and the configuration names {expected}. Remedy: set project, dataset and table to "
            "those of the journal, or JOURNAL_PATH to the journal of that table."
        )


def _day(given: datetime | None) -> int | None:
    return None if given is None else (given.date() - EPOCH).days


def _date(day: int) -> date:
    return EPOCH + timedelta(day)


def _span(basis: Basis, first: int | None, last: int | None) -> tuple[int, int]:
    """The days to look at: those asked for, as far as there can be readings of them."""
    today = (datetime.now(UTC).date() - EPOCH).days
    newest = max(today, basis.last or 0)
    last = newest if last is None else min(last, newest + 1)
    if first is None:
        first = max(today - DAYS + 1, basis.floor)
    if first > last:
        raise click.UsageError("--from is after --to")
    if first < basis.floor:
        kept = _date(basis.floor)
        raise click.UsageError(f"--from: days before {kept} are not kept in the ledger any more")
    return first, last


@contextmanager
def _table(configured: Settings) -> Iterator[TableSums]:
    table = TableSums(configured)
    try:
        yield table
    finally:
        table.close()


def _audited(
    accounts: Accounts, table: TableSums, sites: Sequence[str], span: tuple[int, int]
) -> list[Line]:
    first, last = span
    found: list[Line] = []
    clock = SystemClock()
    audit = Audit(accounts, table, sites, clock, _pause)
    if sites:
        _require_lines(accounts.take(first, first, clock.now_us()), sites)

    def words() -> str:
        return f"{len(found)} lines compared" + (f", up to {_date(found[-1].day)}" if found else "")

    with shown(clock) as progress:
        for lines in audit.lines(first, last):
            found.extend(lines)
            progress.show(words)
    return found


def _pause(seconds: float) -> None:
    click.echo(f"looking again in {seconds:g} s, to be sure", err=True)
    time.sleep(seconds)


def _require_lines(account: Account, sites: Sequence[str]) -> None:
    """A site that is counted together with others cannot be looked at by itself."""
    folded = [site for site in sites if account.line_of(site) == OTHER_SITE]
    if folded:
        raise click.UsageError(
            f"--site {folded[0]!r}: past 10,000 sites the ledger counts the rest together: this "
            "one has no line of its own"
        )


def _report(
    configured: Settings,
    basis: Basis,
    span: tuple[int, int],
    sites: Sequence[str],
    lines: list[Line],
) -> Report:
    from bridge.cli.main import VERSION

    record = Accounts(configured.journal_path, "pubsub").record(*span)
    return Report(
        made_at=datetime.now(UTC),
        version=VERSION,
        journal=str(configured.journal_path.absolute()),
        destination=basis.destination,
        topic=f"projects/{configured.gcp_project_id}/topics/{configured.pubsub_topic}",
        since=from_us(basis.since_us),
        salvaged=basis.salvaged,
        span=(_date(span[0]), _date(span[1])),
        sites=list(sites),
        lines=lines,
        record=record,
    )


def _write(path: Path, made: Report) -> None:
    """Raises FatalError."""
    text = audit_report.json_report(made) if path.suffix == ".json" else audit_report.markdown(made)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FatalError(f"{path} could not be written ({error.strerror})") from error
