"""`replay`: readings that are still in the journal, to a sink once more."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import click

from bridge import settings, wiring
from bridge.cli.output import format_option, print_json
from bridge.cli.progress import shown
from bridge.cli.selecting import span_options
from bridge.clock import SystemClock
from bridge.errors import EXIT_FINDING, ConfigurationError
from bridge.journal import store
from bridge.replay import BUSY, Replay, Tally, Wanted, target
from bridge.settings import Settings


@click.command(short_help="Send readings in the journal to a sink again.")
@click.option(
    "--sink", type=click.Choice(["pubsub", "bigquery"]), required=True, help="Where they go."
)
@click.option("--site", "sites", multiple=True, help="Only readings of this site. Repeatable.")
@span_options("Only readings whose event time is")
@click.option("--allow-duplicates", is_flag=True, help="Do not look up what BigQuery has.")
@click.option("--dry-run", is_flag=True, help="Only say how many.")
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    sink: str,
    sites: tuple[str, ...],
    first_us: int | None,
    before_us: int | None,
    allow_duplicates: bool,
    dry_run: bool,
    style: str,
) -> None:
    """Send readings that are still in the journal, and that the sink has had already, once more.

    To BigQuery go only readings that are not in the table (unless --allow-duplicates), each
    exactly once. To Pub/Sub go all, outside the order of their site, with the attribute
    replay=true. They are counted as replayed, outside the ledger's balance. What is pending is left
    to the bridge.

    Works beside a running daemon, and without one; one at a time. What fails for a while is tried
    again until it works; Ctrl-C ends it, and says what was done. Exit code 0: all were sent; 1:
    some were refused, or it was ended early.
    """
    configured = settings.load()
    wanted = Wanted(sink, frozenset(sites), first_us, before_us)
    with _connected(configured, sink) as db:
        code = _run(configured, db, wanted, allow_duplicates, dry_run, style)
    ctx.exit(code)


@contextmanager
def _connected(configured: Settings, sink: str) -> Iterator[sqlite3.Connection]:
    """The journal, for this replay alone. Raises JournalLocked, ConfigurationError."""
    path = configured.journal_path
    lock = store.Lock(path, "replay.lock", BUSY)
    with closing(store.connect_writer_beside(path)) as db, store.translated():
        _require_destination(db, configured, sink)
        lock.acquire()
        try:
            yield db
        finally:
            lock.release()


def _require_destination(db: sqlite3.Connection, configured: Settings, sink: str) -> None:
    if configured.local:
        raise ConfigurationError(
            "APP_ENV='LOCAL': it has neither Pub/Sub nor BigQuery. Remedy: set APP_ENV and the "
            "other variables as the bridge has them."
        )
    known = dict(db.execute("SELECT name, destination FROM sinks WHERE active = 1").fetchall())
    wanted = wiring.destinations(configured)[sink]
    if known.get(sink) != wanted:
        raise ConfigurationError(
            f"the journal {configured.journal_path} was last used with "
            f"{known.get(sink) or f'no sink {sink}'}, and this environment says {wanted}. Remedy: "
            "set the variables as the bridge has them."
        )


def _run(
    configured: Settings,
    db: sqlite3.Connection,
    wanted: Wanted,
    allow_duplicates: bool,
    dry_run: bool,
    style: str,
) -> int:
    service = target(configured, db, wanted.sink, allow_duplicates)
    ended_early = True
    with closing(service), shown(SystemClock()) as progress:
        replay = Replay(db, wanted, service, lambda tally: progress.show(lambda: str(tally)))
        try:
            replay.run(dry_run)
            ended_early = False
        except KeyboardInterrupt:
            click.echo("ended early; a later replay goes over all of it again", err=True)
        finally:
            _tell(wanted.sink, replay.tally, dry_run, ended_early, style)
    return EXIT_FINDING if ended_early or replay.tally.refused else 0


def _tell(sink: str, tally: Tally, dry_run: bool, ended_early: bool, style: str) -> None:
    if style == "json":
        document = {"sink": sink, "dry_run": dry_run, "complete": not ended_early, **vars(tally)}
        print_json(document)
    elif dry_run:
        click.echo(
            f"{tally.found} readings found: {tally.sent} would be sent to {sink}, "
            f"{tally.present} are there already"
        )
    else:
        click.echo(f"{tally} ({sink})")
