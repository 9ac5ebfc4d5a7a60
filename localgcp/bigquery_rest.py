"""BigQuery over REST: datasets, tables, insertAll, rows, SELECT."""

from __future__ import annotations

import gzip
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from waitress.server import TcpWSGIServer, create_server
from werkzeug.exceptions import HTTPException

from localgcp import sql
from localgcp.faults import Fault, Faults
from localgcp.insert_all import MAX_BODY, BadRequest, insert_all
from localgcp.schema import Field, Misfit, shown
from localgcp.tables import AlreadyExists, NotFound, Tables

ROOT = "/bigquery/v2/projects/<project>"
TABLE = ROOT + "/datasets/<dataset>/tables/<table>"
PAGE = 10_000
REASONS = {400: "invalid", 401: "authError", 403: "accessDenied", 404: "notFound"} | {
    409: "duplicate",
    429: "rateLimitExceeded",
    500: "backendError",
    502: "backendError",
    503: "backendError",
}
Serve = Callable[[], dict[str, Any]]


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
        )
        assert isinstance(server, TcpWSGIServer), "one address, one listener"
        self._server = server
        self.port = int(server.getsockname()[1])
        self._thread = threading.Thread(target=self._server.run, name="bigquery", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.close()

    def __enter__(self) -> BigQueryRestServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def create_app(tables: Tables, faults: Faults) -> Flask:
    """The REST side as a WSGI application."""
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    api = _Api(tables, faults)
    routes: list[tuple[str, str, Callable[..., Response]]] = [
        ("POST", ROOT + "/datasets", api.insert_dataset),
        ("GET", ROOT + "/datasets/<dataset>", api.get_dataset),
        ("DELETE", ROOT + "/datasets/<dataset>", api.delete_dataset),
        ("POST", ROOT + "/datasets/<dataset>/tables", api.insert_table),
        ("GET", ROOT + "/datasets/<dataset>/tables", api.list_tables),
        ("GET", TABLE, api.get_table),
        ("PATCH", TABLE, api.patch_table),
        ("DELETE", TABLE, api.delete_table),
        ("POST", TABLE + ":testIamPermissions", api.test_permissions),
        ("POST", TABLE + "/insertAll", api.insert_all),
        ("GET", TABLE + "/data", api.list_rows),
        ("POST", ROOT + "/queries", api.query),
        ("POST", ROOT + "/jobs", api.insert_job),
        ("GET", ROOT + "/jobs/<job>", api.get_job),
        ("GET", ROOT + "/queries/<job>", api.query_results),
    ]
    for method, path, view in routes:
        app.add_url_rule(path, view.__name__, view, methods=[method])
    app.register_error_handler(HTTPException, lambda e: problem(e.code or 500, str(e.description)))
    return app


def problem(status: int, message: str, reason: str = "") -> Response:
    """Google's error document."""
    item = {"message": message, "domain": "global", "reason": reason or REASONS.get(status, "")}
    return answer({"error": {"code": status, "message": message, "errors": [item]}}, status)


def answer(document: dict[str, Any], status: int = 200) -> Response:
    from orjson import dumps

    return Response(dumps(document), status=status, mimetype="application/json")


class _Api:
    """The views. Each asks the faults first, by its call's name."""

    def __init__(self, tables: Tables, faults: Faults) -> None:
        self._tables = tables
        self._faults = faults
        self._jobs: dict[str, tuple[list[Field], list[tuple[Any, ...]]]] = {}

    def _serve(self, call: str, subject: str, serve: Serve) -> Response:
        taken = self._faults.take(call, subject)
        if taken is not None:
            number, fault = taken
            if fault.kind == "delay":
                time.sleep(fault.seconds)
            elif fault.kind == "hang":
                self._hang(number)
                return _failed(fault)
            else:
                if fault.kind == "answer_lost":
                    self._answer(serve)
                return _failed(fault)
        return self._answer(serve)

    def _hang(self, number: int) -> None:
        # WSGI does not tell when the caller goes away: bounded, so that no thread stays for ever.
        deadline = time.monotonic() + 120
        while self._faults.in_force(number) and time.monotonic() < deadline:
            time.sleep(0.05)

    @staticmethod
    def _answer(serve: Serve) -> Response:
        try:
            return answer(serve())
        except NotFound as error:
            return problem(404, str(error))
        except AlreadyExists as error:
            return problem(409, str(error))
        except sql.InvalidQuery as error:
            return problem(400, str(error), "invalidQuery")
        except (BadRequest, Misfit, ValueError, KeyError) as error:
            return problem(400, str(error))

    # --- datasets ---------------------------------------------------------------------------------

    def insert_dataset(self, project: str) -> Response:
        body = _body()

        def serve() -> dict[str, Any]:
            name = body["datasetReference"]["datasetId"]
            self._tables.create_dataset(f"{project}.{name}", body)
            return {"kind": "bigquery#dataset", "id": f"{project}:{name}", **body}

        return self._serve("bigquery.datasets.insert", project, serve)

    def get_dataset(self, project: str, dataset: str) -> Response:
        return self._serve(
            "bigquery.datasets.get", dataset, lambda: self._tables.dataset(f"{project}.{dataset}")
        )

    def delete_dataset(self, project: str, dataset: str) -> Response:
        def serve() -> dict[str, Any]:
            self._tables.delete_dataset(f"{project}.{dataset}")
            return {}

        return self._serve("bigquery.datasets.delete", dataset, serve)

    # --- tables -----------------------------------------------------------------------------------

    def insert_table(self, project: str, dataset: str) -> Response:
        body = _body()

        def serve() -> dict[str, Any]:
            name = body["tableReference"]["tableId"]
            self._tables.create_table(f"{project}.{dataset}.{name}", body)
            return self._table(project, dataset, name)

        return self._serve("bigquery.tables.insert", dataset, serve)

    def list_tables(self, project: str, dataset: str) -> Response:
        def serve() -> dict[str, Any]:
            found = self._tables.dataset_tables(f"{project}.{dataset}")
            return {
                "kind": "bigquery#tableList",
                "tables": [{"tableReference": _reference(table.id)} for table in found],
                "totalItems": len(found),
            }

        return self._serve("bigquery.tables.list", dataset, serve)

    def get_table(self, project: str, dataset: str, table: str) -> Response:
        return self._serve(
            "bigquery.tables.get",
            f"{dataset}.{table}",
            lambda: self._table(project, dataset, table),
        )

    def _table(self, project: str, dataset: str, table: str) -> dict[str, Any]:
        found = self._tables.table(f"{project}.{dataset}.{table}")
        return {
            "kind": "bigquery#table",
            "type": "TABLE",
            "id": f"{project}:{dataset}.{table}",
            **found.resource,
            "tableReference": _reference(found.id),
            "numRows": str(self._tables.count(project, dataset, table)),
        }

    def patch_table(self, project: str, dataset: str, table: str) -> Response:
        body = _body()

        def serve() -> dict[str, Any]:
            if "schema" in body:
                self._tables.set_schema(f"{project}.{dataset}.{table}", body["schema"])
            return self._table(project, dataset, table)

        return self._serve("bigquery.tables.patch", f"{dataset}.{table}", serve)

    def delete_table(self, project: str, dataset: str, table: str) -> Response:
        def serve() -> dict[str, Any]:
            self._tables.delete_table(f"{project}.{dataset}.{table}")
            return {}

        return self._serve("bigquery.tables.delete", f"{dataset}.{table}", serve)

    def test_permissions(self, project: str, dataset: str, table: str) -> Response:
        body = _body()

        def serve() -> dict[str, Any]:
            self._tables.table(f"{project}.{dataset}.{table}")
            return {"permissions": body.get("permissions", [])}

        return self._serve("bigquery.tables.testIamPermissions", f"{dataset}.{table}", serve)

    # --- rows -------------------------------------------------------------------------------------

    def insert_all(self, project: str, dataset: str, table: str) -> Response:
        raw = _raw_body()
        if len(raw) > MAX_BODY:
            return problem(413, "Request payload size exceeds the limit: 10485760 bytes.")
        body = _body()

        def serve() -> dict[str, Any]:
            found = self._tables.table(f"{project}.{dataset}.{table}", for_writing=True)
            return insert_all(self._tables, found, body)

        return self._serve("bigquery.tabledata.insertAll", f"{dataset}.{table}", serve)

    def list_rows(self, project: str, dataset: str, table: str) -> Response:
        def serve() -> dict[str, Any]:
            found = self._tables.table(f"{project}.{dataset}.{table}")
            start = int(request.args.get("pageToken") or request.args.get("startIndex") or 0)
            count = min(int(request.args.get("maxResults") or PAGE), PAGE)
            total = self._tables.count(project, dataset, table)
            page = self._tables.page(found, start, count)
            document = {
                "kind": "bigquery#tableDataList",
                "totalRows": str(total),
                "rows": _rows(found.fields, page),
            }
            if start + len(page) < total:
                document["pageToken"] = str(start + len(page))
            return document

        return self._serve("bigquery.tabledata.list", f"{dataset}.{table}", serve)

    # --- queries ----------------------------------------------------------------------------------

    def query(self, project: str) -> Response:
        body = _body()

        def serve() -> dict[str, Any]:
            return self._result(project, self._run(project, body))

        return self._serve("bigquery.jobs.query", project, serve)

    def insert_job(self, project: str) -> Response:
        body = _body()

        def serve() -> dict[str, Any]:
            wanted = body.get("jobReference", {}).get("jobId")
            job = self._run(project, body["configuration"]["query"], wanted)
            return self._job(project, job, body["configuration"])

        return self._serve("bigquery.jobs.insert", project, serve)

    def get_job(self, project: str, job: str) -> Response:
        return self._serve(
            "bigquery.jobs.get", project, lambda: self._job(project, job, {"query": {}})
        )

    def query_results(self, project: str, job: str) -> Response:
        return self._serve(
            "bigquery.jobs.getQueryResults", project, lambda: self._result(project, job)
        )

    def _run(self, project: str, body: dict[str, Any], wanted: str | None = None) -> str:
        found = sql.run(self._tables, project, body["query"], body.get("queryParameters", []))
        job = wanted or str(uuid.uuid4())
        self._jobs[job] = found
        while len(self._jobs) > 100:
            self._jobs.pop(next(iter(self._jobs)))
        return job

    def _job(self, project: str, job: str, configuration: dict[str, Any]) -> dict[str, Any]:
        if job not in self._jobs:
            raise NotFound(f"Not found: Job {job}")
        return {
            "kind": "bigquery#job",
            "jobReference": {"projectId": project, "jobId": job, "location": "US"},
            "configuration": {"jobType": "QUERY", **configuration},
            "status": {"state": "DONE"},
            "statistics": {"query": {"statementType": "SELECT"}},
        }

    def _result(self, project: str, job: str) -> dict[str, Any]:
        if job not in self._jobs:
            raise NotFound(f"Not found: Job {job}")
        fields, rows = self._jobs[job]
        return {
            "kind": "bigquery#queryResponse",
            "jobReference": {"projectId": project, "jobId": job, "location": "US"},
            "jobComplete": True,
            "schema": {"fields": [field._asdict() for field in fields]},
            "totalRows": str(len(rows)),
            "rows": _rows(fields, rows),
        }


def _rows(fields: list[Field], rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [
        {"f": [{"v": shown(field, value)} for field, value in zip(fields, row, strict=True)]}
        for row in rows
    ]


def _reference(id_: str) -> dict[str, str]:
    project, dataset, table = id_.split(".")
    return {"projectId": project, "datasetId": dataset, "tableId": table}


def _raw_body() -> bytes:
    raw = request.get_data()
    return gzip.decompress(raw) if request.headers.get("Content-Encoding") == "gzip" else raw


def _body() -> dict[str, Any]:
    from orjson import loads

    raw = _raw_body()
    document: dict[str, Any] = loads(raw) if raw else {}
    return document


def _failed(fault: Fault) -> Response:
    status = int(fault.status or 503)
    return problem(status, fault.message, fault.reason)
