"""`python -m bench`: measure, and say what came of it."""

from __future__ import annotations

from pathlib import Path

import click

from bench import report
from bench.measures import ALL
from bench.scale import FULL, QUICK, TINY
from bench.section import Section
from bridge.cli.output import console

OUT = Path("bench/results")
WIDTH = 200
SCALES = {scale.name: scale for scale in (FULL, QUICK, TINY)}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(list(ALL)))
@click.option("--quick", "scale", flag_value="quick", help="Less of each: some minutes in all.")
@click.option("--tiny", "scale", flag_value="tiny", help="Only to see that it works.")
@click.option("--full", "scale", flag_value="full", default=True, hidden=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=OUT)
def main(names: tuple[str, ...], scale: str, out: Path) -> None:
    """Measure all, or the parts named; write results.md and results.json."""
    machine = report.machine()
    if report.noisy(machine):
        click.echo(
            f"Other programs are running (load {machine['load_before']:.1f} on {machine['cores']} "
            "cores): the figures will be provisional.",
            err=True,
        )
    sections: dict[str, Section] = {}
    for name in [name for name in ALL if not names or name in names]:
        click.echo(f"— {name}", err=True)
        sections[name] = ALL[name](SCALES[scale], lambda line: click.echo(f"  {line}", err=True))
        # After each: what was measured is kept when a later part fails.
        report.write(sections, SCALES[scale], machine, out)
    for table in report.tables(sections):
        console(WIDTH).print(table)
    click.echo(f"{out / report.PAGE}, {out / report.DOCUMENT}")


if __name__ == "__main__":
    main()
