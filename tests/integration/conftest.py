"""Local Google services of a module, and a place of its own in them for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localgcp.server import LocalServices
from tests.contract.sink_harness import Place


@pytest.fixture(scope="module")
def services() -> Iterator[LocalServices]:
    with LocalServices() as started:
        yield started


@pytest.fixture
def place(services: LocalServices) -> Iterator[Place]:
    yield Place(services)
    services.faults.clear()
