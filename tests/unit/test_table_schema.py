"""Which tables the bridge can write, by their columns."""

from __future__ import annotations

import pytest

from bridge.sinks.schema import CLUSTER_COLUMNS, COLUMNS, PARTITION_COLUMN, Column, problems


def changed(name: str, /, **changes: str) -> list[Column]:
    """The bridge's own columns, one of them changed."""
    return [c._replace(**changes) if c.name == name else c for c in COLUMNS]


def without(name: str) -> list[Column]:
    return [column for column in COLUMNS if column.name != name]


def test_the_columns_are_the_published_ones() -> None:
    assert [tuple(column) for column in COLUMNS] == [
        ("event_id", "STRING", "REQUIRED"),
        ("site_code", "STRING", "REQUIRED"),
        ("pi_tag", "STRING", "REQUIRED"),
        ("sensor_id", "STRING", "REQUIRED"),
        ("event_time", "TIMESTAMP", "REQUIRED"),
        ("value", "FLOAT", "REQUIRED"),
        ("received_at", "TIMESTAMP", "REQUIRED"),
        ("mqtt_topic", "STRING", "REQUIRED"),
        ("attributes", "JSON", "NULLABLE"),
    ]
    assert PARTITION_COLUMN == "event_time"
    assert CLUSTER_COLUMNS == ("site_code", "pi_tag")


def test_a_table_with_these_columns_fits_in_any_order() -> None:
    assert problems(list(COLUMNS)) == []
    assert problems(list(reversed(COLUMNS))) == []


def test_a_name_in_another_case_is_the_same_column() -> None:
    assert problems(changed("event_id", name="EVENT_ID")) == []


def test_a_type_by_its_sql_name_is_the_same_type() -> None:
    assert problems(changed("value", type="FLOAT64")) == []


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.name))
def test_each_column_is_missed_with_the_type_to_add_it_with(column: Column) -> None:
    wanted = f"column {column.name} is missing: add it as {column.type}"
    assert problems(without(column.name)) == [wanted]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.name))
def test_another_type_of_each_column_is_named_with_both_types(column: Column) -> None:
    wanted = f"column {column.name} is BYTES, but has to be {column.type}"
    assert problems(changed(column.name, type="BYTES")) == [wanted]


def test_a_required_column_may_be_nullable_in_the_table() -> None:
    assert problems([column._replace(mode="NULLABLE") for column in COLUMNS]) == []


def test_attributes_may_not_be_required_for_most_readings_have_none() -> None:
    wanted = "column attributes is REQUIRED, but has to be NULLABLE"
    assert problems(changed("attributes", mode="REQUIRED")) == [wanted]


def test_a_repeated_column_does_not_fit() -> None:
    assert problems(changed("value", mode="REPEATED")) == [
        "column value is REPEATED, but has to be REQUIRED"
    ]


@pytest.mark.parametrize("mode", ["NULLABLE", "REPEATED"])
def test_a_further_column_may_be_left_empty(mode: str) -> None:
    assert problems([*COLUMNS, Column("comment", "STRING", mode)]) == []


def test_a_further_required_column_keeps_every_row_out() -> None:
    assert problems([*COLUMNS, Column("batch", "STRING", "REQUIRED")]) == [
        "column batch is REQUIRED, and the bridge does not write it: make it NULLABLE"
    ]


def test_all_problems_are_said_at_once() -> None:
    table = [*changed("value", type="STRING")[1:], Column("batch", "STRING", "REQUIRED")]
    assert [line.split()[1] for line in problems(table)] == ["event_id", "value", "batch"]
