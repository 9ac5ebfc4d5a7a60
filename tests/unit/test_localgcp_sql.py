"""BigQuery's SQL over the local tables: what is computed, what is typed, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from localgcp import sql
from localgcp.tables import NotFound, Tables
from tests.support.bigquery import micros

COLUMNS = {
    "fields": [
        {"name": "Event_Id", "type": "STRING", "mode": "REQUIRED"},
        {"name": "event_time", "type": "TIMESTAMP", "mode": "REQUIRED"},
        {"name": "value", "type": "FLOAT64"},
        {"name": "number", "type": "INT64"},
        {"name": "good", "type": "BOOL"},
        {"name": "attributes", "type": "JSON"},
        {"name": "day", "type": "DATE"},
        {"name": "raw", "type": "BYTES"},
    ]
}
T = "`p.d.t`"
FIRST, SECOND, THIRD = (
    micros("2026-11-20T23:59:59.999999+00:00"),
    micros("2026-11-21T03:04:05.250000+00:00"),
    micros("2026-11-22T00:00:00+00:00"),
)
IDS = ("0" * 15 + "5" + "f" * 16, "0" * 15 + "3" + "e" * 16, "7" + "f" * 31)


@pytest.fixture
def tables() -> Iterator[Tables]:
    tables = Tables()
    tables.create_dataset("p.d", {})
    tables.create_table("p.d.t", {"schema": COLUMNS})
    rows = [
        (IDS[0], FIRST, 1.5, 10, 1, '{"unit": "bar", "n": 1}', "2026-11-20", b"\x01\x02"),
        (IDS[1], SECOND, 2.5, 20, 0, None, "2026-11-21", None),
        (IDS[2], THIRD, None, None, None, None, None, None),
    ]
    tables.append(tables.table("p.d.t"), rows)
    yield tables
    tables.close()


def ask(tables: Tables, query: str, **parameters: tuple[str, Any]) -> list[tuple[Any, ...]]:
    return sql.run(tables, "p", query, [_parameter(*item) for item in parameters.items()])[1]


def one(tables: Tables, expression: str, row: str = IDS[1]) -> Any:
    """An expression's value for one row."""
    query = f"SELECT {expression} FROM {T} WHERE event_id = '{row}'"
    [[value]] = ask(tables, query)
    return value


def ids(tables: Tables, condition: str, **parameters: tuple[str, Any]) -> list[int]:
    """Which rows fit, by their number."""
    query = f"SELECT event_id FROM {T} WHERE {condition} ORDER BY event_time"
    return [IDS.index(row[0]) for row in ask(tables, query, **parameters)]


def columns(tables: Tables, query: str) -> list[tuple[str, str]]:
    return [(field.name, field.type) for field in sql.run(tables, "p", query, [])[0]]


def _parameter(name: str, typed: tuple[str, Any]) -> dict[str, Any]:
    kind, value = typed
    wanted: tuple[dict[str, Any], dict[str, Any]] = ({"type": kind}, {"value": value})
    if isinstance(value, list):
        wanted = (
            {"type": "ARRAY", "arrayType": {"type": kind}},
            {"arrayValues": [{"value": item} for item in value]},
        )
    return {"name": name, "parameterType": wanted[0], "parameterValue": wanted[1]}


# --- filters --------------------------------------------------------------------------------------


def test_ids_are_found_by_an_array_parameter(tables: Tables) -> None:
    assert ids(tables, "event_id IN UNNEST(@ids)", ids=("STRING", [IDS[2], IDS[0], "x"])) == [0, 2]
    assert ids(tables, "event_id IN UNNEST(@ids)", ids=("STRING", [])) == []
    assert ids(tables, "event_id NOT IN UNNEST(@ids)", ids=("STRING", [IDS[0]])) == [1, 2]


def test_an_array_parameter_can_hold_numbers_and_times(tables: Tables) -> None:
    assert ids(tables, "number IN UNNEST(@n)", n=("INT64", ["10", "11"])) == [0]
    times = ("TIMESTAMP", ["2026-11-21 03:04:05.25+00"])
    assert ids(tables, "event_time IN UNNEST(@t)", t=times) == [1]


def test_an_array_literal_is_taken_for_in_unnest(tables: Tables) -> None:
    assert ids(tables, "number IN UNNEST([10, 20])") == [0, 1]
    assert ids(tables, "number IN (10, 30)") == [0]


