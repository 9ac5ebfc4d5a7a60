"""What the contract tests share.

The BigQuery contract runs against the local services, or, for the tests that need no access to
the inside, against what BQ_CONTRACT_REST (http://host:port) and BQ_CONTRACT_GRPC (host:port) name.
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
from localgcp.tables import Tables
from tests.support.bigquery import Service, new_table, rest_client, write_client


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
