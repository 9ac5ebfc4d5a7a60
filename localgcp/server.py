"""All local services in one process."""

from __future__ import annotations

from pathlib import Path

from localgcp.bigquery_rest import BigQueryRestServer
from localgcp.bigquery_write import StorageWriteServer
from localgcp.control import ControlServer
from localgcp.faults import Faults
from localgcp.pubsub import PubSubServer
from localgcp.tables import Tables


class LocalServices:
    """Pub/Sub, BigQuery and the control port. Port 0 is any free one. With a folder, topics,
    messages, tables and rows are kept there. Use as a context manager, or start and stop."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        pubsub_port: int = 0,
        bigquery_port: int = 0,
        storage_port: int = 0,
        control_port: int = 0,
        data_dir: Path | None = None,
    ) -> None:
        if data_dir is not None:
            data_dir.mkdir(parents=True, exist_ok=True)
        self._host = host
        self.faults = Faults()
        self.tables = Tables(None if data_dir is None else data_dir / "bigquery.db")
        self.pubsub = PubSubServer(self.faults, host, pubsub_port, data_dir)
        self.bigquery = BigQueryRestServer(self.tables, self.faults, host, bigquery_port)
        self.storage = StorageWriteServer(self.tables, self.faults, host, storage_port)
        self._control = ControlServer(self.faults, self.pubsub, self.tables, host, control_port)

    @property
    def control(self) -> str:
        """The control port's URL."""
        return f"http://{self._host}:{self._control.port}"

    def environment(self) -> dict[str, str]:
        """The variables that point Google's clients, and the bridge, at these services."""
        return {
            "PUBSUB_EMULATOR_HOST": f"{self._host}:{self.pubsub.port}",
            "BIGQUERY_EMULATOR_HOST": f"http://{self._host}:{self.bigquery.port}",
            "BIGQUERY_STORAGE_EMULATOR_HOST": f"{self._host}:{self.storage.port}",
        }

    def start(self) -> None:
        for server in (self.pubsub, self.bigquery, self.storage, self._control):
            server.start()

    def stop(self) -> None:
        self.faults.clear()
        for server in (self._control, self.storage, self.bigquery, self.pubsub):
            server.stop()
        self.tables.close()

    def __enter__(self) -> LocalServices:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
