"""The broker's own window: what Mosquitto has acknowledged to a sensor and forgets in a crash.

    publisher ──▶ Mosquitto ──▶ session        acknowledged: numbers, each with its time
                     │ kill -9 at a random moment
                     ▼
                  Mosquitto ──▶ session again  handed over: numbers
                                               lost: acknowledged, and never handed over

What the broker alone had, no bridge can bring back. Each variant of the broker's settings is
measured with the session in each of three states, and for what it costs.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from statistics import median
from time import monotonic

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bridge.cli.broker import Broker, find_mosquitto
from bridge.cli.output import format_option, print_json
from chaos.window_clients import MOST_MESSAGES, TOPIC, Paced, Session, plain_publisher

TABLE_WIDTH = 130


class State(StrEnum):
    """What the session does while messages are published.

    ABSENT: it is not connected. SILENT: it takes messages, acknowledges none, and dies with the
    broker, so that only what it gets afterwards counts. PRESENT: it acknowledges at once, and
    survives, so that everything it ever got counts; what is lost then was on the wire.
    """

    ABSENT = "absent"
    SILENT = "silent"
    PRESENT = "present"


@dataclass(frozen=True)
class Variant:
    """A name, and lines to put after those of `mosquitto.conf`, of which the last one counts."""

    name: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Round:
    """What came of one round. again: handed over although the session had acknowledged it.
    window: seconds from the acknowledgement of the oldest lost message until the broker's end.
    slowest: seconds, the longest that an acknowledgement took."""

    acknowledged: int
    handed_over: int
    lost: int
    again: int
    window: float
    slowest: float
    session_survived: bool


@dataclass(frozen=True)
class Row:
    """The rounds of one variant and state together; times in milliseconds."""

    variant: str
    state: str
    rounds: int
    acknowledged: int
    handed_over: int
    lost: int
    again: int
    sessions_lost: int
    median_window_ms: float
    longest_window_ms: float
    slowest_acknowledgement_ms: float
    full_speed: float


SHIPPED = Variant("as shipped")
BY_SNAPSHOT = (
    SHIPPED,
    Variant("every 5 s", ("autosave_interval 5",)),
    Variant("every change", ("autosave_on_changes true", "autosave_interval 1")),
    Variant("every 100 changes", ("autosave_on_changes true", "autosave_interval 100")),
    Variant("Mosquitto's default", ("autosave_interval 1800",)),
)


def by_sqlite(plugin: Path) -> tuple[Variant, ...]:
    """The variants with Mosquitto 2.1's SQLite plugin, which replaces the snapshots."""
    lines = ("persistence false", f"global_plugin {plugin}")
    return tuple(
        Variant(f"SQLite, {seconds} s", (*lines, f"plugin_opt_flush_period {seconds}"))
        for seconds in (0, 1, 5)
    )


class ChosenBroker(Broker):
    """A Broker that runs `binary`, where one is given."""

    def __init__(self, directory: Path, variant: Variant, binary: Path | None) -> None:
        super().__init__(directory, "\n".join(variant.lines))
        self._binary = binary

    def _start_on(self, binary: Path, port: int) -> None:
        super()._start_on(self._binary or binary, port)


@dataclass(frozen=True)
class Bench:
    """Runs rounds with one kind of broker: `rate` messages a second, up to `messages` of them."""

    random: Random
    messages: int
    rate: float
    binary: Path | None = None

    def run(
        self, variant: Variant, state: State, end: Callable[[Broker], None] = Broker.kill
    ) -> Round:
        """One round, in which `end` befalls the broker at a random moment of the second half.
        Blocks for up to `messages` / `rate` seconds, and the broker's two starts."""
        with self._broker(variant) as broker:
            with Session(broker.port, acknowledges=state is State.PRESENT) as session:
                if state is State.ABSENT:
                    session.leave()
                with Paced(broker.port, self.rate, self.messages) as publisher:
                    publisher.wait(self.messages / self.rate * self.random.uniform(0.5, 1.0))
                    ended = monotonic()
                    end(broker)
                    publisher.read_out()
                    session.read_out()
            return self._outcome(broker, state, publisher, session.heard, ended)

    def full_speed(self, variant: Variant) -> float:
        """Messages a second that a publisher is acknowledged, as fast as it can, while the session
        is absent and its queue grows to `messages`. The publisher may well be the slower of the
        two: this is for comparing settings with each other."""
        with self._broker(variant) as broker, plain_publisher(broker.port) as publisher:
            began = monotonic()
            for number in range(self.messages):
                publisher.publish(TOPIC, b"%d" % number)
            publisher.settle()
            return self.messages / (monotonic() - began)

    @contextmanager
    def _broker(self, variant: Variant) -> Iterator[Broker]:
        """A broker that knows the session, and has written it down: a bridge's session is old."""
        with tempfile.TemporaryDirectory(prefix="window-") as directory:
            broker = ChosenBroker(Path(directory), variant, self.binary)
            try:
                broker.start()
                with Session(broker.port):
                    pass
                broker.stop()
                broker.start()
                yield broker
            finally:
                broker.stop()

    def _outcome(
        self,
        broker: Broker,
        state: State,
        publisher: Paced,
        before: Collection[int],
        ended: float,
    ) -> Round:
        broker.start()
        with Session(broker.port) as session:
            session.take_everything()
        after = session.heard
        heard = {*after, *before} if state is State.PRESENT else set(after)
        return account(
            publisher.acknowledged,
            heard,
            again=len(set(before) & set(after)) if state is State.PRESENT else 0,
            ended=ended,
            slowest=publisher.slowest,
            session_survived=session.was_kept,
        )


