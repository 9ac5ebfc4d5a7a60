"""`dead-letters`: look at what was refused, and act on it."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from bridge import settings
from bridge.cli.dead_letters_acting import purge, replay
from bridge.cli.output import format_option, json_text, print_json, print_table, printable
from bridge.cli.selecting import selection_options
from bridge.clock import SystemClock
from bridge.errors import EXIT_FINDING, FatalError, JournalError
from bridge.journal import letters, store
from bridge.journal.letters import DeadLetter, Selection
from bridge.journal.store import MOST
from bridge.sinks.letter_json import hex_dump, letter_document
from bridge.times import iso_us

EXCERPT = 60
MARKED = 1_000  # letters that one transaction marks as exported


@click.group(short_help="Look at refused messages, and replay them.")
def command() -> None:
    """Refused messages with their reasons, as the journal keeps them.

    Works beside a running daemon, and without one.
    """


command.add_command(replay)
command.add_command(purge)


@command.command(name="list")
@selection_options
@click.option(
    "--limit",
    type=click.IntRange(-1, MOST),
    default=100,
    show_default=True,
    help="At most so many; -1: all.",
)
@format_option
def list_letters(selection: Selection, limit: int, style: str) -> None:
    """List letters, newest first."""
    with _journal() as db:
        found = letters.select(db, selection, limit)
        if style == "json":
            print_json([letter_document(letter) for letter in found])
            return
        print_table(
            "Dead letters",
            ("id", "received", "reason", "topic", "detail", "payload", "done"),
            [_row(letter) for letter in found],
        )


@command.command()
@click.argument("number", metavar="ID", type=click.IntRange(1, MOST))
@format_option
@click.pass_context
def show(ctx: click.Context, number: int, style: str) -> None:
    """Show one letter, whole."""
    with _journal() as db:
        letter = letters.find(db, number)
    if letter is None:
        click.echo(f"there is no dead letter {number}; `dead-letters list` shows them", err=True)
        ctx.exit(EXIT_FINDING)
    if style == "json":
        print_json(letter_document(letter))
        return
    for name, value in letter_document(letter).items():
        if name != "payload_base64":
            click.echo(f"{name + ':':15} {printable(str(value))}")
    kept = len(letter.payload)
    part = "" if kept == letter.payload_bytes else f" (the first {kept} bytes, more are not kept)"
    click.echo(f"payload{part}:")
    click.echo(_readable(letter.payload))


@command.command()
@selection_options
@click.option(
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    default="-",
    help="A file, which is written anew; standard output unless given.",
)
def export(selection: Selection, output: Path) -> None:
    """Write letters as JSON lines, newest first; `purge` may delete them from then on."""
    with _journal() as db:
        exported = _write(_one_by_one(db, selection), output)
        _mark(db, exported)
    click.echo(f"{len(exported)} dead letters exported", err=True)


def _mark(db: sqlite3.Connection, exported: list[int]) -> None:
    """Note that they were exported. Raises FatalError where the journal's disk does not let it."""
    now = SystemClock().now_us()
    db.execute("PRAGMA query_only = OFF")
    try:
        for start in range(0, len(exported), MARKED):
            with store.transaction(db):
                letters.mark_exported(db, exported[start : start + MARKED], now)
    except JournalError as error:
        raise FatalError(
            "the export is whole, but this could not be noted, and `purge` will not delete what is "
            f"in it: {error}"
        ) from error


def _write(found: Iterator[DeadLetter], output: Path) -> list[int]:
    """Answers which. On disk when it returns, where that can be. Raises FatalError;
    BrokenPipeError when nobody reads on."""
    written = []
    try:
        with click.open_file(str(output), "wb") as file:
            for letter in found:
                file.write(json_text(letter_document(letter)).encode() + b"\n")
                written.append(letter.id)
            file.flush()
            if str(output) != "-":
                _sync(file.fileno())
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FatalError(
            f"{output} could not be written ({error.strerror}): the export is not whole"
        ) from error
    return written


def _sync(file: int) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what is no file has no disk
            raise


def _one_by_one(db: sqlite3.Connection, selection: Selection) -> Iterator[DeadLetter]:
    """Letters that are still there when it is their turn. Each is read for itself: one reading
    that lasted as long as a pipe's reader takes would keep the daemon from cutting its log, and
    so fill its journal."""
    for number in reversed(letters.numbers(db, selection)):
        letter = letters.find(db, number)
        if letter is not None:
            yield letter


@contextmanager
def _journal() -> Iterator[sqlite3.Connection]:
    db = store.connect_reader(settings.load().journal_path)
    try:
        with store.translated():
            yield db
    finally:
        db.close()


def _row(letter: DeadLetter) -> tuple[object, ...]:
    reason = letter.reason if letter.sink is None else f"{letter.reason} by {letter.sink}"
    excerpt = letter.payload[:EXCERPT].decode("utf-8", "backslashreplace")
    more = "…" if len(letter.payload) > EXCERPT else ""
    return (
        letter.id,
        iso_us(letter.received_us)[:19],
        reason,
        letter.topic,
        letter.detail,
        excerpt + more,
        _done(letter),
    )


def _done(letter: DeadLetter) -> str:
    done = {"replayed": letter.replayed_us, "exported": letter.exported_us}
    return ", ".join(word for word, moment in done.items() if moment is not None)


def _readable(payload: bytes) -> str:
    """Text line by line, or a dump in hexadecimal where it is none."""
    try:
        return "\n".join(printable(line) for line in payload.decode("utf-8").split("\n"))
    except UnicodeDecodeError:
        return "\n".join(hex_dump(payload))