def test_times_are_compared_with_parameters_literals_and_functions(tables: Tables) -> None:
    last = ("TIMESTAMP", "2026-11-21 03:04:05.250000+00:00")
    assert ids(tables, "event_time BETWEEN '2026-11-21' AND @last", last=last) == [1]
    assert ids(tables, "event_time >= TIMESTAMP('2026-11-21 03:04:05.25+00')") == [1, 2]
    assert ids(tables, "event_time < TIMESTAMP '2026-11-21 00:00:00'") == [0]
    assert ids(tables, "event_time > '2026-11-22T00:59:59+01:00'") == [2]
    assert ids(tables, "event_time > TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 DAY)") == [
        number
        for number, moment in enumerate((FIRST, SECOND, THIRD))
        if moment > sql_now(tables) - 86_400_000_000
    ]


def sql_now(tables: Tables) -> int:
    [[now]] = ask(tables, "SELECT UNIX_MICROS(CURRENT_TIMESTAMP())")
    return int(now)


def test_days_are_compared_with_literals_and_with_each_other(tables: Tables) -> None:
    assert ids(tables, "DATE(event_time) = '2026-11-21'") == [1]
    assert ids(tables, "day = DATE(event_time)") == [0, 1]
    assert ids(tables, "day > DATE '2026-11-20'") == [1]
    assert ids(tables, "day = @day", day=("DATE", "2026-11-20")) == [0]


def test_names_of_columns_are_found_in_any_case(tables: Tables) -> None:
    assert ask(tables, f"SELECT EVENT_ID FROM {T} AS x WHERE X.Number = 10") == [(IDS[0],)]


def test_a_table_is_found_by_each_way_of_writing_it(tables: Tables) -> None:
    for name in ("`p.d.t`", "p.d.t", "`p`.`d`.`t`", "d.t", "`d.t`"):
        assert ask(tables, f"SELECT COUNT(*) FROM {name}") == [(3,)], name


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("DATE(event_time)", "2026-11-21"),
        ("UNIX_MICROS(event_time)", SECOND),
        ("UNIX_MILLIS(event_time)", SECOND // 1000),
        ("UNIX_SECONDS(event_time)", SECOND // 1_000_000),
        ("TIMESTAMP_MICROS(7)", 7),
        ("TIMESTAMP_MILLIS(7)", 7_000),
        ("TIMESTAMP_SECONDS(7 + 1)", 8_000_000),
        ("TIMESTAMP_TRUNC(event_time, HOUR)", micros("2026-11-21T03:00:00+00:00")),
        ("TIMESTAMP_ADD(event_time, INTERVAL 2 SECOND)", SECOND + 2_000_000),
        ("TIMESTAMP_SUB(event_time, INTERVAL number MINUTE)", SECOND - 20 * 60_000_000),
        ("TIMESTAMP_DIFF(event_time, TIMESTAMP '2026-11-21 03:00:00', SECOND)", 245),
        ("TIMESTAMP_DIFF(TIMESTAMP '2026-11-21 03:00:00', event_time, SECOND)", -245),
        ("EXTRACT(MINUTE FROM event_time)", 4),
        ("EXTRACT(MILLISECOND FROM event_time)", 250),
        ("EXTRACT(DATE FROM event_time)", "2026-11-21"),
        ("FORMAT_TIMESTAMP('%F %H', event_time)", "2026-11-21 03"),
        ("CAST(event_time AS STRING)", "2026-11-21 03:04:05.25+00"),
        ("CAST('0x1f' AS INT64)", 31),
        ("CAST('-12' AS INT64)", -12),
        ("CAST(2.5 AS INT64)", 3),
        ("CAST(-2.5 AS INT64)", -3),
        ("CAST('1.25' AS FLOAT64)", 1.25),
        ("CAST(2.0 AS STRING)", "2"),
        ("CAST(good AS STRING)", "false"),
        ("CAST('true' AS BOOL)", 1),
        ("SAFE_CAST('x' AS INT64)", None),
        ("SAFE_CAST('2026-11-21' AS TIMESTAMP)", micros("2026-11-21T00:00:00+00:00")),
        ("CAST(raw AS STRING)", None),
        ("number / 8", 2.5),
        ("SAFE_DIVIDE(number, 0)", None),
        ("MOD(number, 7)", 6),
        ("IF(good, 'yes', 'no')", "no"),
        ("IFNULL(raw, FROM_HEX('78'))", b"x"),
        ("CONCAT('0x', SUBSTR(event_id, 1, 16))", "0x0000000000000003"),
        ("TO_HEX(FROM_HEX(event_id))", IDS[1]),
        ("TO_HEX(FROM_HEX('abc'))", "0abc"),
        ("TO_HEX(MD5('a'))", "0cc175b9c0f1b6a831c399e269772661"),
        ("SUBSTR(TO_HEX(SHA256('a')), 1, 8)", "ca978112"),
        ("STARTS_WITH(event_id, '000')", 1),
        ("LENGTH(event_id)", 32),
    ],
)
def test_an_expression_has_bigquerys_value(tables: Tables, expression: str, value: Any) -> None:
    assert one(tables, expression) == value


