"""A full batch fits into a request of its service, whatever its characters."""

from __future__ import annotations

import json

import pytest

from bridge.policy import fitting
from bridge.reading import Entry
from bridge.sinks import bigquery_insert
from tests.support.readings import accepted, members

INSERT_ALL_BYTES = 10_000_000  # cloud.google.com/bigquery/quotas#streaming_inserts


@pytest.mark.parametrize("character", ["x", '"', "\\", "\x7f", "é", "水", "😀"])
def test_a_full_insert_all_batch_fits_a_request(character: str) -> None:
    """Google's client escapes what is not ASCII."""
    note = character * (60_000 // len(json.dumps(character, ensure_ascii=False).encode()))
    payload = json.dumps(members(note=note), ensure_ascii=False)
    entries = [Entry(seq, accepted(payload)) for seq in range(200)]
    count = fitting(entries, bigquery_insert.POLICY)
    rows = [{"json": bigquery_insert._row(entry.reading)} for entry in entries[:count]]
    assert count > 10
    assert len(json.dumps({"rows": rows})) <= INSERT_ALL_BYTES
