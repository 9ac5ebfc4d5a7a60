"""`simulate`: readings on MQTT, made up or from a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import click

from bridge import settings
from bridge.cli.pacing import Pace, stopped_by_signal
from bridge.cli.progress import shown
from bridge.cli.publishing import Counts, Publisher
from bridge.cli.readings import Sample, sensors, simulated, site_codes
from bridge.cli.recorded import extent, replayed
from bridge.cli.traffic import Outgoing, mixed
from bridge.clock import Clock, SystemClock
from bridge.errors import EXIT_FINDING
from bridge.parsing.names import name_problem

MADE_UP_ONLY = ("sites", "tags", "rate", "attributes")


class Sites(click.ParamType[tuple[str, ...]]):
    """A number of sites, or their names."""

    name = "number or names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        if str(value).isdecimal():
            return site_codes(int(value)) or self.fail("there must be at least one site")
        return tuple(self._site(name) for name in str(value).split(","))

    def _site(self, name: str) -> str:
        if problem := name_problem(name):
            self.fail(f"site {name!r} {problem}")
        if set(name) & set("/+#"):
            self.fail(f"site {name!r} cannot be a level of a topic: it has /, + or #")
        return name


@dataclass
class Sent:
    """What was handed over so far, by kind and by site."""

    kinds: Counter[str] = field(default_factory=Counter)
    sites: Counter[str] = field(default_factory=Counter)

    def add(self, message: Outgoing) -> None:
        self.kinds[message.kind] += 1
        self.sites[message.sample.site] += 1


def send(
    messages: Iterator[Outgoing],
    publisher: Publisher,
    note: Callable[[Outgoing], None],
    progress: Callable[[], None],
) -> None:
    """Publish the messages as they come, and tell of each when it is handed over. Blocks until
    the last one is; not until it is acknowledged."""
    for message in messages:
        publisher.publish(message.topic, message.payload)
        note(message)
        progress()


@click.command("simulate")
@click.option(
    "--sites", type=Sites(), default="3", show_default=True, help="A number, or MOR,BAG,SIE."
)
@click.option(
    "--tags",
    type=click.IntRange(1, 100_000),
    default=10,
    show_default=True,
    help="PI tags of each site.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=100.0,
    show_default=True,
    help="Readings a second over all sites; 0: as fast as possible.",
)
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="Seconds to run.")
@click.option("--count", type=click.IntRange(1), help="Readings to publish.")
@click.option(
    "--seed", type=int, help="Repeats a run: the same readings, junk and duplicates, but the times."
)
@click.option(
    "--csv",
    "recording",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Replay a file with the columns timestamp, site_code, pi_tag, sensor_id, value. Times "
    "are shifted so that the last reading is timed at the moment of sending it (at a speed below "
    "1: the first); values are sent as the file has them.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="With --csv: times the recorded pace; 0: as fast as possible.",
)
@click.option(
    "--junk",
    type=click.FloatRange(0, 100),
    default=0.0,
    help="Bad messages of real kinds on top, for each 100 readings.",
)
@click.option(
    "--duplicates",
    type=click.FloatRange(0, 100),
    default=0.0,
    help="Readings sent again on top, as a sensor's retry, for each 100 readings.",
)
@click.option("--attributes", is_flag=True, help="Add the members unit and quality.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Of the closing summary.",
)
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Publish plausible readings of copper solvent extraction to the broker, with QoS 1.

    The broker is the one of MQTT_BROKER, MQTT_PORT and the other MQTT variables. Runs until
    --duration, --count, the end of the file or Ctrl-C, and ends when every message is
    acknowledged. Exit code 1 when the broker refused any, 70 when it cannot be reached.
    """
    _require_fitting(ctx)
    configuration = settings.load()
    sent = Sent()
    with stopped_by_signal() as stop, Publisher(configuration, "simulate") as publisher:
        clock = SystemClock()
        pace = Pace(clock, stop, options["duration"])
        with shown(clock) as progress:
            messages = _messages(options, pace, clock)
            send(messages, publisher, sent.add, lambda: progress.show(publisher.in_words))
        publisher.settle()
        seconds = pace.elapsed()
    counts = publisher.counts()
    click.echo(_summary(counts, sent, seconds, options["form"]))
    if counts.refused:
        ctx.exit(EXIT_FINDING)


def _require_fitting(ctx: click.Context) -> None:
    given = {
        name
        for name in ctx.params
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    useless = [name for name in MADE_UP_ONLY if name in given]
    if "recording" in given and useless:
        raise click.UsageError(f"--{useless[0]} has no meaning with --csv.")
    if "speed" in given and "recording" not in given:
        raise click.UsageError("--speed has a meaning with --csv only.")


def _messages(options: dict[str, Any], pace: Pace, clock: Clock) -> Iterator[Outgoing]:
    rng = Random(options["seed"])
    samples = islice(_samples(options, rng, pace, clock), options["count"])
    # Of its own, so that junk and duplicates do not change the readings.
    chance = Random(rng.random())
    return mixed(samples, chance, options["junk"], options["duplicates"])


def _samples(options: dict[str, Any], rng: Random, pace: Pace, clock: Clock) -> Iterator[Sample]:
    recording: Path | None = options["recording"]
    if recording is not None:
        return replayed(recording, extent(recording), options["speed"], pace.due, clock)
    instruments = sensors(options["sites"], options["tags"], rng)
    return simulated(instruments, options["rate"], pace.due, clock, options["attributes"])


def _summary(counts: Counts, sent: Sent, seconds: float, form: str) -> str:
    if form == "json":
        return json.dumps(_document(counts, sent, seconds), ensure_ascii=False)
    lines = [
        f"published {counts.published} messages in {seconds:.1f} s: {sent.kinds['reading']} "
        f"readings, {sent.kinds['duplicate']} duplicates, {sent.kinds['junk']} junk",
        f"acknowledged {counts.acknowledged}, refused {counts.refused}",
        "sites: " + ", ".join(f"{site} {number}" for site, number in sorted(sent.sites.items())),
    ]
    lines += [f"refused: {number} × {reason}" for reason, number in sorted(counts.reasons.items())]
    if counts.unheard:
        lines.append(f"{counts.unheard} had no subscriber: does the bridge run on this broker?")
    return "\n".join(lines)


def _document(counts: Counts, sent: Sent, seconds: float) -> dict[str, Any]:
    return {
        "published": counts.published,
        "acknowledged": counts.acknowledged,
        "refused": counts.refused,
        "refused_reasons": counts.reasons,
        "without_subscriber": counts.unheard,
        "readings": sent.kinds["reading"],
        "duplicates": sent.kinds["duplicate"],
        "junk": sent.kinds["junk"],
        "seconds": round(seconds, 3),
        "sites": dict(sorted(sent.sites.items())),
    }
