"""`tabledata.insertAll`: de-duplication by insertId, and the errors inside an HTTP 200."""

from __future__ import annotations

import time
from typing import Any

from localgcp.schema import Misfit, from_json
from localgcp.tables import DEDUPE_SECONDS, Table, Tables

MAX_ROWS = 50_000
MAX_BODY = 10_000_000
Stored = tuple[Any, ...]


class BadRequest(Exception):
    """The request as a whole is refused with HTTP 400."""


def insert_all(tables: Tables, table: Table, body: dict[str, Any]) -> dict[str, Any]:
    """Answers the response document. One bad row keeps its neighbours out unless
    `skipInvalidRows`; a row with an insertId of the last minute is answered as inserted."""
    rows = _rows(body)
    with tables.lock:
        good, errors = _judged(table, rows, bool(body.get("ignoreUnknownValues")))
        if errors and not body.get("skipInvalidRows"):
            errors += [_error(index, "stopped") for index, _ in good]
            good = []
        _insert(tables, table, rows, good)
    answer: dict[str, Any] = {"kind": "bigquery#tableDataInsertAllResponse"}
    if errors:
        answer["insertErrors"] = sorted(errors, key=lambda error: error["index"])
    return answer


def _rows(body: dict[str, Any]) -> list[dict[str, Any]]:
    rows = body.get("rows")
    if not rows:
        raise BadRequest("No rows present in the request.")
    if not isinstance(rows, list) or not all(_is_row(item) for item in rows):
        raise BadRequest("rows: not a list of objects with a member json")
    if len(rows) > MAX_ROWS:
        raise BadRequest(f"too many rows present in the request, limit: {MAX_ROWS}")
    return rows


def _is_row(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("json"), dict)


def _judged(
    table: Table, rows: list[dict[str, Any]], ignore_unknown: bool
) -> tuple[list[tuple[int, Stored]], list[dict[str, Any]]]:
    good, errors = [], []
    for index, item in enumerate(rows):
        try:
            good.append((index, _stored(table, item["json"], ignore_unknown)))
        except Misfit as error:
            errors.append(_error(index, "invalid", str(error), error.column))
    return good, errors


def _insert(
    tables: Tables, table: Table, rows: list[dict[str, Any]], good: list[tuple[int, Stored]]
) -> None:
    _forget_old(table)
    fresh: list[Stored] = []
    came: dict[str, float] = {}
    for index, row in good:
        insert_id = rows[index].get("insertId")
        if insert_id is not None:
            if insert_id in came or tables.known_insert(table, insert_id):
                continue
            came[insert_id] = time.monotonic()
        fresh.append(row)
    tables.append(table, fresh)
    # Only now: an id that is known before its row is in would swallow the row's next try.
    table.insert_ids.update(came)


def _forget_old(table: Table) -> None:
    now = time.monotonic()
    # In the order of their coming: the first young one ends it.
    for insert_id, came in list(table.insert_ids.items()):
        if now - came < DEDUPE_SECONDS:
            return
        del table.insert_ids[insert_id]


def _stored(table: Table, row: dict[str, Any], ignore_unknown: bool) -> Stored:
    known = {field.name.lower() for field in table.fields}
    given = {name.lower(): value for name, value in row.items()}
    extra = next((name for name in row if name.lower() not in known), None)
    if extra is not None and not ignore_unknown:
        raise Misfit(f"no such field: {extra}.", extra)
    stored = tuple(from_json(field, given.get(field.name.lower())) for field in table.fields)
    table.require_taken(stored)
    return stored


def _error(index: int, reason: str, message: str = "", location: str = "") -> dict[str, Any]:
    item = {"reason": reason, "location": location, "debugInfo": "", "message": message}
    return {"index": index, "errors": [item]}
