"""The figures set out: a table for the terminal, a page for people, a document for programs."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from bench.scale import Scale
from bench.section import Section, Value
from bench.targets import Target, targets
from bridge.cli.broker import find_mosquitto

MARKS = {True: "✓", False: "✗", None: "–"}
PAGE, DOCUMENT = "results.md", "results.json"
NOISY = 0.5  # so much load for each core, before anything is measured, is not to be trusted


def machine() -> dict[str, Any]:
    """What the figures depend on, as it is now."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    mosquitto = subprocess.run([find_mosquitto(), "-h"], capture_output=True, text=True).stdout
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "paho-mqtt": version("paho-mqtt"),
        "mosquitto": mosquitto.partition("\n")[0].rpartition(" ")[2],
    }


def noisy(found: Mapping[str, Any]) -> bool:
    """Whether something else was at work on the machine before the benchmark began."""
    return bool(found["load_before"] > NOISY * found["cores"])


def document(
    sections: Mapping[str, Section], scale: Scale, found: Mapping[str, Any]
) -> dict[str, Any]:
    """All of it, for machines."""
    return {
        "machine": {**found, "noisy": noisy(found)},
        "scale": asdict(scale),
        "targets": [
            {**asdict(target), "wanted": target.wanted, "met": target.met}
            for target in targets(sections)
        ],
        "sections": {name: asdict(section) for name, section in sections.items()},
    }


def page(sections: Mapping[str, Section], scale: Scale, found: Mapping[str, Any]) -> str:
    """All of it, for people, in Markdown."""
    lines = ["# Figures", "", _provenance(scale, found), ""]
    lines += ["## Targets", "", *_lines(_target_cells(targets(sections))), ""]
    for section in sections.values():
        lines += [f"## {section.title}", "", section.note, "", *_lines(_cells(section)), ""]
    return "\n".join(lines)


def write(
    sections: Mapping[str, Section], scale: Scale, found: Mapping[str, Any], directory: Path
) -> None:
    """Page and document into a directory, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / PAGE).write_text(page(sections, scale, found))
    content = json.dumps(document(sections, scale, found), indent=1, allow_nan=False)
    (directory / DOCUMENT).write_text(content + "\n")


def tables(sections: Mapping[str, Section]) -> Iterator[Table]:
    """For the terminal."""
    for section in sections.values():
        yield _table(section.title, _cells(section))
    yield _table("Targets", _target_cells(targets(sections)))


def _provenance(scale: Scale, found: Mapping[str, Any]) -> str:
    words = (
        f"Measured by `python -m bench` ({scale.name}) on {found['cores']} cores of "
        f"{found['cpu']}, Linux {found['kernel']}, Python {found['python']}, paho-mqtt "
        f"{found['paho-mqtt']}, Mosquitto {found['mosquitto']}."
    )
    if noisy(found):
        words += (
            f" **Provisional**: other programs were running (a load of {found['load_before']:.1f} "
            "before anything was measured)."
        )
    return words


def _cells(section: Section) -> Iterator[list[str]]:
    """The head, then the rows. A column for everything that some row has."""
    columns = list(dict.fromkeys(name for row in section.rows for name in row))
    yield [name.replace("_", " ") for name in columns]
    for row in section.rows:
        yield [shown(row.get(name)) for name in columns]


def _target_cells(found: Iterable[Target]) -> Iterator[list[str]]:
    yield ["target", "wanted", "found", ""]
    for target in found:
        yield [target.words, target.wanted, shown(target.found), MARKS[target.met]]


def shown(value: Value) -> str:
    """Three significant digits, and all digits of what is at least a thousand."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{digits}f}"


def _lines(cells: Iterable[list[str]]) -> Iterator[str]:
    for index, row in enumerate(cells):
        yield "| " + " | ".join(row) + " |"
        if index == 0:
            yield "|" + "---|" * len(row)


def _table(title: str, cells: Iterator[list[str]]) -> Table:
    made = Table(*next(cells), title=title, title_justify="left", box=SIMPLE_HEAD)
    for row in cells:
        made.add_row(*row)
    return made
