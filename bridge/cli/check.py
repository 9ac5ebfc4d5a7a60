"""`check`: is everything there that the bridge needs?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import click

from bridge import settings
from bridge.cli.findings import Finding
from bridge.cli.output import format_option, print_json, printable
from bridge.errors import EXIT_FINDING, BridgeError
from bridge.settings import Settings


@click.command(short_help="Check configuration, broker, topic and table.")
@click.option(
    "--clear-journal-loss",
    is_flag=True,
    help="First note that the loss of a damaged journal was seen: it is not shown any more.",
)
@format_option
@click.pass_context
def command(ctx: click.Context, clear_journal_loss: bool, style: str) -> None:
    """Look at configuration, running daemon, broker, journal, disk, clock, topic and table.

    A line each, with the fix where something is wrong. Exit code 0: nothing keeps the bridge from
    working (warnings do not count); 1: something does. Disturbs no running daemon.
    """
    configured = settings.load()
    if clear_journal_loss:
        _clear_loss(configured)
    findings = []
    for finding in _findings(configured):
        findings.append(finding)
        if style == "table":
            click.echo(_line(finding))
    if style == "json":
        print_json([finding._asdict() for finding in findings])
    if any(finding.result == "failed" for finding in findings):
        ctx.exit(EXIT_FINDING)


def _clear_loss(configured: Settings) -> None:
    from bridge.journal import salvage

    there_was = salvage.clear_loss(configured.journal_path)
    click.echo("the loss is not shown any more" if there_was else "no loss is shown", err=True)


def _findings(configured: Settings) -> Iterator[Finding]:
    from bridge.cli.broker_findings import broker_findings
    from bridge.cli.daemon_findings import ask, daemon_findings
    from bridge.cli.disk_findings import journal_findings

    yield Finding("configuration", "ok", f"APP_ENV is {configured.app_env}")
    daemon = ask(configured)
    yield from daemon_findings(configured, daemon)
    taken = daemon.taken if daemon else None
    yield from _looked("broker", lambda: broker_findings(configured, taken))
    yield from journal_findings(configured)
    if not configured.local:
        yield from _google_findings(configured)


def _google_findings(configured: Settings) -> Iterator[Finding]:
    from bridge.cli.bigquery_findings import bigquery_findings
    from bridge.cli.bucket_findings import bucket_findings
    from bridge.cli.clock_findings import clock_findings
    from bridge.cli.pubsub_findings import pubsub_findings

    yield from clock_findings(configured)
    yield from _looked("Pub/Sub", lambda: pubsub_findings(configured))
    yield from _looked("BigQuery", lambda: bigquery_findings(configured))
    yield from _looked("handoff bucket", lambda: bucket_findings(configured))


def _looked(what: str, look: Callable[[], Iterable[Finding]]) -> Iterable[Finding]:
    """What keeps one part from being looked at (credentials, a password that cannot be fetched)
    is a finding too: the other parts are still looked at."""
    try:
        return list(look())
    except BridgeError as error:
        problem, _, remedy = str(error).partition("Remedy: ")
        return [Finding(what, "failed", problem.strip(), remedy or "see the message")]


def _line(finding: Finding) -> str:
    """One line whatever a service's message holds. Nothing follows the fix: it may be a command."""
    detail, fix = (" ".join(text.split()).rstrip(".") for text in (finding.detail, finding.fix))
    line = f"{finding.result:8} {finding.what}: {detail}."
    return printable(f"{line} Fix: {fix}" if fix else line)
