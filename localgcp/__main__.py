"""`python -m localgcp`: the local services as a process of their own."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path

import click

from localgcp.server import LocalServices


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--pubsub-port", default=8085, show_default=True, help="0: any free one.")
@click.option("--bigquery-port", default=9050, show_default=True)
@click.option("--storage-port", default=9060, show_default=True)
@click.option("--control-port", default=9070, show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Keep everything there.")
def main(
    host: str,
    pubsub_port: int,
    bigquery_port: int,
    storage_port: int,
    control_port: int,
    data_dir: Path | None,
) -> None:
    """Serve Pub/Sub and BigQuery on this machine until SIGTERM or SIGINT.

    Prints one line of JSON when ready: the variables for Google's clients, and the control port.
    """
    wanted = (signal.SIGTERM, signal.SIGINT)
    # Blocked before any thread starts, so that `sigwait` gets them whatever is running.
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    ports = (pubsub_port, bigquery_port, storage_port, control_port)
    with _services(host, ports, data_dir) as services:
        ready = {"environment": services.environment(), "control": services.control}
        click.echo(json.dumps(ready))
        signal.sigwait(wanted)


def _services(host: str, ports: tuple[int, int, int, int], data_dir: Path | None) -> LocalServices:
    try:
        return LocalServices(host, *ports, data_dir=data_dir)
    except (OSError, RuntimeError, sqlite3.Error) as error:  # gRPC's is a RuntimeError
        raise click.ClickException(f"cannot start: {error}") from error


if __name__ == "__main__":
    main()