def account(
    acknowledged: Mapping[int, float],
    heard: Collection[int],
    *,
    again: int = 0,
    ended: float,
    slowest: float = 0.0,
    session_survived: bool = True,
) -> Round:
    """Compare. acknowledged: when each number was, in seconds of the clock of `ended`. What was
    heard but not acknowledged counts for nothing: its sensor sends it again."""
    lost = [when for number, when in acknowledged.items() if number not in heard]
    return Round(
        acknowledged=len(acknowledged),
        handed_over=sum(number in acknowledged for number in heard),
        lost=len(lost),
        again=again,
        # What the broker had sent just before its end may be read just after.
        window=max(0.0, ended - min(lost)) if lost else 0.0,
        slowest=slowest,
        session_survived=session_survived,
    )


def together(variant: Variant, state: State, rounds: Sequence[Round], full_speed: float) -> Row:
    """Sum up the rounds, of which there must be one at least."""
    windows = [one.window * 1000 for one in rounds]
    return Row(
        variant=variant.name,
        state=state.value,
        rounds=len(rounds),
        acknowledged=sum(one.acknowledged for one in rounds),
        handed_over=sum(one.handed_over for one in rounds),
        lost=sum(one.lost for one in rounds),
        again=sum(one.again for one in rounds),
        sessions_lost=sum(not one.session_survived for one in rounds),
        median_window_ms=round(median(windows), 1),
        longest_window_ms=round(max(windows), 1),
        slowest_acknowledgement_ms=round(max(one.slowest for one in rounds) * 1000, 1),
        full_speed=round(full_speed),
    )


def measure(
    bench: Bench, variants: Sequence[Variant], states: Sequence[State], rounds: int
) -> Iterator[Row]:
    """A row each. Blocks for minutes."""
    for variant in variants:
        full_speed = bench.full_speed(variant)
        for state in states:
            runs = [bench.run(variant, state) for _ in range(rounds)]
            yield together(variant, state, runs, full_speed)


def version(binary: Path) -> str:
    """What the broker calls itself."""
    # It ends its help with different exit codes in different versions.
    said = subprocess.run([binary, "-h"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0]


COLUMNS = {
    "variant": "settings",
    "state": "session",
    "acknowledged": "acknow-\nledged",
    "handed_over": "handed\nover",
    "lost": "\nlost",
    "again": "\nagain",
    "sessions_lost": "sessions\nlost",
    "median_window_ms": "window ms,\nmedian",
    "longest_window_ms": "\nlongest",
    "slowest_acknowledgement_ms": "slowest\nPUBACK ms",
    "full_speed": "messages/s\nat most",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--binary",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Another Mosquitto than this machine's.",
)
@click.option(
    "--sqlite-plugin",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure this persistence plugin (Mosquitto 2.1) as well.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--messages",
    type=click.IntRange(1, MOST_MESSAGES),
    default=8_000,
    show_default=True,
    help="At most so many a round: it is cut short at a random moment of its second half.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    default=1_000.0,
    show_default=True,
    help="Messages a second.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the random moments.")
@click.option(
    "--settings",
    "wanted",
    multiple=True,
    help="Only the settings with this name in the table; may be given several times.",
)
@format_option
def main(
    binary: Path | None,
    sqlite_plugin: Path | None,
    rounds: int,
    messages: int,
    rate: float,
    seed: int,
    wanted: tuple[str, ...],
    style: str,
) -> None:
    """Kill Mosquitto again and again, and count what it had acknowledged and forgets.

    The window: how long before the kill the oldest lost message had been acknowledged.
    """
    variants = chosen((*BY_SNAPSHOT, *(by_sqlite(sqlite_plugin) if sqlite_plugin else ())), wanted)
    bench = Bench(Random(seed), messages, rate, binary)
    rows = []
    for row in measure(bench, variants, tuple(State), rounds):
        rows.append(row)
        click.echo(f"{row.variant}, session {row.state}: {row.lost} lost", err=True)
    show(version(binary or find_mosquitto()), rows, style)


def chosen(variants: Sequence[Variant], wanted: Sequence[str]) -> Sequence[Variant]:
    """Those named, or all. Raises click.UsageError."""
    names = [variant.name for variant in variants]
    if strange := set(wanted) - set(names):
        raise click.UsageError(f"no such settings: {', '.join(sorted(strange))}; known: {names}")
    return [variant for variant in variants if not wanted or variant.name in wanted]


def show(title: str, rows: Sequence[Row], style: str) -> None:
    """Print the rows."""
    if style == "json":
        print_json({"broker": title, "rows": [asdict(row) for row in rows]})
        return
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for key, heading in COLUMNS.items():
        table.add_column(heading, justify="left" if key in ("variant", "state") else "right")
    for row in rows:
        document = asdict(row)
        table.add_row(*(str(document[key]) for key in COLUMNS))
    # Wide enough for its figures: a pipe has no width, and a terminal can wrap.
    Console(width=TABLE_WIDTH).print(table)


if __name__ == "__main__":
    main()
