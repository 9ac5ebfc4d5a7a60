"""The query jobs of the local BigQuery. A job has run before it is answered for."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from typing import Any

from localgcp import sql
from localgcp.schema import Field, shown
from localgcp.tables import AlreadyExists, NotFound, Tables

PAGE = 10_000
KEPT = 100


@dataclass
class Job:
    id: str
    configuration: dict[str, Any]
    fields: list[Field] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    error: Exception | None = None


@dataclass(frozen=True)
class Page:
    """Which rows of an answer are wanted, and how timestamps are to be written."""

    start: int = 0
    count: int = PAGE
    int64_timestamps: bool = False


class Jobs:
    """The last hundred of them. Safe from any thread."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = threading.Lock()

    def insert(self, project: str, body: dict[str, Any]) -> dict[str, Any]:
        """Run the job of a `jobs.insert`; answers its resource, in which a statement that is
        refused is the job's error, as with the service. Raises AlreadyExists, ValueError; for a
        dry run InvalidQuery, NotFound."""
        configuration = body["configuration"]
        if "query" not in configuration:
            raise ValueError("only query jobs are served here")
        id_ = body.get("jobReference", {}).get("jobId") or str(uuid.uuid4())
        job = Job(id_, {"jobType": "QUERY", **configuration})
        if configuration.get("dryRun"):
            return self._dry_run(project, job)
        self._keep(project, job)
        try:
            job.fields, job.rows = self._run(project, configuration["query"])
        except (sql.InvalidQuery, NotFound) as error:
            job.error = error
        return self._resource(project, job)

    def _dry_run(self, project: str, job: Job) -> dict[str, Any]:
        """Only judged: nothing is kept, it has no id, and a refusal is one of the call."""
        self._run(project, job.configuration["query"])
        resource = self._resource(project, job)
        resource["statistics"]["query"]["totalBytesProcessed"] = "0"
        del resource["jobReference"]["jobId"]
        return resource

    def query(self, project: str, body: dict[str, Any], page: Page) -> dict[str, Any]:
        """Run a `jobs.query`; answers its first page. Raises InvalidQuery, NotFound."""
        job = Job(str(uuid.uuid4()), {"jobType": "QUERY", "query": {"query": body["query"]}})
        job.fields, job.rows = self._run(project, body)
        self._keep(project, job)
        return _result(project, job, page)

    def get(self, project: str, id_: str) -> dict[str, Any]:
        """Raises NotFound."""
        return self._resource(project, self._job(project, id_))

    def results(self, project: str, id_: str, page: Page) -> dict[str, Any]:
        """Raises NotFound, and what the job itself failed with."""
        job = self._job(project, id_)
        if job.error is not None:
            raise job.error
        return _result(project, job, page)

    def _run(
        self, project: str, query: dict[str, Any]
    ) -> tuple[list[Field], list[tuple[Any, ...]]]:
        if query.get("useLegacySql", True) not in (False, "false"):
            raise sql.InvalidQuery("legacy SQL is not served here: set useLegacySql to false")
        return sql.run(self._tables, project, query["query"], query.get("queryParameters") or [])

    def _keep(self, project: str, job: Job) -> None:
        with self._lock:
            if (project, job.id) in self._jobs:
                raise AlreadyExists(f"Already Exists: Job {project}:US.{job.id}")
            self._jobs[project, job.id] = job
            while len(self._jobs) > KEPT:
                self._jobs.pop(next(iter(self._jobs)))

    def _job(self, project: str, id_: str) -> Job:
        with self._lock:
            job = self._jobs.get((project, id_))
        if job is None:
            raise NotFound(f"Not found: Job {project}:{id_}")
        return job

    @staticmethod
    def _resource(project: str, job: Job) -> dict[str, Any]:
        status: dict[str, Any] = {"state": "DONE"}
        if job.error is not None:
            reason = "notFound" if isinstance(job.error, NotFound) else "invalidQuery"
            status["errorResult"] = {"reason": reason, "message": str(job.error)}
            status["errors"] = [status["errorResult"]]
        return {
            "kind": "bigquery#job",
            "id": f"{project}:US.{job.id}",
            "jobReference": _reference(project, job),
            "configuration": job.configuration,
            "status": status,
            "statistics": {"query": {"statementType": "SELECT"}},
        }


def _result(project: str, job: Job, page: Page) -> dict[str, Any]:
    rows = job.rows[page.start : page.start + page.count]
    document = {
        "kind": "bigquery#queryResponse",
        "jobReference": _reference(project, job),
        "jobComplete": True,
        "schema": {"fields": [item._asdict() for item in job.fields]},
        "totalRows": str(len(job.rows)),
        "rows": shown_rows(job.fields, rows, page.int64_timestamps),
    }
    if page.start + len(rows) < len(job.rows):
        document["pageToken"] = str(page.start + len(rows))
    return document


def _reference(project: str, job: Job) -> dict[str, str]:
    return {"projectId": project, "jobId": job.id, "location": "US"}


def shown_rows(
    fields: list[Field], rows: list[tuple[Any, ...]], int64_timestamps: bool
) -> list[dict[str, Any]]:
    """Rows in REST's form."""
    return [
        {
            "f": [
                {"v": shown(column, value, int64_timestamps)}
                for column, value in zip(fields, row, strict=True)
            ]
        }
        for row in rows
    ]
