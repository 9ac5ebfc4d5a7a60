"""What the local BigQuery has acknowledged is still there after `kill -9`."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.cloud.bigquery_storage_v1 import types
from google.rpc import code_pb2

from localgcp.tables import Tables
from tests.support.bigquery import (
    PROJECT,
    Appends,
    Service,
    json_row,
    new_table,
    proto_row,
    rest_client,
    write_client,
)

SERVE = """
import sys, threading
from pathlib import Path
from localgcp.bigquery_rest import BigQueryRestServer
from localgcp.bigquery_write import StorageWriteServer
from localgcp.faults import Faults
from localgcp.tables import Tables

tables, faults = Tables(Path(sys.argv[1])), Faults()
with BigQueryRestServer(tables, faults) as rest, StorageWriteServer(tables, faults) as storage:
    print(rest.port, storage.port, flush=True)
    threading.Event().wait()
"""


@contextmanager
def serving(path: Path) -> Iterator[tuple[Service, subprocess.Popen[str]]]:
    """A process that serves the tables in `path`; killed at the end."""
    command = [sys.executable, "-c", SERVE, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        rest, storage = process.stdout.readline().split()
        yield Service(f"http://127.0.0.1:{rest}", f"127.0.0.1:{storage}"), process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def path_of(table: Any) -> str:
    return f"projects/{PROJECT}/datasets/{table.dataset_id}/tables/{table.table_id}"


def test_after_a_kill_everything_acknowledged_is_there(tmp_path: Path) -> None:
    path = tmp_path / "bigquery.db"
    acknowledged = []
    with serving(path) as (service, process):
        client, writer = rest_client(service), write_client(service)
        table = new_table(client)
        made = writer.create_write_stream(
            parent=path_of(table),
            write_stream=types.WriteStream(type_=types.WriteStream.Type.COMMITTED),
        )
        with Appends(writer, made.name) as appends:
            for offset in range(20):
                appends.append([proto_row(f"stream-{offset}")], offset)
                assert client.insert_rows_json(table, [json_row(f"insert-{offset}")]) == []
                acknowledged += [f"stream-{offset}", f"insert-{offset}"]
            process.send_signal(signal.SIGKILL)
            process.wait()
    with serving(path) as (service, _):
        client, writer = rest_client(service), write_client(service)
        assert client.get_table(table).schema == table.schema
        assert [row["event_id"] for row in client.list_rows(table)] == acknowledged
        with Appends(writer, made.name) as appends:
            again = appends.append([proto_row("stream-19")], 19)
            assert again.error.code == code_pb2.ALREADY_EXISTS
            assert appends.append([proto_row("stream-20")], 20).append_result.offset == 20
        assert writer.finalize_write_stream(name=made.name).row_count == 21
    tables = Tables(path)
    assert tables.count(PROJECT, table.dataset_id, table.table_id) == 41
    tables.close()
