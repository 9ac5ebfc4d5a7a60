"""What the contract tests share.

The BigQuery contract runs against the local services, or, for the tests that need no access to
the inside, against what BQ_CONTRACT_REST (http://host:port) and BQ_CONTRACT_GRPC (host:port) name.
The Pub/Sub contract runs against the local server and, where it is, Google's own emulator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from localgcp.bigquery_rest import BigQueryRestServer
from localgcp.bigquery_write import StorageWriteServer
from localgcp.faults import Fault, Faults
from localgcp.pubsub import PubSubServer
from localgcp.tables import Tables
from tests.support.bigquery import Service, new_table, rest_client, write_client
from tests.support.pubsub import LocalPubSub, PubSub, emulator


@dataclass(frozen=True)
class Inside:
    """The local services from within."""

    tables: Tables
    faults: Faults

    def fail(self, call: str, kind: Any = "status", **rule: Any) -> int:
        return self.faults.add(Fault(call, kind, **rule))


@dataclass(frozen=True)
class Running:
    service: Service
    inside: Inside | None


@pytest.fixture
def bigquery_running() -> Iterator[Running]:
    elsewhere = os.environ.get("BQ_CONTRACT_REST"), os.environ.get("BQ_CONTRACT_GRPC")
    if elsewhere[0] and elsewhere[1]:
        yield Running(Service(elsewhere[0], elsewhere[1]), None)
        return
    inside = Inside(Tables(), Faults())
    with (
        BigQueryRestServer(inside.tables, inside.faults) as rest,
        StorageWriteServer(inside.tables, inside.faults) as storage,
    ):
        service = Service(f"http://127.0.0.1:{rest.port}", f"127.0.0.1:{storage.port}")
        yield Running(service, inside)
        inside.faults.clear()
    inside.tables.close()


@pytest.fixture
def bigquery_service(bigquery_running: Running) -> Service:
    return bigquery_running.service


@pytest.fixture
def bigquery_inside(bigquery_running: Running) -> Inside:
    if bigquery_running.inside is None:
        pytest.skip("needs access to the inside of the service")
    return bigquery_running.inside


@pytest.fixture
def bigquery_rest(bigquery_service: Service) -> Iterator[Any]:
    client = rest_client(bigquery_service)
    yield client
    client.close()


@pytest.fixture
def bigquery_write(bigquery_service: Service) -> Iterator[Any]:
    client = write_client(bigquery_service)
    yield client
    client.transport.grpc_channel.close()


@pytest.fixture
def bigquery_table(bigquery_rest: Any) -> Any:
    """A table of the columns in `tests.support.bigquery`."""
    return new_table(bigquery_rest)


@pytest.fixture(scope="session")
def pubsub_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Google's own emulator."""
    with emulator(tmp_path_factory.mktemp("pubsub-emulator")) as address:
        if address is None:
            pytest.skip("Google's Pub/Sub emulator is not here: it needs Java and the gcloud CLI")
        yield address


@pytest.fixture
def pubsub_local() -> Iterator[LocalPubSub]:
    with LocalPubSub() as local:
        yield local


@pytest.fixture(params=["local", "emulator"])
def pubsub_service(request: pytest.FixtureRequest) -> Iterator[PubSub]:
    """Every implementation of Pub/Sub."""
    if request.param == "emulator":
        with PubSub(request.getfixturevalue("pubsub_emulator")) as service:
            yield service
    else:
        with PubSubServer(Faults()) as server, PubSub(f"127.0.0.1:{server.port}") as service:
            yield service
