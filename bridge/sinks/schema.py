"""The table's columns, as the bridge writes them."""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    name: str
    type: str
    mode: str


COLUMNS = (
    Column("event_id", "STRING", "REQUIRED"),
    Column("site_code", "STRING", "REQUIRED"),
    Column("pi_tag", "STRING", "REQUIRED"),
    Column("sensor_id", "STRING", "REQUIRED"),
    Column("event_time", "TIMESTAMP", "REQUIRED"),
    Column("value", "FLOAT", "REQUIRED"),
    Column("received_at", "TIMESTAMP", "REQUIRED"),
    Column("mqtt_topic", "STRING", "REQUIRED"),
    Column("attributes", "JSON", "NULLABLE"),
)
PARTITION_COLUMN = "event_time"
CLUSTER_COLUMNS = ("site_code", "pi_tag")
_SAME = {"FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "INT64": "INTEGER", "STRUCT": "RECORD"}


def problems(found: list[Column]) -> list[str]:
    """What keeps the bridge from writing a table with these columns, in words. Further columns
    are fine as long as they may be NULL; a required column of ours may be nullable there."""
    known = {column.name.lower(): column for column in found}
    lines = []
    for wanted in COLUMNS:
        there = known.pop(wanted.name, None)
        if there is None:
            lines.append(f"column {wanted.name} is missing: add it as {wanted.type}")
        elif _SAME.get(there.type, there.type) != wanted.type:
            lines.append(f"column {wanted.name} is {there.type}, but has to be {wanted.type}")
        elif there.mode == "REPEATED" or (there.mode == "REQUIRED") > (wanted.mode == "REQUIRED"):
            lines.append(f"column {wanted.name} is {there.mode}, but has to be {wanted.mode}")
    lines += [
        f"column {column.name} is REQUIRED, and the bridge does not write it: make it NULLABLE"
        for column in known.values()
        if column.mode == "REQUIRED"
    ]
    return lines
