"""BigQuery's SQL over the local tables: a SELECT is transpiled for SQLite.

Enough for what is asked of a table of readings (filters, counts, groups, parameters); what
SQLite does not know is refused in its words.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import sqlglot
from sqlglot import exp

from localgcp.schema import Field, from_json
from localgcp.tables import Tables


class InvalidQuery(Exception):
    """The statement is not served; the message says why."""


def run(
    tables: Tables, project: str, query: str, parameters: list[dict[str, Any]]
) -> tuple[list[Field], list[tuple[Any, ...]]]:
    """The answer's columns and rows. Raises InvalidQuery, NotFound (a table)."""
    try:
        tree = sqlglot.parse_one(query, dialect="bigquery")
    except sqlglot.errors.ParseError as error:
        raise InvalidQuery(str(error)) from None
    if not isinstance(tree, exp.Select | exp.Union):
        raise InvalidQuery("only SELECT is served here")
    known = _name_tables(tables, project, tree)
    tree = tree.transform(_for_sqlite)
    values = {f"p_{item['name']}": _value(item) for item in parameters}
    try:
        names, rows = tables.select(tree.sql(dialect="sqlite"), values)
    except (sqlite3.Error, IndexError) as error:
        raise InvalidQuery(f"{error} in: {tree.sql(dialect='sqlite')}") from None
    return [_column(name, index, rows, known) for index, name in enumerate(names)], rows


def _name_tables(tables: Tables, project: str, tree: exp.Expression) -> dict[str, Field]:
    known: dict[str, Field] = {}
    for node in list(tree.find_all(exp.Table)):
        parts = [part.name for part in node.parts]
        id_ = (
            ".".join(parts) if len(".".join(parts).split(".")) == 3 else ".".join([project, *parts])
        )
        table = tables.table(id_)
        known.update({field.name: field for field in table.fields})
        alias = node.args.get("alias")
        node.replace(exp.Table(this=exp.to_identifier(table.rows), alias=alias))
    return known


def _for_sqlite(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.In) and node.args.get("unnest") is not None:
        inner = node.args["unnest"].expressions[0].transform(_for_sqlite)
        items = sqlglot.parse_one("SELECT value FROM JSON_EACH(x)", dialect="sqlite")
        items.find(exp.Column, bfs=False)
        listing = f"(SELECT value FROM json_each({inner.sql(dialect='sqlite')}))"
        return exp.In(
            this=node.this.transform(_for_sqlite), query=exp.Literal(this=listing, is_string=False)
        )
    if isinstance(node, exp.Parameter):
        return exp.Placeholder(this=f"p_{node.name}")
    if isinstance(node, exp.Date) and len(node.expressions) == 0 and node.this is not None:
        inner = node.this.transform(_for_sqlite).sql(dialect="sqlite")
        return _verbatim(f"strftime('%Y-%m-%d', {inner} / 1000000, 'unixepoch')")
    return node


def _verbatim(text: str) -> exp.Expression:
    """SQLite's own text in the tree: a numeric literal is written as it stands."""
    return exp.Literal(this=text, is_string=False)


def _value(parameter: dict[str, Any]) -> Any:
    kind = parameter["parameterType"]
    value = parameter["parameterValue"]
    if kind["type"] == "ARRAY":
        return json.dumps([item.get("value") for item in value.get("arrayValues", [])])
    raw = value.get("value")
    if raw is None:
        return None
    name = {"FLOAT64": "FLOAT", "INT64": "INTEGER", "BOOL": "BOOLEAN"}.get(
        kind["type"], kind["type"]
    )
    return from_json(Field(parameter["name"], name, "NULLABLE"), raw)


def _column(name: str, index: int, rows: list[tuple[Any, ...]], known: dict[str, Field]) -> Field:
    if name in known:
        return Field(name, known[name].type, "NULLABLE")
    sample = next((row[index] for row in rows if row[index] is not None), None)
    kind = (
        "INTEGER" if isinstance(sample, int) else "FLOAT" if isinstance(sample, float) else "STRING"
    )
    return Field(name, kind, "NULLABLE")