def test_a_moment_before_1970_is_on_its_own_day(tables: Tables) -> None:
    assert one(tables, "DATE(TIMESTAMP_MICROS(-1))") == "1969-12-31"
    assert one(tables, "UNIX_SECONDS(TIMESTAMP_MICROS(-1))") == -1


def test_functions_of_nothing_are_nothing(tables: Tables) -> None:
    for expression in (
        "TO_HEX(raw)",
        "DATE(TIMESTAMP_MICROS(number))",
        "TIMESTAMP_TRUNC(TIMESTAMP_MICROS(number), HOUR)",
        "EXTRACT(HOUR FROM TIMESTAMP_MICROS(number))",
        "CAST(number AS STRING)",
    ):
        assert one(tables, expression, IDS[2]) is None, expression


# --- aggregates -----------------------------------------------------------------------------------


def test_rows_are_counted_grouped_ordered_and_limited(tables: Tables) -> None:
    query = (
        f"SELECT DATE(event_time) AS d, COUNT(*) AS n, COUNT(number) AS m FROM {T} "
        "GROUP BY d ORDER BY d DESC LIMIT 2"
    )
    assert ask(tables, query) == [("2026-11-22", 1, 0), ("2026-11-21", 1, 1)]


def test_aggregates_have_bigquerys_values(tables: Tables) -> None:
    query = (
        "SELECT COUNT(DISTINCT number), MIN(event_time), MAX(value), AVG(value), SUM(number), "
        f"COUNTIF(good), APPROX_COUNT_DISTINCT(event_id) FROM {T}"
    )
    assert ask(tables, query) == [(2, FIRST, 2.5, 2.0, 30, 1, 3)]


def test_a_checksum_of_hexadecimal_ids_can_be_computed(tables: Tables) -> None:
    low = "BIT_XOR(CAST(CONCAT('0x', SUBSTR(event_id, 2, 15)) AS INT64))"
    expected = 0
    for id_ in IDS:
        expected ^= int(id_[1:16], 16)
    assert ask(tables, f"SELECT {low} FROM {T}") == [(expected,)]


def test_the_words_of_ids_are_summed_by_day_and_what_is_no_id_is_left_out(tables: Tables) -> None:
    table = tables.table("p.d.t")
    tables.append(table, [("zz" * 16, SECOND, None, None, None, None, None, None)])
    word = "SUM(SAFE_CAST(CONCAT('0x', SUBSTR(event_id, {})) AS INT64))"
    query = (
        "SELECT DATE(event_time) AS day, COUNT(*), COUNT(DISTINCT event_id), "
        f"{word.format('1, 8')}, {word.format('25')} FROM {T} "
        "WHERE event_id NOT IN UNNEST(@without) "
        "GROUP BY day ORDER BY day"
    )
    assert ask(tables, query, without=("STRING", [IDS[2]])) == [
        ("2026-11-20", 1, 1, 0, 2**32 - 1),
        ("2026-11-21", 2, 2, 0, 0xEEEEEEEE),
    ]


def test_groups_are_chosen_by_what_they_hold(tables: Tables) -> None:
    row = (IDS[0], FIRST, None, None, None, None, None, None)
    tables.append(tables.table("p.d.t"), [row])
    query = f"SELECT event_id FROM {T} GROUP BY event_id HAVING COUNT(*) > 1 LIMIT 5"
    assert ask(tables, query) == [(IDS[0],)]


def test_bits_are_folded_over_the_values_that_there_are(tables: Tables) -> None:
    query = f"SELECT BIT_XOR(number), BIT_AND(number), BIT_OR(number) FROM {T}"
    assert ask(tables, query) == [(30, 0, 30)]
    assert ask(tables, query + " WHERE number IS NULL") == [(None, None, None)]


def test_an_id_beyond_int64_is_an_error_as_in_bigquery(tables: Tables) -> None:
    with pytest.raises(sql.InvalidQuery, match="Bad INTEGER value: 0xffffffffffffffff"):
        one(tables, "CAST(CONCAT('0x', SUBSTR(event_id, 17, 16)) AS INT64)", IDS[0])


