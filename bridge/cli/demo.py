"""`demo`: the whole pipeline on this machine, and the proof that nothing was lost on the way."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from types import FrameType
from typing import Any, NamedTuple

import click
from rich.console import Console

from bridge import settings
from bridge.cli.demo_proof import Found, Published, proof
from bridge.cli.demo_report import Report, document, print_report
from bridge.cli.demo_stage import LETTERS_SUBSCRIPTION, Stage, drained, prepared, running
from bridge.cli.pacing import Pace
from bridge.cli.progress import shown
from bridge.cli.publishing import Publisher
from bridge.cli.readings import sensors, simulated, site_codes
from bridge.cli.simulate import send
from bridge.cli.traffic import Outgoing, mixed
from bridge.cli.witness import Witness
from bridge.clock import SystemClock
from bridge.errors import EXIT_FINDING

LOOK_SECONDS = 1.0
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 20.0


class Plan(NamedTuple):
    """How much to send: `junk` and `duplicates` for each 100 readings."""

    seconds: float
    rate: float
    sites: int
    tags: int
    junk: float
    duplicates: float
    seed: int | None


@click.command("demo")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=20.0, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(1, 5000),
    default=500.0,
    show_default=True,
    help="Readings a second over all sites.",
)
@click.option("--sites", type=click.IntRange(1, 1000), default=4, show_default=True)
@click.option("--tags", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option(
    "--junk",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Bad messages on top, for each 100 readings.",
)
@click.option(
    "--duplicates",
    type=click.FloatRange(0, 100),
    default=2.0,
    show_default=True,
    help="Readings sent again on top, for each 100 readings.",
)
@click.option("--seed", type=int, help="Repeats a run: the same readings, but their times.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@click.pass_context
def command(ctx: click.Context, /, form: str, **plan: Any) -> None:
    """Try the whole pipeline on this machine, and prove that it holds.

    Starts Mosquitto, local Pub/Sub and BigQuery and the bridge, publishes readings with a few
    bad messages and duplicates among them, and compares at the end what was published with what
    the services hold. Needs no account and touches nothing but a temporary directory. Exit code
    1 when the proof fails.
    """
    with _terminable():
        report = perform(Plan(**plan), lambda words: click.echo(words, err=True))
    if form == "json":
        click.echo(json.dumps(document(report), ensure_ascii=False))
    else:
        print_report(report, Console(file=sys.stdout))
    if not report.proven:
        click.echo(f"The end of the bridge's log:\n{report.log}", err=True)
        ctx.exit(EXIT_FINDING)


def perform(plan: Plan, say: Callable[[str], None]) -> Report:
    """Run the demo from start to end. Blocks for the plan's seconds and some more. Raises
    FatalError when a part does not work at all; nothing is left behind in any case."""
    say("Starting Mosquitto, local Pub/Sub and BigQuery, and the bridge …")
    with (
        prepared() as (directory, environment, services),
        Witness(settings.load(environment), LETTERS_SUBSCRIPTION) as witness,
    ):
        witness.subscribe()
        with running(directory, environment, services) as stage:
            say(_where_to_look(stage))
            published, refused = _publish(plan, stage, witness)
            say("Waiting until everything has arrived …")
            ledger = _settle(published, stage, witness)
            # Stopped before the last count, so that whatever it still had in hand is seen.
            code = drained(stage.bridge)
            log = stage.bridge.last_words(30)
        witness.look()
        reasons = [str(letter["reason"]) for letter in _distinct(witness.dead_letters)]
        found = Found(witness.events, witness.rows(), reasons, ledger, refused, code)
    return Report(published, found, proof(published, found), log)


def _publish(plan: Plan, stage: Stage, witness: Witness) -> tuple[Published, int]:
    """What was published, and how many messages the broker refused."""
    clock, published = SystemClock(), Published()

    def words() -> str:
        stage.require_running()
        witness.look()
        return (
            f"{pace.elapsed():3.0f} s: {len(published.readings):,} readings published, "
            f"{len(witness.events):,} events in Pub/Sub, {witness.row_count():,} rows in BigQuery, "
            f"{len(witness.dead_letters):,} dead letters"
        )

    with Publisher(stage.settings, "demo") as publisher:
        pace = Pace(clock, _NeverStopped(), plan.seconds)
        with shown(clock, LOOK_SECONDS, LOOK_SECONDS) as progress:
            send(_messages(plan, pace), publisher, published.add, lambda: progress.show(words))
        publisher.settle()
        return published, publisher.counts().refused


def _messages(plan: Plan, pace: Pace) -> Iterator[Outgoing]:
    rng = Random(plan.seed)
    instruments = sensors(site_codes(plan.sites), plan.tags, rng)
    samples = simulated(instruments, plan.rate, pace.due, SystemClock())
    return mixed(samples, rng, plan.junk, plan.duplicates)


def _settle(published: Published, stage: Stage, witness: Witness) -> dict[str, Any]:
    """Wait until everything has arrived and the bridge knows it, or until nothing more arrives
    for `PATIENCE_SECONDS`; the ledger then."""
    wanted = (len(published.readings), len(published.readings), published.junk.total(), 0)
    before: object = None
    changed_at = time.monotonic()
    while time.monotonic() < changed_at + PATIENCE_SECONDS:
        stage.require_running()
        witness.look()
        ledger = stage.ledger()
        counts = (
            len({event.content for event in witness.events}),
            witness.row_count(),
            len(_distinct(witness.dead_letters)),
            _pending(ledger),
        )
        if counts == wanted:
            return ledger
        if counts != before:
            before, changed_at = counts, time.monotonic()
        time.sleep(POLL_SECONDS)
    return stage.ledger()


def _pending(ledger: dict[str, Any]) -> int:
    return sum(sink["pending"] for sink in ledger["totals"]["sinks"].values())


def _distinct(letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each dead letter once: the topic has them at least once."""
    return list({json.dumps(letter, sort_keys=True): letter for letter in letters}.values())


class _NeverStopped:
    """Pacing without an event: Ctrl-C ends the demo where it is."""

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float) -> bool:
        time.sleep(timeout)
        return False


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that it cleans up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    ends = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in ends}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _where_to_look(stage: Stage) -> str:
    journal = stage.settings.journal_path
    lines = [
        "Where to look meanwhile:",
        f"  {stage.address}/         what the bridge is doing",
        f"  {stage.address}/ledger   every reading's whereabouts",
        f"  {stage.address}/metrics  the same for Prometheus",
        f"  JOURNAL_PATH={journal} {sys.executable} mqtt_subscriber.py dead-letters list",
    ]
    if shutil.which("mosquitto_sub"):
        lines.append(f"  mosquitto_sub -p {stage.settings.mqtt_port} -t 'FCTS/#' -v")
    return "\n".join(lines)
