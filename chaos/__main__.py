"""`python -m chaos`: run scenarios and say what came of them."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from bridge.cli.output import console
from chaos import report
from chaos.backlog import Measured, tables
from chaos.backlog import backlog as outage
from chaos.runner import Result, Runner, run_all
from chaos.scenario import Scenario
from chaos.scenarios import ALL, in_order
from chaos.soak import soak as mixes

OUT = Path("chaos-report")
REPORT_WIDTH = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Prove that nothing is lost, doubled or reordered, by breaking things."""


@main.command(name="list")
def list_() -> None:
    """List the scenarios."""
    for scenario in ALL:
        click.echo(f"{scenario.name:<28} {scenario.group:<10} {scenario.story}")


def _places(command: Callable[..., None]) -> Callable[..., None]:
    """The options of where things are left."""
    directory = click.Path(path_type=Path, file_okay=False)
    for option in (
        click.option("--out", type=directory, default=OUT, show_default=True, help="The report."),
        click.option("--keep", type=directory, help="Leave logs and journals there."),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("names", nargs=-1)
@click.option("--quick", is_flag=True, help="The short form, as the tests run it.")
@_places
def run(names: tuple[str, ...], quick: bool, out: Path, keep: Path | None) -> None:
    """Run all scenarios, or those named (a name, or a group). Exit 1 if anything is lost, doubled
    in BigQuery or out of order."""
    wanted = _chosen(names)
    with _runner(keep, quick) as runner:
        results = run_all(runner, wanted, _tell)
    _finish(results, out)


@main.command()
@click.option("--minutes", type=float, default=30.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@_places
def soak(minutes: float, seed: int, out: Path, keep: Path | None) -> None:
    """Break things in random mixes for so many minutes, on one journal. Exit 1 as `run`."""
    with _runner(keep, quick=True) as runner:
        results = mixes(runner, minutes, seed, _tell)
    _finish(results, out)


@main.command()
@click.option("--readings", type=click.IntRange(min=100), default=1_000_000, show_default=True)
@click.option("--quick", is_flag=True, help="Measure for a moment only, as the tests do.")
@_places
def backlog(readings: int, quick: bool, out: Path, keep: Path | None) -> None:
    """Let readings pile up while both services are away, and measure memory, how fast each sink
    catches up, and how the live readings fare beside it. Exit 1 as `run`."""
    measured = Measured()
    with _runner(keep, quick) as runner:
        scenario = outage(readings, measured, lambda line: click.echo(line, err=True))
        result = runner.run(scenario)
    for table in tables(measured):
        console(REPORT_WIDTH).print(table)
    out.mkdir(parents=True, exist_ok=True)
    (out / "backlog.json").write_text(json.dumps(asdict(measured), indent=1) + "\n")
    _finish([result], out)


@contextmanager
def _runner(keep: Path | None, quick: bool) -> Iterator[Runner]:
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise click.UsageError(f"--keep {keep}: name a directory that is empty or does not exist")
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as directory,
        Runner(keep or Path(directory), quick) as runner,
    ):
        yield runner


def _finish(results: list[Result], out: Path) -> None:
    report.write(results, out)
    console(REPORT_WIDTH).print(report.table(results))
    click.echo(f"{report.summary(results)} Report: {out}/report.md, {out}/report.json")
    sys.exit(0 if all(result.holds for result in results) else 1)


def _chosen(names: tuple[str, ...]) -> list[Scenario]:
    known = {word for scenario in ALL for word in (scenario.name, scenario.group)}
    if strange := set(names) - known:
        raise click.UsageError(
            f"no scenario or group {', '.join(sorted(strange))}: see `python -m chaos list`"
        )
    return in_order(s for s in ALL if not names or s.name in names or s.group in names)


def _tell(result: Result) -> None:
    mark = "✓" if result.holds else "✗"
    seconds = f"({result.seconds:.1f} s)"
    click.echo(f"{mark} {result.scenario.name} {seconds} {report.flaws(result)}".rstrip(), err=True)


if __name__ == "__main__":
    main()
