"""Datasets, tables, rows and write streams of the local BigQuery, in SQLite.

What was answered is committed: a file survives `kill -9`.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localgcp.schema import SQL_TYPES, Field, Misfit, parse
from localgcp.sql_functions import SqlFunctions

DEDUPE_SECONDS = 60.0


class NotFound(Exception):
    """No such dataset, table or stream."""


class AlreadyExists(Exception):
    """There is one of that name."""


class NotEmpty(Exception):
    """The dataset has tables."""


class StreamOver(Exception):
    """The stream was finalized."""


class OffsetError(Exception):
    """An append elsewhere than at the stream's end."""

    def __init__(self, offset: int, end: int) -> None:
        super().__init__(f"offset {offset}, but the stream ends at {end}")
        self.offset, self.end = offset, end


class QueryError(Exception):
    """A SELECT that SQLite refuses or that fails on a value."""


@dataclass
class Table:
    """One table. rows: the name of its SQLite table. arrivals: for each write since the start, how
    many rows it brought, and when they were in (microseconds since 1970)."""

    id: str
    resource: dict[str, Any]
    rows: str
    fields: list[Field]
    refused: list[tuple[str, Any]] = field(default_factory=list)
    hidden_until: float = 0.0
    insert_ids: dict[str, float] = field(default_factory=dict)
    arrivals: list[tuple[int, int]] = field(default_factory=list)

    def require_taken(self, stored: tuple[Any, ...]) -> None:
        """Raises Misfit for a row, in stored form, that `Tables.refuse` spoke of."""
        if not self.refused:
            return
        row = {field.name: value for field, value in zip(self.fields, stored, strict=True)}
        for column, value in self.refused:
            if row.get(column) == value:
                raise Misfit(f"{column}: this value is refused", column)


