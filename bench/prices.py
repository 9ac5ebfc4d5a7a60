"""What Google bills for, by its published price lists (US multi-region, list price, without what is
free each month). Prices change: look at the lists before relying on an amount.

- Pub/Sub (cloud.google.com/pubsub/pricing): publishing costs by the bytes of the messages: data,
  names and values of attributes, 20 bytes for the time, the message id; at least 1,000 a request.
  What each subscription reads costs as much again.
- BigQuery (cloud.google.com/bigquery/pricing, data ingestion): streaming inserts by the size of the
  rows, at least 1 KB each; the Storage Write API by the size of the rows. A row's size follows from
  its types: a string has 2 bytes and those of its text, a time and a double 8 each, JSON its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

AS_OF = "2026-11-21"
PUBSUB_USD_A_TIB = 40.0
STREAMING_USD_A_GIB = 0.01 / 200 * 1024  # $0.01 for 200 MB
STORAGE_WRITE_USD_A_GIB = 0.025
GIB, TIB = 1024**3, 1024**4
LEAST_REQUEST_BYTES = 1_000
LEAST_ROW_BYTES = 1_024
TIMESTAMP_BYTES = 20
MESSAGE_ID_BYTES = 17  # as the service makes them


def message_bytes(message: Mapping[str, Any]) -> int:
    """Of one message as the local service shows it."""
    attributes = message["attributes"].items()
    named = sum(len(name.encode()) + len(value.encode()) for name, value in attributes)
    return len(message["data"].encode()) + named + TIMESTAMP_BYTES + MESSAGE_ID_BYTES


def published_bytes(messages: int, bytes_a_message: float, requests: int) -> float:
    """What is billed for publishing, taking all requests as equally large."""
    return requests * max(LEAST_REQUEST_BYTES, messages * bytes_a_message / requests)


def row_bytes(row: Mapping[str, Any]) -> int:
    """Of one row as the local service shows it: numbers are times and doubles."""
    size = 0
    for name, value in row.items():
        if isinstance(value, str):
            size += len(value.encode()) + (0 if name == "attributes" else 2)
        elif value is not None:
            size += 8
    return size


def streamed_row_bytes(size: float) -> float:
    return max(LEAST_ROW_BYTES, size)
