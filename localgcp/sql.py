"""BigQuery's SQL over the local tables: a SELECT is checked and typed as BigQuery's, then
transpiled for SQLite. Whatever is not served is refused in words."""

from __future__ import annotations

import json
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify

from localgcp.schema import Field, Misfit, canonical_type, from_json
from localgcp.sql_rewrite import Unserved, kind_of, rewrite
from localgcp.tables import QueryError, Table, Tables

Rows = list[tuple[Any, ...]]
_GOOGLE_SQL = {"FLOAT": "FLOAT64", "INTEGER": "INT64", "BOOLEAN": "BOOL"}


class InvalidQuery(Exception):
    """The statement is not served; the message says why."""


def run(
    tables: Tables, project: str, query: str, parameters: list[dict[str, Any]]
) -> tuple[list[Field], Rows]:
    """The answer's columns and rows. Raises InvalidQuery, NotFound (a table)."""
    tree = _parsed(query)
    try:
        with tables.lock:
            return _run(tables, project, tree, parameters)
    except SqlglotError as error:
        raise InvalidQuery(f"not understood: {error}") from None
    except (Unserved, Misfit, QueryError) as error:
        raise InvalidQuery(str(error)) from None


def _run(
    tables: Tables, project: str, tree: Any, parameters: list[dict[str, Any]]
) -> tuple[list[Field], Rows]:
    named = {str(item.get("name") or "").lower(): item for item in parameters}
    _require_parameters(tree, named)
    names = _names(tree)
    schema = _localize(tables, project, tree)
    typed: Any = qualify(tree, schema=schema, dialect="bigquery")
    typed = annotate_types(typed, schema=schema, dialect="bigquery")
    kinds = [kind_of(item) for item in typed.selects]
    names = names or [str(item.alias_or_name) for item in typed.selects]
    local = rewrite(typed, {name: _kind(item) for name, item in named.items()})
    sql = local.sql(dialect="sqlite", unsupported_level=ErrorLevel.RAISE)
    rows = tables.select(sql, {f"p_{name}": _value(item) for name, item in named.items()})
    return _columns(names, kinds, rows), rows


def _parsed(query: str) -> exp.Query:
    try:
        statements = sqlglot.parse(query, dialect="bigquery")
    except SqlglotError as error:
        raise InvalidQuery(f"Syntax error: {error}") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise InvalidQuery("one SELECT statement is served here, and nothing else")
    return statements[0]


# --- tables and names -----------------------------------------------------------------------------


def _localize(tables: Tables, project: str, tree: exp.Expression) -> dict[str, object]:
    """Put SQLite's names of the tables into the tree; answers the schema under these names."""
    defined = {cte.alias for cte in tree.find_all(exp.CTE)}
    schema: dict[str, object] = {}
    for node in list(tree.find_all(exp.Table)):
        path = ".".join(part.name for part in node.parts).split(".")
        if len(path) == 1 and path[0] in defined:
            continue
        table = _table(tables, project, path)
        if not node.alias:
            node.set("alias", exp.TableAlias(this=exp.to_identifier(path[-1], quoted=True)))
        node.set("this", exp.to_identifier(table.rows))
        node.set("db", None)
        node.set("catalog", None)
        schema[table.rows] = {
            field.name.lower(): _GOOGLE_SQL.get(field.type, field.type) for field in table.fields
        }
    return schema


def _table(tables: Tables, project: str, path: list[str]) -> Table:
    if len(path) == 2:
        path = [project, *path]
    if len(path) != 3:
        name = ".".join(path)
        raise InvalidQuery(f'Table "{name}" must be qualified with a dataset (dataset.table)')
    return tables.table(".".join(path))


def _names(tree: Any) -> list[str]:
    """The columns' names as BigQuery gives them; empty with a star, which only the schema
    resolves."""
    names: list[str] = []
    unnamed = 0
    for item in tree.selects:
        if item.is_star and not isinstance(item, exp.Count):
            return []
        name = str(item.alias_or_name) if isinstance(item, exp.Alias | exp.Column) else ""
        if not name:
            name, unnamed = f"f{unnamed}_", unnamed + 1
        names.append(name)
    return names


def _columns(names: list[str], kinds: list[str], rows: Rows) -> list[Field]:
    return [
        Field(name, kind or _sampled(index, rows), "NULLABLE")
        for index, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]


def _sampled(index: int, rows: Rows) -> str:
    sample = next((row[index] for row in rows if row[index] is not None), "")
    return {int: "INTEGER", float: "FLOAT", bytes: "BYTES"}.get(type(sample), "STRING")


# --- parameters -----------------------------------------------------------------------------------


def _require_parameters(tree: exp.Expression, named: dict[str, Any]) -> None:
    if tree.find(exp.Placeholder) is not None or "" in named:
        raise InvalidQuery("positional parameters are not served here: name them (@name)")
    for node in tree.find_all(exp.Parameter):
        if node.name.lower() not in named:
            raise InvalidQuery(f"Query parameter '{node.name}' not found")


def _kind(parameter: dict[str, Any]) -> str:
    kind = parameter["parameterType"]
    return canonical_type(kind["arrayType"]["type"] if kind["type"] == "ARRAY" else kind["type"])


def _value(parameter: dict[str, Any]) -> Any:
    field = Field(str(parameter["name"]), _kind(parameter), "NULLABLE")
    if field.type in ("STRUCT", "NUMERIC", "BIGNUMERIC", "DATETIME", "TIME", "GEOGRAPHY"):
        raise InvalidQuery(f"parameter {field.name}: {field.type} is not served here")
    value = parameter["parameterValue"]
    if parameter["parameterType"]["type"] != "ARRAY":
        return from_json(field, value.get("value"))
    if field.type == "BYTES":
        raise InvalidQuery(f"parameter {field.name}: ARRAY<BYTES> is not served here")
    items = value.get("arrayValues") or []
    return json.dumps([from_json(field, item.get("value")) for item in items])
