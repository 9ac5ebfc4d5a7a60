"""`check`: is everything there that the bridge needs?"""

from __future__ import annotations

import click

from bridge import settings
from bridge.cli.findings import Finding, journal_findings, require_endpoint
from bridge.cli.output import format_option, print_json
from bridge.errors import EXIT_FINDING
from bridge.settings import Settings


@click.command(short_help="Check configuration, broker, topic and table.")
@format_option
@click.pass_context
def command(ctx: click.Context, style: str) -> None:
    """Validate the configuration, reach broker, topic and table, and compare the table's columns.

    A line each, with the fix where something is wrong. Exit code 0: nothing keeps the bridge from
    working; 1: something does. Disturbs no running daemon.
    """
    configured = settings.load()
    findings = [Finding("configuration", "ok", f"APP_ENV is {configured.app_env}")]
    _show(findings[0], style)
    for finding in _findings(configured):
        findings.append(finding)
        _show(finding, style)
    if style == "json":
        print_json([finding._asdict() for finding in findings])
    if any(finding.result == "failed" for finding in findings):
        ctx.exit(EXIT_FINDING)


def _findings(configured: Settings) -> list[Finding]:
    from bridge.cli.probe import broker_finding

    findings = [broker_finding(configured), *journal_findings(configured)]
    if not configured.local:
        from bridge.cli.google_findings import bigquery_findings, pubsub_findings

        findings += require_endpoint(configured)
        findings += pubsub_findings(configured)
        findings += bigquery_findings(configured)
    return findings


def _show(finding: Finding, style: str) -> None:
    if style == "table":
        fix = f" Fix: {finding.fix}." if finding.fix else ""
        click.echo(f"{finding.result:8} {finding.what}: {finding.detail}.{fix}")
