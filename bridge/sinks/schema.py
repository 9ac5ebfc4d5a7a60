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


class Difference(NamedTuple):
    """One thing that keeps the bridge from writing a table. `change`: the rest of an ALTER TABLE
    that mends it; empty where nothing does."""

    problem: str
    change: str = ""


def problems(found: list[Column]) -> list[str]:
    """The differences in words."""
    return [difference.problem for difference in differences(found)]


def differences(found: list[Column]) -> list[Difference]:
    """What keeps the bridge from writing a table with these columns. Further columns are fine as
    long as they may be NULL; a required column of ours may be nullable there."""
    known = {column.name.lower(): column for column in found}
    lines = []
    for wanted in COLUMNS:
        there = known.pop(wanted.name, None)
        if there is None:
            missing = f"column {wanted.name} is missing: add it as {wanted.type}"
            lines.append(Difference(missing, f"ADD COLUMN {wanted.name} {_sql(wanted.type)}"))
        elif _SAME.get(there.type, there.type) != wanted.type:
            wrong = f"column {wanted.name} is {there.type}, but has to be {wanted.type}"
            lines.append(Difference(wrong))
        elif there.mode == "REPEATED" or (there.mode == "REQUIRED") > (wanted.mode == "REQUIRED"):
            wrong = f"column {wanted.name} is {there.mode}, but has to be {wanted.mode}"
            nullable = there.mode == "REQUIRED"
            lines.append(Difference(wrong, _optional(wanted.name) if nullable else ""))
    lines += [
        Difference(
            f"column {column.name} is REQUIRED, and the bridge does not write it: make it NULLABLE",
            _optional(column.name),
        )
        for column in known.values()
        if column.mode == "REQUIRED"
    ]
    return lines


def _optional(column: str) -> str:
    return f"ALTER COLUMN {column} DROP NOT NULL"


def _sql(type_: str) -> str:
    return "FLOAT64" if type_ == "FLOAT" else type_
