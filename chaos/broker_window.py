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
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from statistics import median
from time import monotonic
from types import TracebackType
from typing import Any, Self

import click
from paho.mqtt.client import MQTT_ERR_SUCCESS, Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bridge.cli.broker import Broker, find_mosquitto
from bridge.cli.output import format_option, print_json
from bridge.cli.publishing import NO_MATCHING_SUBSCRIBERS, Publisher
from bridge.settings import Settings

FILTER = "FCTS/FAE/+/SolvExtract/+"
TOPIC = "FCTS/FAE/MOR/SolvExtract/SX1-E1-FLOW"
LAST = b"last"
SESSION_SECONDS = 3600
PATIENCE_SECONDS = 60.0
LOOP_SECONDS = 0.002
TABLE_WIDTH = 130
MOST_MESSAGES = 60_000  # below what may be in flight to one client, 65,535


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


class Connection:
    """One MQTT 5 connection with a thread of its own, for as long as the block lasts. It is not
    made again when it is lost."""

    def __init__(self, port: int, client_id: str, kept_seconds: int, manual_ack: bool) -> None:
        self._port = port
        self._kept_seconds = kept_seconds
        self._answered = threading.Event()
        name = client_id or "publisher"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.was_kept = False
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            manual_ack=manual_ack,
        )
        self.client.on_connect = self._on_connect

    def __enter__(self) -> Self:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._kept_seconds
        clean = self._kept_seconds == 0
        self.client.connect("127.0.0.1", self._port, clean_start=clean, properties=properties)
        self._thread.start()
        expect(self._answered, "an answer to CONNECT")
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """End it, and wait for its end. Idempotent."""
        self.client.disconnect()
        self._thread.join()

    def read_out(self) -> None:
        """Block until the connection is over, which the broker must have ended or be about to.
        Until then, or until it fails to write, paho reads what the broker had sent."""
        self._thread.join()

    def wait(self, seconds: float) -> None:
        """Block for so long, or until the connection is lost."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while self.client.loop(LOOP_SECONDS) == MQTT_ERR_SUCCESS:
            self.step()

    def step(self) -> None:
        """What else there is to do in the connection's thread, many times a second."""

    def _on_connect(self, _client: Client, _data: Any, flags: Any, reason: Any, _p: Any) -> None:
        if not reason.is_failure:
            self.was_kept = flags.session_present
            self._answered.set()


class Session(Connection):
    """The bridge's place: a session that the broker keeps, subscribed to the plant's readings.

    heard: the numbers of the messages that came, whether acknowledged or not.
    """

    def __init__(self, port: int, acknowledges: bool = True) -> None:
        super().__init__(port, "window-session", SESSION_SECONDS, manual_ack=not acknowledges)
        self.heard: set[int] = set()
        self._subscribed = threading.Event()
        self._last = threading.Event()
        self.client.on_message = self._on_message
        self.client.on_subscribe = lambda *_: self._subscribed.set()

    def __enter__(self) -> Self:
        super().__enter__()
        self.client.subscribe(FILTER, qos=1)
        expect(self._subscribed, "an answer to SUBSCRIBE")
        return self

    def take_everything(self) -> None:
        """Block until the broker has nothing left. Its queue is in order: what is published now
        comes last."""
        with _publisher(self._port) as publisher:
            publisher.publish(TOPIC, LAST)
            publisher.settle()
        expect(self._last, "the end of the queue")

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if message.payload == LAST:
            self._last.set()
        else:
            self.heard.add(int(message.payload))


class Paced(Connection):
    """Publishes numbers from 0 on, `rate` a second and `most` in all, and sends none again.

    acknowledged: when each was, by number. slowest: seconds, the longest that took.
    """

    def __init__(self, port: int, rate: float, most: int) -> None:
        super().__init__(port, "", kept_seconds=0, manual_ack=False)
        self.acknowledged: dict[int, float] = {}
        self.slowest = 0.0
        self._rate = rate
        self._most = most
        self._began = monotonic()
        self._sent: list[float] = []
        self._numbers: dict[int, int] = {}  # by packet id
        self.client.max_inflight_messages_set(MOST_MESSAGES)
        self.client.on_publish = self._on_publish

    def step(self) -> None:
        due = min(self._most, int((monotonic() - self._began) * self._rate))
        while len(self._sent) < due:
            number = len(self._sent)
            self._sent.append(monotonic())
            self._numbers[self.client.publish(TOPIC, b"%d" % number, qos=1).mid] = number

    def _on_publish(self, _client: Client, _data: Any, mid: int, reason: Any, _p: Any) -> None:
        number = self._numbers.pop(mid)
        if not reason.is_failure and reason.value != NO_MATCHING_SUBSCRIBERS:
            now = monotonic()
            self.acknowledged[number] = now
            self.slowest = max(self.slowest, now - self._sent[number])


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
        with self._broker(variant) as broker, _publisher(broker.port) as publisher:
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


def _publisher(port: int) -> Publisher:
    settings = Settings.model_validate({"mqtt_broker": "127.0.0.1", "mqtt_port": port})
    return Publisher(settings, "window")


def expect(event: threading.Event, what: str) -> None:
    """Wait for it. Raises TimeoutError."""
    if not event.wait(PATIENCE_SECONDS):
        raise TimeoutError(f"the broker did not send {what} within {PATIENCE_SECONDS:g} s")


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
