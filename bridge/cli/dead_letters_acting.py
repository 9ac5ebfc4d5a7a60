"""`dead-letters replay` and `purge`: what changes something."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import IO, Any

import click

from bridge import settings, wiring
from bridge.cli.ordering import Orders, Waiting
from bridge.cli.output import format_option, print_json, print_table
from bridge.cli.progress import shown
from bridge.cli.selecting import require_some, selection_options
from bridge.clock import SystemClock
from bridge.errors import EXIT_FINDING
from bridge.intake import judged
from bridge.journal import letters, orders, store
from bridge.journal.letters import DeadLetter, Selection
from bridge.journal.orders import Fresh, Order, Outcome, Unfit
from bridge.journal.store import MOST
from bridge.parsing.names import parse_topic, topic_problem
from bridge.reading import Limits
from bridge.settings import Settings
from bridge.times import iso_us

SHOWN = 50  # letters of which each is told; of more only those that were refused
PURGED = 500  # letters of one transaction
ENDED_EARLY = (
    "ended early: what was ordered until now is carried out all the same, and `dead-letters list` "
    "shows what was replayed"
)

numbers_argument = click.argument(
    "numbers", metavar="[ID]...", nargs=-1, type=click.IntRange(1, MOST)
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say how many and which.")


@click.command(name="replay")
@numbers_argument
@selection_options
@click.option("--topic", help="Receive it under this topic instead of its own. For one ID.")
@click.option(
    "--payload",
    "file",
    type=click.File("rb"),
    help="A corrected payload, in a file (-: standard input). For one ID.",
)
@click.option("--payload-text", help="A corrected payload. For one ID.")
@click.option("--force", is_flag=True, help="Also what was replayed before (see above).")
@dry_run_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="How many seconds to wait while the daemon carries nothing out.",
)
@format_option
@click.pass_context
def replay(
    ctx: click.Context,
    numbers: tuple[int, ...],
    selection: Selection,
    topic: str | None,
    file: IO[bytes] | None,
    payload_text: str | None,
    force: bool,
    dry_run: bool,
    timeout: float,
    style: str,
) -> None:
    """Have refused messages taken in once more: IDs, or all that fit the options.

    What the entrance refused is received as a new message, now: it counts as received, and is a
    new reading or a duplicate. What a sink refused goes to that sink alone, as it was: from
    dead-lettered to pending. With a corrected payload or topic it is another reading, and always a
    new message. A message that is refused again changes nothing.

    Each letter is replayed once. With --force again: a message is then recognised as a duplicate;
    but a sink gets the reading again, and BigQuery may then hold it twice.

    Works beside a running daemon, which carries the order out, and without one. Exit code 0: all
    were taken in; 1: some were refused, or wait.
    """
    require_some(numbers, selection)
    payload = _payload(file, payload_text)
    if (topic is not None or payload is not None) and len(numbers) != 1:
        raise click.UsageError("A corrected topic or payload is for exactly one ID.")
    _require_topic(topic)
    configured = settings.load()
    _require_size(payload, configured)
    with closing(store.connect_writer_beside(configured.journal_path)) as db, store.translated():
        chosen, left_out = _chosen(db, numbers, selection, force)
        some = [Order(number, topic, payload, force) for number in chosen]
        if dry_run:
            _foretell(db, some, left_out, configured, style)
            return
        code = _carry_out(db, some, left_out, configured, timeout, style)
    ctx.exit(code)


@click.command()
@numbers_argument
@selection_options
@click.option("--all", "everything", is_flag=True, help="All that were exported.")
@dry_run_option
@format_option
def purge(
    numbers: tuple[int, ...], selection: Selection, everything: bool, dry_run: bool, style: str
) -> None:
    """Delete letters that an export has covered: IDs, all that fit the options, or --all.

    What no export has covered stays, and so does what still waits for the dead-letter topic or was
    ordered to be replayed.
    """
    if not everything:
        require_some(numbers, selection)
    configured = settings.load()
    forwarding = wiring.journal_limits(configured).forwarding
    with closing(store.connect_writer_beside(configured.journal_path)) as db, store.translated():
        chosen = list(numbers) or letters.numbers(db, selection)
        going = letters.may_go(db, chosen, forwarding)
        purged = len(going) if dry_run else _purge(db, going, forwarding)
    _tell_purged(purged, len(chosen) - purged, dry_run, style)


def _purge(db: sqlite3.Connection, going: Sequence[int], forwarding: bool) -> int:
    purged = 0
    with shown(SystemClock()) as progress:
        for start in range(0, len(going), PURGED):
            with store.transaction(db):
                purged += letters.purge(db, going[start : start + PURGED], forwarding)
            progress.show(partial("{} of {} purged".format, purged, len(going)))
    return purged


def _tell_purged(purged: int, left: int, dry_run: bool, style: str) -> None:
    if style == "json":
        print_json({"purged": purged, "left": left, "dry_run": dry_run})
        return
    click.echo(f"{purged} dead letters {'would be ' * dry_run}purged")
    if left:
        click.echo(
            f"{left} stay: they are not there, not exported (`dead-letters export` does), or still "
            "wait for the dead-letter topic or for a replay"
        )


# --- what is to be replayed -----------------------------------------------------------------------


def _payload(file: IO[bytes] | None, text: str | None) -> bytes | None:
    if file is not None and text is not None:
        raise click.UsageError("Give either --payload or --payload-text.")
    if file is not None:
        return file.read()
    return None if text is None else text.encode("utf-8", "surrogateescape")


def _require_topic(topic: str | None) -> None:
    if topic is not None and parse_topic(topic) is None:
        raise click.BadParameter(f"{topic_problem(topic)}.", param_hint="--topic")


def _require_size(payload: bytes | None, configured: Settings) -> None:
    if payload is not None and len(payload) > configured.max_payload_bytes:
        raise click.BadParameter(
            f"it has {len(payload)} bytes, more than MAX_PAYLOAD_BYTES="
            f"{configured.max_payload_bytes}.",
            param_hint="--payload",
        )


def _chosen(
    db: sqlite3.Connection, numbers: tuple[int, ...], selection: Selection, force: bool
) -> tuple[list[int], int]:
    """The numbers, and how many fit the selection and are left out: they were replayed before."""
    if numbers:
        return list(dict.fromkeys(numbers)), 0
    fitting = letters.numbers(db, selection)
    fresh = fitting if force else letters.numbers(db, selection, fresh=True)
    return fresh, len(fitting) - len(fresh)


def _foretell(
    db: sqlite3.Connection, some: Sequence[Order], left_out: int, configured: Settings, style: str
) -> None:
    limits = wiring.reading_limits(configured)
    rows = [(order.letter, *_foretold(db, order, limits)) for order in some]
    if style == "json":
        names = ("id", "reason", "topic", "would")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        print_json({"dry_run": True, "left_out": left_out, "letters": found})
        return
    print_table("What a replay would do", ("id", "reason", "topic", "would"), rows)
    click.echo(f"{len(rows)} dead letters{_left_out(left_out)}; nothing was done")


def _foretold(db: sqlite3.Connection, order: Order, limits: Limits) -> tuple[str, str, str]:
    letter = letters.find(db, order.letter)
    if letter is None:
        return "", "", "be refused: there is no such dead letter"
    return letter.reason, letter.topic, _would(order, letter, limits)


def _would(order: Order, letter: DeadLetter, limits: Limits) -> str:
    if letter.replayed_us is not None and not order.force:
        return f"be refused: it was replayed at {iso_us(letter.replayed_us)}"
    verdict = judged(order, letter, SystemClock().now_us(), limits)
    if isinstance(verdict, Unfit):
        return f"be refused: {verdict.why}"
    if isinstance(verdict, Fresh):
        return "be a new message"
    return f"wait for {verdict.sink} again"


# --- replaying ------------------------------------------------------------------------------------


def _carry_out(
    db: sqlite3.Connection,
    some: Sequence[Order],
    left_out: int,
    configured: Settings,
    timeout: float,
    style: str,
) -> int:
    clock = SystemClock()
    waiting = 0
    with shown(clock) as progress:
        try:
            done = Orders(configured, db, clock, timeout).carry_out(
                some,
                lambda count: progress.show(lambda: f"{count} of {len(some)} orders carried out"),
            )
        except Waiting as early:
            waiting, done = early.orders, early.done
        except KeyboardInterrupt:
            click.echo(ENDED_EARLY, err=True)
            return EXIT_FINDING
    counts = Counter(dict.fromkeys(orders.OUTCOMES, 0))
    counts.update(outcome.outcome for outcome in done)
    not_given = len(some) - len(done) - waiting
    if style == "json":
        print_json(_result(counts, waiting, not_given, left_out, done))
    else:
        _print_result(counts, left_out, done)
    if waiting:
        click.echo(_waits(waiting, not_given), err=True)
    return EXIT_FINDING if counts[orders.REFUSED] or waiting else 0


def _result(
    counts: Counter[str], waiting: int, not_given: int, left_out: int, done: Sequence[Outcome]
) -> dict[str, Any]:
    found = [{"id": each.letter, "outcome": each.outcome, "detail": each.detail} for each in done]
    rest = {"waiting": waiting, "not_ordered": not_given, "left_out": left_out}
    return {**counts, **rest, "letters": found}


def _print_result(counts: Counter[str], left_out: int, done: Sequence[Outcome]) -> None:
    told = [each for each in done if len(done) <= SHOWN or each.outcome == orders.REFUSED]
    if told:
        rows = [(each.letter, each.outcome, each.detail) for each in told]
        print_table("Replayed", ("id", "outcome", "detail"), rows)
    words = ", ".join(f"{counts[outcome]} {outcome}" for outcome in orders.OUTCOMES)
    click.echo(f"{words}{_left_out(left_out)}")


def _left_out(count: int) -> str:
    return f"; {count} more were replayed before" if count else ""


def _waits(waiting: int, not_given: int) -> str:
    rest = f" {not_given} more were not ordered." if not_given else ""
    return (
        f"{waiting} orders wait and will be carried out as soon as the bridge runs and its journal "
        f"is not full.{rest} `dead-letters list` shows what was replayed"
    )
