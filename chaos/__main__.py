"""`python -m chaos`: run scenarios and say what came of them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console

from chaos import report
from chaos.runner import Result, Runner, run_all
from chaos.scenario import Scenario
from chaos.scenarios import ALL

OUT = Path("chaos-report")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Prove that nothing is lost, doubled or reordered, by breaking things."""


@main.command(name="list")
def list_() -> None:
    """List the scenarios."""
    for scenario in ALL:
        click.echo(f"{scenario.name:<28} {scenario.group:<10} {scenario.story}")


@main.command()
@click.argument("names", nargs=-1)
@click.option("--quick", is_flag=True, help="The short form, as the tests run it.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Leave logs and journals in this directory."
)
def run(names: tuple[str, ...], quick: bool, out: Path, keep: Path | None) -> None:
    """Run all scenarios, or those named (a name, or a group). Exit 1 if anything is lost, doubled
    in BigQuery or out of order."""
    wanted = _chosen(names)
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as directory,
        Runner(keep or Path(directory), quick) as runner,
    ):
        results = run_all(runner, wanted, lambda result: _tell(console, result))
    report.write(results, out)
    Console().print(report.table(results))
    click.echo(f"{report.summary(results)} Report: {out}/report.md, {out}/report.json")
    sys.exit(0 if all(result.holds for result in results) else 1)


def _chosen(names: tuple[str, ...]) -> list[Scenario]:
    known = {word for scenario in ALL for word in (scenario.name, scenario.group)}
    if strange := set(names) - known:
        raise click.UsageError(
            f"no scenario or group {', '.join(sorted(strange))}: see `python -m chaos list`"
        )
    return [s for s in ALL if not names or s.name in names or s.group in names]


def _tell(console: Console, result: Result) -> None:
    mark = "[green]✓[/]" if result.holds else "[red]✗[/]"
    console.print(f"{mark} {result.scenario.name} ({result.seconds:.1f} s) {report.flaws(result)}")


if __name__ == "__main__":
    main()
