"""The control port: faults in, counts and messages out. Plain HTTP with JSON.

    POST   /faults               the fields of a Fault; answers {"id": n}
    GET    /faults               the rules in force, each with its id and how often it was used
    DELETE /faults, /faults/ID   lift all, or one
    GET    /calls                how often each call was made

    GET    /pubsub/PROJECT/TOPIC/count
    GET    /pubsub/PROJECT/TOPIC?after=N   JSON lines, without the first N messages

    GET    /bigquery/PROJECT/DATASET/TABLE/count
    GET    /bigquery/PROJECT/DATASET/TABLE?after=N           JSON lines, without the first N rows
    GET    /bigquery/PROJECT/DATASET/TABLE/arrivals          when they came: [[rows, µs], …]
    POST   /bigquery/PROJECT/DATASET/TABLE/refuse, /accept-all, /hide
    POST   /streams/forget, /streams/finalize

What cannot be served is answered with {"error": in words}.
"""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

from flask import Flask, Response, request
from orjson import dumps
from waitress import wasyncore
from waitress.server import create_server
from werkzeug.exceptions import HTTPException

from localgcp.fault_document import fault
from localgcp.faults import Faults
from localgcp.pubsub import Published, PubSubServer
from localgcp.tables import NotFound, Tables
from localgcp.topics import NotFound as NoTopic

THREADS = 4
POLL_SECONDS = 0.2


class ControlServer:
    """Serves in threads of its own. Raises OSError when it cannot listen."""

    def __init__(
        self,
        faults: Faults,
        pubsub: PubSubServer,
        tables: Tables,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._socket = socket.create_server((host, port))
        self.port = int(self._socket.getsockname()[1])
        self._map: dict[int, Any] = {}
        app = create_app(faults, pubsub, tables)
        self._server: Any = create_server(
            app, map=self._map, sockets=[self._socket], threads=THREADS
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close every connection. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._server.pull_trigger()
            self._thread.join()
        self._server.task_dispatcher.shutdown()
        wasyncore.close_all(self._map)

    def _run(self) -> None:
        while not self._stopping.is_set():
            wasyncore.loop(POLL_SECONDS, use_poll=True, map=self._map, count=1)


def create_app(faults: Faults, pubsub: PubSubServer, tables: Tables) -> Flask:
    """The control port as a WSGI application."""
    app = Flask(__name__)
    _add_faults(app, faults)
    _add_pubsub(app, pubsub)
    _add_tables(app, tables)
    app.register_error_handler(
        HTTPException, lambda error: _answer({"error": str(error.description)}, error.code or 500)
    )
    for missing in (NotFound, NoTopic):
        app.register_error_handler(missing, lambda error: _answer({"error": str(error)}, 404))
    app.register_error_handler(ValueError, lambda error: _answer({"error": str(error)}, 400))
    return app


def _add_faults(app: Flask, faults: Faults) -> None:
    @app.post("/faults")
    def add() -> Response:
        return _answer({"id": faults.add(fault(request.get_json(force=True)))})

    @app.get("/faults")
    def listing() -> Response:
        return _answer(faults.listing())

    @app.delete("/faults")
    def clear() -> Response:
        faults.clear()
        return _answer({})

    @app.delete("/faults/<int:number>")
    def remove(number: int) -> Response:
        faults.remove(number)
        return _answer({})

    @app.get("/calls")
    def calls() -> Response:
        return _answer(faults.calls())


def _add_pubsub(app: Flask, pubsub: PubSubServer) -> None:
    @app.get("/pubsub/<project>/<topic>/count")
    def count(project: str, topic: str) -> Response:
        return _answer({"count": pubsub.count(f"projects/{project}/topics/{topic}")})

    @app.get("/pubsub/<project>/<topic>")
    def messages(project: str, topic: str) -> Response:
        found = pubsub.published(f"projects/{project}/topics/{topic}", _after())
        return _lines(_message(published) for published in found)


def _after() -> int:
    after = request.args.get("after", "0")
    if not (after.isascii() and after.isdigit()):
        raise ValueError(f"after={after!r}: how many to leave out, from 0 on")
    return int(after)


def _message(published: Published) -> dict[str, Any]:
    document = {
        "message_id": published.message_id,
        "ordering_key": published.ordering_key,
        "publish_us": published.publish_us,
        "event_id": published.attributes.get("event_id"),
        "attributes": published.attributes,
    }
    try:
        return {**document, "data": published.data.decode()}
    except UnicodeDecodeError:
        return {**document, "data_base64": base64.b64encode(published.data).decode()}


def _add_tables(app: Flask, tables: Tables) -> None:
    root = "/bigquery/<project>/<dataset>/<table>"

    @app.get(root + "/count")
    def rows(project: str, dataset: str, table: str) -> Response:
        return _answer({"count": tables.count(project, dataset, table)})

    @app.get(root)
    def all_rows(project: str, dataset: str, table: str) -> Response:
        """In the order of their coming; timestamps in microseconds since 1970."""
        return _lines(iter(tables.rows(project, dataset, table, _after())))

    def on_table(path: str, act: Callable[..., object]) -> None:
        def view(project: str, dataset: str, table: str) -> Response:
            fields = request.get_json(force=True) if request.content_length else {}
            try:
                call = signature(act).bind(project, dataset, table, **fields)
            except TypeError as error:
                raise ValueError(f"{path}: {error}") from None
            act(*call.args, **call.kwargs)
            return _answer({})

        app.add_url_rule(root + path, path, view, methods=["POST"])

    @app.get(root + "/arrivals")
    def arrivals(project: str, dataset: str, table: str) -> Response:
        """When the rows came: a pair for each write since the start."""
        return _answer(tables.arrivals(project, dataset, table))

    on_table("/refuse", tables.refuse)
    on_table("/accept-all", tables.accept_all)
    on_table("/hide", tables.hide)

    @app.post("/streams/forget")
    def forget() -> Response:
        return _answer({"streams": tables.forget_streams()})

    @app.post("/streams/finalize")
    def finalize() -> Response:
        return _answer({"streams": tables.finalize_streams()})


def _lines(documents: Iterator[Any]) -> Response:
    """One JSON document a line, sent as they are made."""
    lines = (dumps(document) + b"\n" for document in documents)
    return Response(lines, mimetype="application/x-ndjson")


def _answer(document: Any, status: int = 200) -> Response:
    return Response(dumps(document), status=status, mimetype="application/json")