def test_common_table_expressions_joins_and_unions_work(tables: Tables) -> None:
    query = (
        f"WITH doubled AS (SELECT event_id, number * 2 AS n FROM {T} WHERE number IS NOT NULL) "
        f"SELECT t.number, doubled.n FROM {T} AS t JOIN doubled USING (event_id) "
        "UNION ALL SELECT 1, 2 ORDER BY 1"
    )
    assert ask(tables, query) == [(1, 2), (10, 20), (20, 40)]


# --- columns --------------------------------------------------------------------------------------


def test_columns_are_named_and_typed_as_in_bigquery(tables: Tables) -> None:
    query = (
        f"SELECT event_id, COUNT(*), MIN(event_time) AS First, MAX(value), DATE(event_time) "
        f"FROM {T} GROUP BY event_id, event_time"
    )
    assert columns(tables, query) == [
        ("event_id", "STRING"),
        ("f0_", "INTEGER"),
        ("First", "TIMESTAMP"),
        ("f1_", "FLOAT"),
        ("f2_", "DATE"),
    ]


def test_a_star_stands_for_all_columns(tables: Tables) -> None:
    kinds = ["STRING", "TIMESTAMP", "FLOAT", "INTEGER", "BOOLEAN", "JSON", "DATE", "BYTES"]
    found = columns(tables, f"SELECT * FROM {T}")
    assert [kind for _, kind in found] == kinds
    assert found[0][0].lower() == "event_id"


def test_a_parameter_alone_is_typed_by_its_value(tables: Tables) -> None:
    fields, rows = sql.run(tables, "p", "SELECT @n AS n", [_parameter("n", ("INT64", "5"))])
    assert (fields[0].type, rows) == ("INTEGER", [(5,)])


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELEC 1", "Syntax error"),
        ("DELETE FROM `p.d.t` WHERE TRUE", "one SELECT"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("SELECT elevation FROM `p.d.t`", "elevation"),
        ("SELECT event_id FROM t", "must be qualified with a dataset"),
        ("SELECT event_id FROM `p.d.t` WHERE event_id = @id", "'id' not found"),
        ("SELECT event_id FROM `p.d.t` WHERE event_id = ?", "positional"),
        ("SELECT event_id FROM `p.d.t` WHERE event_time = day", "No matching signature"),
        ("SELECT event_id FROM `p.d.t` WHERE event_time > number", "No matching signature"),
        ("SELECT event_id FROM `p.d.t` WHERE event_id = 5", "No matching signature"),
        ("SELECT event_id FROM `p.d.t` WHERE event_time = event_id", "No matching signature"),
        ("SELECT event_id FROM `p.d.t` WHERE event_time = 'soon'", "Bad TIMESTAMP value: soon"),
        ("SELECT FARM_FINGERPRINT(event_id) FROM `p.d.t`", "(?i)farm_fingerprint"),
        ("SELECT DATE(event_time, 'Europe/Paris') FROM `p.d.t`", "in UTC"),
        ("SELECT TIMESTAMP_TRUNC(event_time, YEAR) FROM `p.d.t`", "YEAR is not served"),
        ("SELECT EXTRACT(DAYOFWEEK FROM event_time) FROM `p.d.t`", "is served for YEAR"),
        ("SELECT CAST(value AS NUMERIC) FROM `p.d.t`", "NUMERIC"),
        ("SELECT x FROM UNNEST([1, 2]) AS x", "UNNEST"),
        ("SELECT CAST('x' AS INT64)", "Bad INTEGER value: x"),
    ],
)
def test_what_is_not_served_is_refused_in_words(tables: Tables, query: str, words: str) -> None:
    with pytest.raises(sql.InvalidQuery, match=words):
        ask(tables, query)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("TIMESTAMP", "soon"), ("INT64", "1.5"), ("STRUCT", "x"), ("BYTES", ["AA=="])],
)
def test_a_parameter_that_does_not_fit_its_type_is_refused(
    tables: Tables, kind: str, value: Any
) -> None:
    with pytest.raises(sql.InvalidQuery):
        ask(tables, "SELECT @x", x=(kind, value))


def test_a_parameter_of_another_type_than_the_column_is_refused(tables: Tables) -> None:
    with pytest.raises(sql.InvalidQuery, match="No matching signature"):
        ids(tables, "event_time = @t", t=("STRING", "2026-11-21"))


def test_an_unknown_table_is_not_found(tables: Tables) -> None:
    with pytest.raises(NotFound):
        ask(tables, "SELECT 1 FROM `p.d.other`")
