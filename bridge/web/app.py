"""The routes of the HTTP side: read a snapshot, choose who may see it, answer. Nothing is kept.

| path | answer |
|---|---|
| `/livez`, `/readyz` | 200 or 503; everybody gets the word, those who may see get the reason |
| `/metrics` | Prometheus text |
| `/ledger` | the ledger as JSON |
| `/api/…` | the figures of the operators' page and of `watch` as JSON: `docs/api.md` |
| `/` | the operators' page, and below `/static/` what it is made of |

Whoever may not see gets 401 for everything else, unknown paths included: what exists here is
nobody's business either.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from flask import Flask, Response, request, send_from_directory
from werkzeug.exceptions import HTTPException

from bridge.snapshot import Daemon
from bridge.web import api, api_letters, api_tags, metrics
from bridge.web.access import Caller, may_see
from bridge.web.health import Health, live, ready
from bridge.web.ledger import ledger_document
from bridge.web.parameters import Parameters, Refused

log = logging.getLogger(__name__)

HEALTH_PATHS = frozenset({"/livez", "/readyz"})
STATIC = Path(__file__).parent / "static"
CHALLENGES = ('Bearer realm="bridge"', 'Basic realm="bridge", charset="UTF-8"')
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

TokenSource = Callable[[], str | None]


def create_app(
    daemon: Daemon,
    *,
    token: TokenSource,
    local: bool,
    source: api.Source | None = None,
) -> Flask:
    """The WSGI application for one daemon.

    token: asked at each request that needs it, so that a rotated token file counts at once; it
    may raise OSError or ValueError, and then nobody gets in by token.
    local: everybody may see everything.
    source: what `/api` answers from; without one there is none.
    """
    app = Flask(__name__, static_folder=None)
    allowed = partial(_may_see, token=token, local=local)
    _guard(app, allowed)
    _harden(app)
    _add_health(app, daemon, allowed)
    _add_figures(app, daemon)
    if source is not None:
        _add_api(app, source)
    _add_page(app)
    return app


def _may_see(*, token: TokenSource, local: bool) -> bool:
    if local:
        return True
    return may_see(Caller(request.remote_addr, dict(request.headers)), _current(token))


def _current(token: TokenSource) -> str | None:
    try:
        return token()
    except (OSError, ValueError) as error:
        log.warning(
            "the HTTP token cannot be read: it opens nothing until it can. Let the bridge's user "
            "read HTTP_TOKEN_FILE",
            extra={"fields": {"error": str(error)}},
        )
        return None


def _guard(app: Flask, allowed: Callable[[], bool]) -> None:
    def refuse_strangers() -> Response | None:
        if request.path in HEALTH_PATHS or allowed():
            return None
        answer = _json({"error": "unauthorized"}, 401)
        for challenge in CHALLENGES:
            answer.headers.add("WWW-Authenticate", challenge)
        return answer

    def explain(error: HTTPException) -> Response:
        answer = _json({"error": error.name.lower()}, error.code or 500)
        answer.headers.extend({k: v for k, v in error.get_headers() if k == "Allow"})
        return answer

    app.before_request(refuse_strangers)
    app.register_error_handler(HTTPException, explain)


def _harden(app: Flask) -> None:
    def add_headers(answer: Response) -> Response:
        answer.headers.update(HEADERS)
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    app.after_request(add_headers)


def _add_health(app: Flask, daemon: Daemon, allowed: Callable[[], bool]) -> None:
    def livez() -> Response:
        return _health(live(daemon, allowed()))

    def readyz() -> Response:
        return _health(ready(daemon, allowed()))

    _route(app, "/livez", livez)
    _route(app, "/readyz", readyz)


def _add_figures(app: Flask, daemon: Daemon) -> None:
    collected = metrics.Metrics(daemon)

    def scrape() -> Response:
        return Response(collected.text(), content_type=metrics.CONTENT_TYPE)

    def ledger() -> Response:
        names = [sink.name for sink in daemon.state().sinks]
        return _json(ledger_document(daemon.ledger(), names), 200)

    _route(app, "/metrics", scrape)
    _route(app, "/ledger", ledger)


def _add_api(app: Flask, source: api.Source) -> None:
    """A document a path; what a function refuses becomes a status with its words."""

    def answer(document: Callable[[Parameters], api.Document]) -> Callable[[], Response]:
        return lambda: _document(document(Parameters(request.args)))

    def letter(number: int) -> Response:
        return _document(api_letters.letter(source, number))

    def download() -> Response:
        lines = api_letters.download(source, Parameters(request.args))
        shown = {"Content-Disposition": 'attachment; filename="dead-letters.jsonl"'}
        return Response(lines, content_type="application/x-ndjson", headers=shown)

    def refused(error: Refused) -> Response:
        return _json({"error": str(error)}, error.status)

    _route(app, "/api/overview", answer(lambda _: api.overview(source)))
    _route(app, "/api/sites", answer(partial(api.sites, source)))
    _route(app, "/api/tags", answer(partial(api_tags.tags, source)))
    _route(app, "/api/tag", answer(partial(api_tags.tag, source)))
    _route(app, "/api/dead-letters", answer(partial(api_letters.letters, source)))
    _route(app, "/api/dead-letters/<int:number>", letter)
    _route(app, "/api/dead-letters.jsonl", download)
    app.register_error_handler(Refused, refused)


def _document(document: api.Document) -> Response:
    return Response(orjson.dumps(document), 200, content_type="application/json")


def _add_page(app: Flask) -> None:
    def page() -> Response:
        return Response(
            (STATIC / "index.html").read_bytes(), content_type="text/html; charset=utf-8"
        )

    def part(name: str) -> Response:
        answer = send_from_directory(STATIC, name)
        # Kept by the browser, which asks by its ETag: after an update all parts are of one version.
        answer.headers["Cache-Control"] = "private, no-cache"
        return answer

    _route(app, "/", page)
    _route(app, "/static/<path:name>", part)


def _route(app: Flask, path: str, view: Callable[..., Response]) -> None:
    # Without Flask's own OPTIONS: every other method than GET and HEAD is answered by 405.
    app.add_url_rule(path, path, view, methods=["GET"], provide_automatic_options=False)


def _health(health: Health) -> Response:
    return _json(health.document, health.status)


def _json(document: dict[str, Any], status: int) -> Response:
    return Response(json.dumps(document), status, content_type="application/json")
