"""The local Google services as a process of their own, steered through their control port."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.cloud.bigquery import SchemaField, Table

from bridge.cli.processes import Program
from bridge.settings import Settings
from bridge.sinks import connect
from bridge.sinks.schema import COLUMNS
from chaos.bridge_process import ROOT

PORTS = ("pubsub", "bigquery", "storage", "control")
RETENTION_SECONDS = 604_800


class ControlFailed(RuntimeError):
    """The control port refused a request; the message is its answer."""


class Services:
    """Pub/Sub and BigQuery, on the same ports in all their lives. What they hold is kept in
    `directory`, and survives a kill, unless `in_memory` is set."""

    def __init__(self, directory: Path, in_memory: bool = False) -> None:
        self._directory = directory
        self._keep = [] if in_memory else ["--data-dir", str(directory)]
        self._ports = dict.fromkeys(PORTS, "0")
        self._program: Program | None = None
        self._control = ""
        self.environment: dict[str, str] = {}

    def start(self) -> None:
        """Blocks until they listen."""
        options = [word for name, port in self._ports.items() for word in (f"--{name}-port", port)]
        command = [sys.executable, "-m", "localgcp", *options, *self._keep]
        output = self._directory / "services.out"
        output.unlink(missing_ok=True)
        self._program = Program("services", command, self._directory, None, ROOT)
        announced = json.loads(self._program.wait_until(lambda: _first_line(output), 30))
        self._control = announced["control"]
        self.environment = announced["environment"]
        addresses = (*self.environment.values(), self._control)
        self._ports = dict(zip(PORTS, map(_port, addresses), strict=True))

    @property
    def pid(self) -> int:
        """Of the process of the latest start."""
        if self._program is None:
            raise RuntimeError("the services were never started")
        return self._program.pid

    def kill(self) -> None:
        """SIGKILL. Nothing happens where they do not run."""
        if self._program is not None:
            self._program.kill()

    # --- trouble ----------------------------------------------------------------------------------

    def add_fault(self, call: str, **fields: Any) -> int:
        """Put a fault in force (`localgcp.faults.Fault`); its id."""
        return int(self.post("/faults", {"call": call, **fields})["id"])

    @contextmanager
    def fault(self, call: str, **fields: Any) -> Iterator[None]:
        """A fault for as long as the block lasts; on each fitting call unless `times` is given."""
        number = self.add_fault(call, **{"times": None, **fields})
        try:
            yield
        finally:
            self.remove_fault(number)

    def remove_fault(self, number: int) -> None:
        self._request("DELETE", f"/faults/{number}")

    def clear_faults(self) -> None:
        self._request("DELETE", "/faults")

    def calls(self, name: str) -> int:
        """How often a call was made since the start."""
        return int(json.loads(self._request("GET", "/calls")).get(name, 0))

    def post(self, path: str, document: Any = None) -> Any:
        """A request of the control port; its answer. Raises ControlFailed."""
        return json.loads(self._request("POST", path, document))

    # --- what they hold ---------------------------------------------------------------------------

    def events(self, settings: Settings, after: int = 0) -> Iterator[dict[str, Any]]:
        """The messages of the topic in the order of their coming, without the first ones."""
        return self._lines(f"{topic_path(settings)}?after={after}")

    def rows(self, settings: Settings, after: int = 0) -> Iterator[dict[str, Any]]:
        """The rows of the table in the order of their coming, without the first ones."""
        return self._lines(f"{table_path(settings)}?after={after}")

    def count(self, path: str) -> int:
        """How many messages or rows there are, by `topic_path` or `table_path`."""
        return int(json.loads(self._request("GET", f"{path}/count"))["count"])

    def arrivals(self, settings: Settings) -> list[tuple[int, int]]:
        """For each write to the table since the start: how many rows it brought, and when
        (microseconds since 1970)."""
        return [
            (count, us)
            for count, us in json.loads(self._request("GET", f"{table_path(settings)}/arrivals"))
        ]

    def _lines(self, path: str) -> Iterator[dict[str, Any]]:
        with urllib.request.urlopen(self._control + path, timeout=600) as answer:
            for line in answer:
                yield json.loads(line)

    def _request(self, method: str, path: str, document: Any = None) -> bytes:
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self._control + path, body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise ControlFailed(error.read().decode()) from error
        return content


def topic_path(settings: Settings) -> str:
    """The topic's path at the control port."""
    return f"/pubsub/{settings.gcp_project_id}/{settings.pubsub_topic}"


def table_path(settings: Settings) -> str:
    """The table's path at the control port."""
    names = (settings.gcp_project_id, settings.bigquery_dataset, settings.bigquery_table)
    return "/bigquery/" + "/".join(str(name) for name in names)


def create_topic(settings: Settings) -> None:
    """With retention, as `provision` does it."""
    publisher = connect.publisher(settings)
    name = f"projects/{settings.gcp_project_id}/topics/{settings.pubsub_topic}"
    retention = {"seconds": RETENTION_SECONDS}
    publisher.create_topic(request={"name": name, "message_retention_duration": retention})
    publisher.transport.close()


def create_table(settings: Settings, leave_out: str = "") -> None:
    """The dataset where it is missing, and the table. leave_out: a column to go without."""
    client = connect.bigquery(settings)
    client.create_dataset(settings.bigquery_dataset, exists_ok=True)
    columns = [SchemaField(*column) for column in COLUMNS if column.name != leave_out]
    client.create_table(Table(table_id(settings), schema=columns))
    client.close()


def table_id(settings: Settings) -> str:
    return f"{settings.gcp_project_id}.{settings.bigquery_dataset}.{settings.bigquery_table}"


def _first_line(output: Path) -> str | None:
    first, end, _ = output.read_text().partition("\n")
    return first if end else None


def _port(address: str) -> str:
    return address.rsplit(":", 1)[1]
