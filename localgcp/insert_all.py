"""`tabledata.insertAll`: de-duplication by insertId, and the errors inside an HTTP 200."""

from __future__ import annotations

import time
from typing import Any

from localgcp.schema import Misfit, from_json
from localgcp.tables import DEDUPE_SECONDS, Table, Tables

MAX_ROWS = 50_000
MAX_BODY = 10_000_000


class BadRequest(Exception):
    """The request as a whole is refused with HTTP 400."""


def insert_all(tables: Tables, table: Table, body: dict[str, Any]) -> dict[str, Any]:
    """Answers the response document. One bad row keeps its neighbours out unless
    `skipInvalidRows`; a row with an insertId of the last minute is answered as inserted."""
    rows = body.get("rows", [])
    if not rows:
        raise BadRequest("No rows present in the request.")
    if len(rows) > MAX_ROWS:
        raise BadRequest(f"too many rows present in the request, limit: {MAX_ROWS}")
    unknown = bool(body.get("ignoreUnknownValues"))
    good, errors = [], []
    for index, item in enumerate(rows):
        try:
            good.append((index, _stored(table, item.get("json", {}), unknown)))
        except Misfit as error:
            errors.append(_error(index, "invalid", str(error)))
    if errors and not body.get("skipInvalidRows"):
        errors += [_error(index, "stopped", "") for index, _ in good]
        good = []
    _insert(tables, table, rows, good)
    answer: dict[str, Any] = {"kind": "bigquery#tableDataInsertAllResponse"}
    if errors:
        answer["insertErrors"] = sorted(errors, key=lambda error: error["index"])
    return answer


def _insert(
    tables: Tables, table: Table, rows: list[dict[str, Any]], good: list[tuple[int, Any]]
) -> None:
    with tables.lock:
        _forget_old(table)
        fresh = []
        for index, row in good:
            insert_id = rows[index].get("insertId")
            if insert_id is None:
                fresh.append(row)
            elif not tables.known_insert(table, insert_id):
                fresh.append(row)
                table.insert_ids[insert_id] = time.monotonic()
        tables.append(table, fresh)


def _forget_old(table: Table) -> None:
    now = time.monotonic()
    # In the order of their coming: the first young one ends it.
    for insert_id, came in list(table.insert_ids.items()):
        if now - came < DEDUPE_SECONDS:
            return
        del table.insert_ids[insert_id]


def _stored(table: Table, row: dict[str, Any], ignore_unknown: bool) -> tuple[Any, ...]:
    known = {field.name.lower() for field in table.fields}
    given = {name.lower(): value for name, value in row.items()}
    extra = [name for name in row if name.lower() not in known]
    if extra and not ignore_unknown:
        raise Misfit(f"no such field: {extra[0]}.")
    stored = tuple(from_json(field, given.get(field.name.lower())) for field in table.fields)
    if table.refused:
        named = {f.name: value for f, value in zip(table.fields, stored, strict=True)}
        if why := table.refuses(named):
            raise Misfit(why)
    return stored


def _error(index: int, reason: str, message: str) -> dict[str, Any]:
    item = {"reason": reason, "location": "", "debugInfo": "", "message": message}
    return {"index": index, "errors": [item]}
