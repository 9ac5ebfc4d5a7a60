"""The figures as one picture, drawn from results.json. The only importer of matplotlib.

    python -m bench.chart bench/results      # writes results.svg there

By itself, so that nothing but this needs matplotlib's packages: `make bench` puts them aside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from bench.measures.latency import SITES

ABSENT = (
    "matplotlib is not installed: `make bench` brings it, or `pip install --require-hashes "
    "--requirement requirements-bench.txt`"
)
PICTURE = "results.svg"
PANEL = (7.0, 4.0)  # inches
Sections = Mapping[str, Any]


def _throughput(axes: Any, sections: Sections) -> None:
    rows = sections["throughput"]["rows"][::-1]
    names = [row["subject"] for row in rows]
    middle = [row["readings_per_cpu_second"] for row in rows]
    spread = [
        [value - row["least"] for row, value in zip(rows, middle, strict=True)],
        [row["most"] - value for row, value in zip(rows, middle, strict=True)],
    ]
    axes.barh(names, middle, xerr=spread, capsize=3)
    axes.set_xscale("log")
    axes.set_title("readings per CPU second")


def _wall(axes: Any, sections: Sections) -> None:
    rows = sections["throughput"]["rows"][::-1]
    names = [row["subject"] for row in rows]
    axes.barh(names, [row["readings_per_second"] for row in rows], color="tab:green")
    axes.set_xscale("log")
    axes.set_title("readings per second, draining a queue")


def _latency(axes: Any, sections: Sections) -> None:
    rows = sections["latency"]["rows"]
    for sink in dict.fromkeys(row["sink"] for row in rows):
        own = [row for row in rows if row["sink"] == sink and row["sites"] == SITES]
        rates = [row["rate"] for row in own]
        axes.plot(rates, [row["p99_ms"] for row in own], marker="o", label=f"{sink}, p99")
        axes.plot(rates, [row["p50_ms"] for row in own], marker="o", ls=":", label=f"{sink}, p50")
    axes.set(xscale="log", yscale="log", xlabel="readings per second", ylabel="ms")
    axes.set_title("from publish to the service")
    axes.legend()


def _memory(axes: Any, sections: Sections) -> None:
    _growth(axes, sections, "resident_mb", "MB")
    axes.set_title("resident memory")


def _cost(axes: Any, sections: Sections) -> None:
    _growth(axes, sections, "cpu_us_per_reading", "µs of CPU")
    axes.set_title("cost of a reading")


def _growth(axes: Any, sections: Sections, column: str, unit: str) -> None:
    rows = [row for row in sections["growth"]["rows"] if row[column] is not None]
    for of in dict.fromkeys(row["of"] for row in rows):
        own = [row for row in rows if row["of"] == of]
        axes.plot([r["size"] for r in own], [r[column] for r in own], marker="o", label=of)
    axes.set_xscale("symlog", linthresh=1)
    axes.margins(y=0.1)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="sites, tags, or readings in the backlog", ylabel=unit)
    axes.legend()


def _outage(axes: Any, sections: Sections) -> None:
    rows = sections["outage"]["rows"]
    axes.bar([row["sink"] for row in rows], [row["times_live_rate"] for row in rows], width=0.5)
    axes.axhline(3, color="black", ls="--")
    axes.set_title("catching up, times the live rate")


PANELS: tuple[tuple[str, Callable[[Any, Sections], None]], ...] = (
    ("throughput", _throughput),
    ("throughput", _wall),
    ("latency", _latency),
    ("outage", _outage),
    ("growth", _memory),
    ("growth", _cost),
)


def draw(sections: Sections, path: Path) -> None:
    """A panel for each of what was measured, as SVG. Raises click.ClickException without
    matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise click.ClickException(ABSENT) from None
    # The same figures make the same file.
    matplotlib.rcParams["svg.hashsalt"] = "bench"
    panels = [panel for name, panel in PANELS if name in sections]
    lines = max(1, (len(panels) + 1) // 2)
    figure = Figure(figsize=(2 * PANEL[0], lines * PANEL[1]), layout="constrained")
    for index, panel in enumerate(panels, start=1):
        panel(figure.add_subplot(lines, 2, index), sections)
    figure.savefig(path, metadata={"Date": None})


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(directory: Path) -> None:
    """Draw what results.json in a directory says."""
    document = json.loads((directory / "results.json").read_text())
    draw(document["sections"], directory / PICTURE)
    click.echo(str(directory / PICTURE))


if __name__ == "__main__":
    main()
