"""BigQuery over REST: datasets, tables, insertAll, rows, SELECT."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from orjson import loads
from waitress.server import TcpWSGIServer, create_server
from werkzeug.exceptions import HTTPException

from localgcp import http_answers, sql
from localgcp.bigquery_jobs import PAGE, Jobs, Page, shown_rows
from localgcp.faults import Faults
from localgcp.http_answers import answer, problem
from localgcp.insert_all import MAX_BODY, BadRequest, insert_all
from localgcp.schema import Misfit
from localgcp.tables import AlreadyExists, NotEmpty, NotFound, Tables

WORKERS_SECONDS = 2
ROOT = "/bigquery/v2/projects/<project>"
DATASET = ROOT + "/datasets/<dataset>"
TABLE = DATASET + "/tables/<table>"
Document = dict[str, Any]


class BigQueryRestServer:
    """Serves one `Tables`, in threads of its own. Use as a context manager, or start and stop."""

    def __init__(
        self, tables: Tables, faults: Faults, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        server = create_server(
            create_app(tables, faults),
            host=host,
            port=port,
            threads=16,
            max_request_body_size=2 * MAX_BODY,
            clear_untrusted_proxy_headers=True,
            # So that a call that hangs by a fault is told when its caller goes away.
            channel_request_lookahead=1,
        )
        assert isinstance(server, TcpWSGIServer), "one address, one listener"
        self._server = server
        self.port = int(server.getsockname()[1])
        self._thread = threading.Thread(target=server.run, name="bigquery", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close the listener and every connection; returns when nothing is served any more."""
        # The workers first: one that ends later would wake a loop that is closed by then.
        self._server.task_dispatcher.shutdown(cancel_pending=True, timeout=WORKERS_SECONDS)
        trigger: Any = self._server.trigger
        trigger.pull_trigger(self._close_all)
        self._thread.join(timeout=10)

    def _close_all(self) -> None:
        # In the server's own thread: only there may its sockets be closed.
        channels: Any = self._server.active_channels
        for channel in list(channels.values()):
            channel.handle_close()
        self._server.close()

    def __enter__(self) -> BigQueryRestServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def create_app(tables: Tables, faults: Faults) -> Flask:
    """The REST side as a WSGI application, for waitress."""
    app = Flask(__name__)
    api = _Api(tables, faults)
    routes: list[tuple[str, str, str, Callable[..., Document]]] = [
        ("GET", ROOT + "/datasets", "datasets.list", api.list_datasets),
        ("POST", ROOT + "/datasets", "datasets.insert", api.insert_dataset),
        ("GET", DATASET, "datasets.get", api.get_dataset),
        ("DELETE", DATASET, "datasets.delete", api.delete_dataset),
        ("GET", DATASET + "/tables", "tables.list", api.list_tables),
        ("POST", DATASET + "/tables", "tables.insert", api.insert_table),
        ("GET", TABLE, "tables.get", api.get_table),
        ("PATCH", TABLE, "tables.patch", api.patch_table),
        ("DELETE", TABLE, "tables.delete", api.delete_table),
        (
            "POST",
            TABLE + ":testIamPermissions",
            "tables.testIamPermissions",
            api.test_permissions,
        ),
        ("POST", TABLE + "/insertAll", "tabledata.insertAll", api.insert_all),
        ("GET", TABLE + "/data", "tabledata.list", api.list_rows),
        ("POST", ROOT + "/queries", "jobs.query", api.query),
        ("GET", ROOT + "/queries/<job>", "jobs.getQueryResults", api.query_results),
        ("POST", ROOT + "/jobs", "jobs.insert", api.insert_job),
        ("GET", ROOT + "/jobs/<job>", "jobs.get", api.get_job),
    ]
    for method, path, call, view in routes:
        app.add_url_rule(path, call, _guarded(faults, f"bigquery.{call}", view), methods=[method])
    app.register_error_handler(HTTPException, lambda e: problem(e.code or 500, str(e.description)))
    return app


def _guarded(faults: Faults, call: str, view: Callable[..., Document]) -> Callable[..., Response]:
    """The view behind the faults, with Google's answer to whatever it raises."""

    def guarded(**path: str) -> Response:
        return http_answers.apply(faults, call, _subject(path), lambda: _answer(view, path))

    return guarded


def _subject(path: dict[str, str]) -> str:
    """What a fault's `subject` is matched with: `dataset.table`, the dataset, or the project."""
    named = [path[key] for key in ("dataset", "table") if key in path]
    if "dataset" in path and request.method == "POST" and "table" not in path:
        reference = _body_or_nothing().get("tableReference")
        named.append(str(reference.get("tableId")) if isinstance(reference, dict) else "")
    return ".".join(named) or path["project"]


def _answer(view: Callable[..., Document], path: dict[str, str]) -> Response:
    try:
        return answer(view(**path))
    except NotFound as error:
        return problem(404, str(error))
    except AlreadyExists as error:
        return problem(409, str(error))
    except NotEmpty as error:
        return problem(400, str(error), "resourceInUse")
    except sql.InvalidQuery as error:
        return problem(400, str(error), "invalidQuery")
    except KeyError as error:
        return problem(400, f"Required parameter is missing: {error}", "required")
    except (BadRequest, Misfit, ValueError) as error:
        return problem(400, str(error))