class Tables:
    """All of it. Safe from any thread; calls take the one lock."""

    def __init__(self, path: Path | None = None) -> None:
        self.lock = threading.RLock()
        self._db = sqlite3.connect(
            path or ":memory:", check_same_thread=False, isolation_level=None
        )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(
            "CREATE TABLE IF NOT EXISTS _datasets (id TEXT PRIMARY KEY, resource TEXT);"
            "CREATE TABLE IF NOT EXISTS _tables (id TEXT PRIMARY KEY, resource TEXT, rows TEXT);"
            "CREATE TABLE IF NOT EXISTS _streams (name TEXT PRIMARY KEY, table_id TEXT,"
            " rows INTEGER, finalized INTEGER)"
        )
        self._functions = SqlFunctions()
        self._functions.register(self._db)
        self._numbers = itertools.count(time.time_ns())
        self._tables: dict[str, Table] = {}
        for id_, resource, rows in self._db.execute("SELECT * FROM _tables").fetchall():
            document = json.loads(resource)
            self._tables[id_] = Table(id_, document, rows, parse(document["schema"]))

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self.lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    # --- datasets and tables ----------------------------------------------------------------------

    def create_dataset(self, id_: str, resource: dict[str, Any]) -> None:
        try:
            with self._writing() as db:
                db.execute("INSERT INTO _datasets VALUES (?, ?)", (id_, json.dumps(resource)))
        except sqlite3.IntegrityError:
            raise AlreadyExists(f"Already Exists: Dataset {id_}") from None

    def dataset(self, id_: str) -> dict[str, Any]:
        with self.lock:
            row = self._db.execute("SELECT resource FROM _datasets WHERE id = ?", (id_,)).fetchone()
        if row is None:
            raise NotFound(f"Not found: Dataset {id_}")
        document: dict[str, Any] = json.loads(row[0])
        return document

    def datasets(self, project: str) -> list[str]:
        """The project's datasets' ids, in order."""
        with self.lock:
            ids = [id_ for (id_,) in self._db.execute("SELECT id FROM _datasets ORDER BY id")]
        return [id_ for id_ in ids if id_.rsplit(".", 1)[0] == project]

    def delete_dataset(self, id_: str, with_tables: bool = False) -> None:
        """Raises NotFound, NotEmpty."""
        with self.lock:
            self.dataset(id_)
            inside = self.dataset_tables(id_)
            if inside and not with_tables:
                raise NotEmpty(f"Dataset {id_} is still in use")
            for table in inside:
                self.delete_table(table.id)
            with self._writing() as db:
                db.execute("DELETE FROM _datasets WHERE id = ?", (id_,))

    def create_table(self, id_: str, resource: dict[str, Any]) -> None:
        """Raises NotFound (dataset), AlreadyExists, ValueError (columns that are not served)."""
        self.dataset(id_.rsplit(".", 1)[0])
        fields = parse(resource.get("schema", {}))
        rows = f"rows_{next(self._numbers)}"
        columns = ", ".join(f'"{f.name}" {SQL_TYPES[f.type]}' for f in fields)
        with self._writing() as db:
            if id_ in self._tables:
                raise AlreadyExists(f"Already Exists: Table {id_}")
            db.execute(f"CREATE TABLE {rows} ({columns})")
            db.execute("INSERT INTO _tables VALUES (?, ?, ?)", (id_, json.dumps(resource), rows))
            self._tables[id_] = Table(id_, resource, rows, fields)

    def table(self, id_: str, for_writing: bool = False) -> Table:
        """Raises NotFound: no such table, or one too young to be written."""
        with self.lock:
            table = self._tables.get(id_)
        if table is None or (for_writing and time.monotonic() < table.hidden_until):
            raise NotFound(f"Not found: Table {id_}")
        return table

    def delete_table(self, id_: str) -> None:
        table = self.table(id_)
        with self._writing() as db:
            db.execute(f"DROP TABLE {table.rows}")
            db.execute("DELETE FROM _tables WHERE id = ?", (id_,))
            db.execute("DELETE FROM _streams WHERE table_id = ?", (id_,))
            del self._tables[id_]

    def patch_schema(self, id_: str, schema: dict[str, Any]) -> None:
        """Add and remove columns. Raises NotFound, ValueError (a column of another type)."""
        with self.lock:
            types = {f.name: f.type for f in self.table(id_).fields}
            for new in parse(schema):
                if types.get(new.name, new.type) != new.type:
                    raise ValueError(f"Field {new.name} has changed type")
            self.set_schema(id_, schema)

    def set_schema(self, id_: str, schema: dict[str, Any]) -> None:
        """Let the table have these columns, as if it had been made with them. For tests: values
        of a column that gets another type stay as they are."""
        table, fields = self.table(id_), parse(schema)
        before, after = {f.name for f in table.fields}, {f.name for f in fields}
        with self._writing() as db:
            for new in fields:
                if new.name not in before:
                    db.execute(
                        f'ALTER TABLE {table.rows} ADD COLUMN "{new.name}" {SQL_TYPES[new.type]}'
                    )
            for name in before - after:
                db.execute(f'ALTER TABLE {table.rows} DROP COLUMN "{name}"')
            table.resource = {**table.resource, "schema": schema}
            table.fields = fields
            db.execute(
                "UPDATE _tables SET resource = ? WHERE id = ?", (json.dumps(table.resource), id_)
            )

    def dataset_tables(self, dataset: str) -> list[Table]:
        with self.lock:
            return [t for id_, t in self._tables.items() if id_.rsplit(".", 1)[0] == dataset]

    # --- rows -------------------------------------------------------------------------------------

    def append(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows as tuples in the order of the table's fields. On disk when it returns."""
        with self._writing() as db:
            self._insert(db, table, rows)
        table.arrivals.append((len(rows), time.time_ns() // 1000))

    @staticmethod
    def _insert(db: sqlite3.Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        marks = ", ".join("?" * len(table.fields))
        names = ", ".join(f'"{f.name}"' for f in table.fields)
        db.executemany(f"INSERT INTO {table.rows} ({names}) VALUES ({marks})", rows)

    def rows(self, project: str, dataset: str, table: str, after: int = 0) -> list[dict[str, Any]]:
        """The rows in the order of their coming, as stored, without the first ones."""
        found = self.table(f"{project}.{dataset}.{table}")
        return [
            dict(zip([f.name for f in found.fields], row, strict=True))
            for row in self.page(found, after, -1)
        ]

    def page(self, table: Table, start: int, count: int) -> list[tuple[Any, ...]]:
        names = ", ".join(f'"{f.name}"' for f in table.fields)
        with self.lock:
            return self._db.execute(
                f"SELECT {names} FROM {table.rows} ORDER BY rowid LIMIT ? OFFSET ?", (count, start)
            ).fetchall()

    def count(self, project: str, dataset: str, table: str) -> int:
        found = self.table(f"{project}.{dataset}.{table}")
        with self.lock:
            return int(self._db.execute(f"SELECT count(*) FROM {found.rows}").fetchone()[0])

    def arrivals(self, project: str, dataset: str, table: str) -> list[tuple[int, int]]:
        """When the rows came: see `Table.arrivals`."""
        with self.lock:
            return list(self.table(f"{project}.{dataset}.{table}").arrivals)

    def select(self, sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run SQLite's SQL over the row tables, with `SqlFunctions`. Raises QueryError."""
        with self.lock:
            self._functions.problem = ""
            try:
                return self._db.execute(sql, values).fetchall()
            except (sqlite3.Error, OverflowError) as error:
                raise QueryError(self._functions.problem or str(error)) from None

    def known_insert(self, table: Table, insert_id: str) -> bool:
        """Whether a row with this insertId came within the last minute. Under the lock."""
        came = table.insert_ids.get(insert_id)
        return came is not None and time.monotonic() - came < DEDUPE_SECONDS

    # --- write streams ----------------------------------------------------------------------------

    def create_stream(self, table_id: str) -> str:
        """A committed stream of its own. Raises NotFound."""
        self.table(table_id, for_writing=True)
        project, dataset, table = table_id.split(".")
        name = (
            f"projects/{project}/datasets/{dataset}/tables/{table}/streams/s{next(self._numbers):x}"
        )
        with self._writing() as db:
            db.execute("INSERT INTO _streams VALUES (?, ?, 0, 0)", (name, table_id))
        return name

    def stream(self, name: str) -> tuple[str, int, bool]:
        """Table, number of rows, finalized. Raises NotFound."""
        with self.lock:
            row = self._db.execute(
                "SELECT table_id, rows, finalized FROM _streams WHERE name = ?", (name,)
            ).fetchone()
        if row is None:
            raise NotFound(f"Requested entity was not found: stream {name}")
        return row[0], row[1], bool(row[2])

    def require_end(self, stream: str, offset: int | None) -> int:
        """Where the stream ends, which is `offset` unless that is None. Raises NotFound,
        StreamOver, OffsetError."""
        _, end, finalized = self.stream(stream)
        if finalized:
            raise StreamOver(stream)
        if offset is not None and offset != end:
            raise OffsetError(offset, end)
        return end

    def append_at(
        self, stream: str, table: Table, offset: int | None, rows: Sequence[tuple[Any, ...]]
    ) -> int:
        """Append where the stream ends; answers that offset. Raises as `require_end`."""
        with self._writing() as db:
            end = self.require_end(stream, offset)
            self._insert(db, table, rows)
            db.execute("UPDATE _streams SET rows = rows + ? WHERE name = ?", (len(rows), stream))
        table.arrivals.append((len(rows), time.time_ns() // 1000))
        return end

    def finalize(self, name: str) -> int:
        """No more appends; answers the number of rows. Idempotent. Raises NotFound."""
        with self._writing() as db:
            rows = self.stream(name)[1]
            db.execute("UPDATE _streams SET finalized = 1 WHERE name = ?", (name,))
            return rows

    # --- for tests --------------------------------------------------------------------------------

    def refuse(self, project: str, dataset: str, table: str, column: str, value: Any) -> None:
        """From now on rows with this (stored) value are refused, each for itself."""
        self.table(f"{project}.{dataset}.{table}").refused.append((column, value))

    def accept_all(self, project: str, dataset: str, table: str) -> None:
        self.table(f"{project}.{dataset}.{table}").refused.clear()

    def hide(self, project: str, dataset: str, table: str, seconds: float) -> None:
        """Let writes find no such table for a while, as with one just created."""
        found = self.table(f"{project}.{dataset}.{table}")
        found.hidden_until = time.monotonic() + seconds

    def forget_streams(self, pattern: str = "*") -> int:
        """Let streams be gone; answers how many."""
        names = self._stream_names(pattern)
        with self._writing() as db:
            db.executemany("DELETE FROM _streams WHERE name = ?", [(name,) for name in names])
        return len(names)

    def finalize_streams(self, pattern: str = "*") -> int:
        """Finalize streams behind their users' backs; answers how many."""
        names = self._stream_names(pattern)
        for name in names:
            self.finalize(name)
        return len(names)

    def _stream_names(self, pattern: str) -> list[str]:
        with self.lock:
            names = [name for (name,) in self._db.execute("SELECT name FROM _streams")]
        return fnmatch.filter(names, pattern)

    def close(self) -> None:
        with self.lock:
            self._db.close()
