"""The control port: faults in, counts and messages out. Plain HTTP with JSON."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, Response, request
from orjson import dumps
from waitress.server import TcpWSGIServer, create_server
from werkzeug.exceptions import HTTPException

from localgcp.faults import Fault, Faults
from localgcp.pubsub import PubSubServer
from localgcp.tables import NotFound, Tables
from localgcp.topics import NotFound as NoTopic


class ControlServer:
    """Serves in threads of its own."""

    def __init__(
        self,
        faults: Faults,
        pubsub: PubSubServer,
        tables: Tables,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        app = create_app(faults, pubsub, tables)
        server = create_server(app, host=host, port=port, threads=4)
        assert isinstance(server, TcpWSGIServer), "one address, one listener"
        self._server = server
        self.port = int(server.getsockname()[1])
        self._thread = threading.Thread(target=self._server.run, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.close()


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
        try:
            return _answer({"id": faults.add(Fault(**request.get_json()))})
        except TypeError as error:
            raise ValueError(f"not a fault: {error}") from None

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
        found = pubsub.topics.topic(f"projects/{project}/topics/{topic}")
        return _answer({"count": len(found.messages)})

    @app.get("/pubsub/<project>/<topic>")
    def messages(project: str, topic: str) -> Response:
        """JSON lines, in the order of publishing, from the `after`th message on."""
        name = f"projects/{project}/topics/{topic}"
        pubsub.topics.topic(name)
        after = int(request.args.get("after", 0))
        return Response(_lines(pubsub, name, after), mimetype="application/x-ndjson")


def _lines(pubsub: PubSubServer, name: str, after: int) -> Iterator[bytes]:
    for published in pubsub.messages(name)[after:]:
        document = {
            "message_id": published.message_id,
            "ordering_key": published.ordering_key,
            "attributes": published.attributes,
            **_data(published.data),
        }
        yield dumps(document) + b"\n"


def _data(data: bytes) -> dict[str, str]:
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode()}


def _add_tables(app: Flask, tables: Tables) -> None:
    root = "/bigquery/<project>/<dataset>/<table>"

    @app.get(root + "/count")
    def rows(project: str, dataset: str, table: str) -> Response:
        return _answer({"count": tables.count(project, dataset, table)})

    @app.get(root)
    def all_rows(project: str, dataset: str, table: str) -> Response:
        """JSON lines, in the order of their coming; timestamps in microseconds since 1970."""
        found = tables.rows(project, dataset, table)
        lines = (dumps(row) + b"\n" for row in found)
        return Response(lines, mimetype="application/x-ndjson")

    def on_table(path: str, act: Callable[..., object]) -> None:
        def view(project: str, dataset: str, table: str) -> Response:
            act(project, dataset, table, **(request.get_json(silent=True) or {}))
            return _answer({})

        app.add_url_rule(root + path, path, view, methods=["POST"])

    on_table("/refuse", tables.refuse)
    on_table("/accept-all", tables.accept_all)
    on_table("/hide", tables.hide)

    @app.post("/streams/forget")
    def forget() -> Response:
        return _answer({"streams": tables.forget_streams()})

    @app.post("/streams/finalize")
    def finalize() -> Response:
        return _answer({"streams": tables.finalize_streams()})


def _answer(document: Any, status: int = 200) -> Response:
    return Response(dumps(document), status=status, mimetype="application/json")
