"""The generator by itself: what it can do where nothing holds it up."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.generator import Load, Sent
from bench.scale import Scale
from bench.section import Section, Tell
from bench.stage import ROOT, Generator, Stage
from bridge.cli.processes import Program

START_SECONDS = 30.0


def measure(scale: Scale, tell: Tell) -> Section:
    alone = _alone(scale)
    tell(f"generator alone: {alone.readings / alone.seconds:,.0f} readings/s")
    with Stage() as stage:
        broker = stage.send(Load(scale.drained))
    rows = (("to a sink that only counts", alone), ("to Mosquitto, nobody subscribed", broker))
    return Section(
        "capacity",
        "The generator alone",
        "What it can do where nobody holds it up, which is many times what is asked of it.",
        [
            {
                "generator": name,
                "readings": sent.readings,
                "readings_per_second": sent.readings / sent.seconds,
                "generator_cpu_share": sent.cpu_share,
            }
            for name, sent in rows
        ],
    )


def _alone(scale: Scale) -> Sent:
    with TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        command = (sys.executable, "-m", "bench.discard")
        with Program("discard", command, directory, None, ROOT) as discard:
            port = discard.wait_until(lambda: discard.output.read_text().strip(), START_SECONDS)
            return Generator(directory, 0, int(port), Load(scale.capacity)).finish()