class _Api:
    """The views: they answer the document, or raise what `_answer` knows."""

    def __init__(self, tables: Tables, faults: Faults) -> None:
        self._tables = tables
        self._faults = faults
        self._jobs = Jobs(tables)

    # --- datasets ---------------------------------------------------------------------------------

    def list_datasets(self, project: str) -> Document:
        names = [id_.rsplit(".", 1)[1] for id_ in self._tables.datasets(project)]
        references = [{"projectId": project, "datasetId": name} for name in names]
        return {
            "kind": "bigquery#datasetList",
            "datasets": [{"datasetReference": reference} for reference in references],
        }

    def insert_dataset(self, project: str) -> Document:
        body = _body()
        name = _name(body["datasetReference"]["datasetId"])
        reference = {"projectId": project, "datasetId": name}
        resource = {
            "kind": "bigquery#dataset",
            "id": f"{project}:{name}",
            "location": "US",
            **body,
            "datasetReference": reference,
        }
        self._tables.create_dataset(f"{project}.{name}", resource)
        return resource

    def get_dataset(self, project: str, dataset: str) -> Document:
        return self._tables.dataset(f"{project}.{dataset}")

    def delete_dataset(self, project: str, dataset: str) -> Document:
        with_tables = request.args.get("deleteContents", "").lower() == "true"
        self._tables.delete_dataset(f"{project}.{dataset}", with_tables)
        return {}

    # --- tables -----------------------------------------------------------------------------------

    def list_tables(self, project: str, dataset: str) -> Document:
        self._tables.dataset(f"{project}.{dataset}")
        found = self._tables.dataset_tables(f"{project}.{dataset}")
        return {
            "kind": "bigquery#tableList",
            "tables": [{"tableReference": _reference(table.id)} for table in found],
            "totalItems": len(found),
        }

    def insert_table(self, project: str, dataset: str) -> Document:
        body = _body()
        name = _name(body["tableReference"]["tableId"])
        self._tables.create_table(f"{project}.{dataset}.{name}", body)
        return self.get_table(project, dataset, name)

    def get_table(self, project: str, dataset: str, table: str) -> Document:
        found = self._tables.table(f"{project}.{dataset}.{table}")
        return {
            "kind": "bigquery#table",
            "type": "TABLE",
            "id": f"{project}:{dataset}.{table}",
            **found.resource,
            "tableReference": _reference(found.id),
            "numRows": str(self._tables.count(project, dataset, table)),
        }

    def patch_table(self, project: str, dataset: str, table: str) -> Document:
        body = _body()
        if set(body) != {"schema"}:
            raise BadRequest("a table's schema can be patched here, and nothing else")
        self._tables.patch_schema(f"{project}.{dataset}.{table}", body["schema"])
        return self.get_table(project, dataset, table)

    def delete_table(self, project: str, dataset: str, table: str) -> Document:
        self._tables.delete_table(f"{project}.{dataset}.{table}")
        return {}

    def test_permissions(self, project: str, dataset: str, table: str) -> Document:
        self._tables.table(f"{project}.{dataset}.{table}")
        return {"permissions": self._faults.granted(_body().get("permissions", []))}

    # --- rows -------------------------------------------------------------------------------------

    def insert_all(self, project: str, dataset: str, table: str) -> Document:
        body = _body()
        found = self._tables.table(f"{project}.{dataset}.{table}", for_writing=True)
        return insert_all(self._tables, found, body)

    def list_rows(self, project: str, dataset: str, table: str) -> Document:
        found = self._tables.table(f"{project}.{dataset}.{table}")
        wanted = _page(request.args)
        rows = self._tables.page(found, wanted.start, wanted.count)
        total = self._tables.count(project, dataset, table)
        document = {
            "kind": "bigquery#tableDataList",
            "totalRows": str(total),
            "rows": shown_rows(found.fields, rows, wanted.int64_timestamps),
        }
        if wanted.start + len(rows) < total:
            document["pageToken"] = str(wanted.start + len(rows))
        return document

    # --- queries ----------------------------------------------------------------------------------

    def query(self, project: str) -> Document:
        body = _body()
        formats = {f"formatOptions.{k}": v for k, v in body.get("formatOptions", {}).items()}
        return self._jobs.query(project, body, _page({**body, **formats}))

    def query_results(self, project: str, job: str) -> Document:
        return self._jobs.results(project, job, _page(request.args))

    def insert_job(self, project: str) -> Document:
        return self._jobs.insert(project, _body())

    def get_job(self, project: str, job: str) -> Document:
        return self._jobs.get(project, job)


def _reference(id_: str) -> dict[str, str]:
    project, dataset, table = id_.split(".")
    return {"projectId": project, "datasetId": dataset, "tableId": table}


def _name(name: str) -> str:
    """A dataset's or table's name. Raises ValueError for one with a dot or the like in it."""
    if not name or not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(f"Invalid ID {name!r}: letters, digits, - and _ are allowed")
    return name


def _page(wanted: Any) -> Page:
    """Raises ValueError for what is no number."""
    start = int(wanted.get("pageToken") or wanted.get("startIndex") or 0)
    count = wanted.get("maxResults")
    int64 = str(wanted.get("formatOptions.useInt64Timestamp", "")).lower() == "true"
    return Page(start, PAGE if count is None else min(int(count), PAGE), int64)


def _body() -> Document:
    """The request's JSON object. Raises ValueError, BadRequest, HTTPException (too large)."""
    raw = request.get_data()
    if request.headers.get("Content-Encoding", "").lower() == "gzip":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise BadRequest(f"the body is not gzip: {error}") from None
    if len(raw) > MAX_BODY:
        raise BadRequest(f"Request payload size exceeds the limit: {MAX_BODY} bytes.")
    document = loads(raw)
    if not isinstance(document, dict):
        raise BadRequest("the body is not a JSON object")
    return document


def _body_or_nothing() -> Document:
    try:
        return _body()
    except (ValueError, BadRequest):
        return {}
