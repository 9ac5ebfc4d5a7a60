"""The documents behind the operators' page as a test wants them, before the real application."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Request, Response

from bridge.web.app import create_app
from bridge.web.server import HttpServer
from tests.support.daemon import FakeDaemon

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Document = dict[str, Any]


def iso(seconds_ago: float = 0) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat().replace("+00:00", "Z")


def finding(level: str, what: str, remedy: str) -> Document:
    return {"level": level, "what": what, "since": iso(300), "remedy": remedy}


def sink(name: str, **changes: Any) -> Document:
    calm = {
        "name": name,
        "pending": 0,
        "oldest_pending_seconds": 0.0,
        "held": None,
        "last_error": None,
        "error_since": None,
        "remedy": None,
        "settled_per_second": 120.0,
        "latency_p50_seconds": 0.02,
        "latency_p99_seconds": 0.09,
    }
    return {**calm, **changes}


def overview(**changes: Any) -> Document:
    """A bridge without a care, for 35 minutes."""
    now = int(time.time())
    at = list(range(now - 2100, now, 10))
    level = [100.0 + number % 7 for number in range(len(at))]
    none = [0.0] * len(at)
    line = {"received": 900, "accepted": 880, "duplicates": 12, "rejected": 8}
    sinks = {name: {"settled": 880, "pending": 0, "dead_lettered": 0} for name in SINKS}
    calm: Document = {
        "now": iso(),
        "version": "0.1.0",
        "environment": "DEV",
        "started_at": iso(86_400),
        "verdict": "ok",
        "findings": [],
        "rates": {"received": 104.2, "sinks": dict.fromkeys(SINKS, 104.0)},
        "series": {
            "at": at,
            "received": level,
            "settled": dict.fromkeys(SINKS, level),
            "pending": dict.fromkeys(SINKS, none),
            "oldest_pending_seconds": dict.fromkeys(SINKS, none),
        },
        "sinks": [sink(name) for name in SINKS],
        "journal": {
            "bytes": 5_000_000,
            "max_bytes": 4 * 1024**3,
            "seconds_until_full": None,
            "seconds_until_full_without_sinks": 200_000.0,
            "dedupe_window_seconds": 2100.0,
        },
        "mqtt": {
            "connected": True,
            "sessions_lost": 0,
            "broker_dropped": None,
            "qos0_dropped": 0,
            "retained_ignored": 0,
        },
        "ledger": {"balanced": True, "totals": {**line, "sinks": sinks, "taken": 900}},
        "statistics": {"available": True, "problem": None, "behind_seconds": 2.0},
        "sites_total": 2,
        "tags_total": 3,
        "tags_by_state": {"stale": 1},
        "dead_letters_total": 2,
    }
    return {**calm, **changes}


def site(name: str, **changes: Any) -> Document:
    calm: Document = {
        "site": name,
        "rate": 52.1,
        "last_reading_seconds": 0.4,
        "received": 450,
        "accepted": 440,
        "duplicates": 6,
        "rejected": 4,
        "refused": {"field_missing": 3, "payload_not_json": 1},
        "sinks": {sink: {"settled": 440, "pending": 0, "dead_lettered": 0} for sink in SINKS},
        "balanced": True,
        "key_bytes_per_second": 26_000.0,
        "key_share": 0.026,
        "key_seconds_until_limit": None,
    }
    return {**calm, **changes}


def tag(name: str, at: str = "MOR", **changes: Any) -> Document:
    calm: Document = {
        "site": at,
        "pi_tag": name,
        "last_value": 12.5,
        "last_event_time": iso(1),
        "last_received_at": iso(1),
        "age_seconds": 1.0,
        "usual_interval_seconds": 1.0,
        "average_1m": 12.4,
        "average_5m": 12.3,
        "average_30m": 12.1,
        "count_30m": 1800,
        "clock_offset_seconds": 0.1,
        "out_of_order_30m": 0,
        "unchanged_seconds": 1.0,
        "states": [],
        "spark": [None, None, *(12 + number % 3 for number in range(28))],
    }
    return {**calm, **changes}


def letter(number: int, reason: str, payload: bytes, **changes: Any) -> Document:
    calm: Document = {
        "id": number,
        "sink": None,
        "reason": reason,
        "detail": "value: is missing",
        "site": "MOR",
        "topic": "FCTS/FAE/MOR/SolvExtract/SX1-FLOW",
        "payload_bytes": len(payload),
        "received_at": iso(60 * number),
        "event_id": None,
        "excerpt": payload[:60].decode("latin-1"),
        "payload": {
            "text": payload.decode() if payload.isascii() else None,
            "hex": None if payload.isascii() else f"00000000  {payload[:16].hex(' ')}",
            "payload_base64": base64.b64encode(payload).decode(),
        },
    }
    return {**calm, **changes}


SINKS = ("pubsub", "bigquery")


@dataclass
class PageApi:
    """WSGI: answers below `/api/`, everything else is `app`'s. `asked`: the paths, with queries.

    status: what every path below `/api/` answers instead, with `words`; 0: the documents.
    """

    app: Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]
    overview: Document = field(default_factory=overview)
    sites: list[Document] = field(default_factory=lambda: [site("BAG"), site("MOR")])
    tags: list[Document] = field(default_factory=lambda: [tag("FLOW"), tag("LEVEL"), tag("PH")])
    letters: list[Document] = field(default_factory=list)
    status: int = 0
    words: str = ""
    asked: list[str] = field(default_factory=list)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        if not request.path.startswith("/api/"):
            return self.app(environ, start)
        self.asked.append(request.full_path)
        return self._answer(request)(environ, start)

    def _answer(self, request: Request) -> Response:
        if self.status:
            return _json({"error": self.words}, self.status)
        parts = request.path.removeprefix("/api/").split("/")
        document = self._document(parts, {k: v for k, v in request.args.items() if v})
        return _json(document, 200) if document else _json({"error": "not found"}, 404)

    def _document(self, parts: list[str], asked: dict[str, str]) -> Document | None:
        match parts:
            case ["overview"]:
                return self.overview
            case ["sites"]:
                return _page("sites", self.sites, asked)
            case ["tags"]:
                return _page("tags", self.tags, asked)
            case ["tag"]:
                return self._tag(asked)
            case ["dead-letters"]:
                return self._letters(asked)
            case ["dead-letters", number]:
                return next((line for line in self.letters if str(line["id"]) == number), None)
        return None

    def _tag(self, asked: dict[str, str]) -> Document | None:
        found = [
            line
            for line in self.tags
            if (line["site"], line["pi_tag"]) == (asked.get("site", ""), asked["pi_tag"])
        ]
        last = int(time.time()) // 60 * 60
        at = [*range(last - 2100, last - 600, 60), last]
        values = [float(number % 9) for number in range(len(at))]
        series = dict.fromkeys(("average", "minimum", "maximum", "count"), values)
        return {**found[0], "series": {"at": at, **series}} if found else None

    def _letters(self, asked: dict[str, str]) -> Document:
        numbers: dict[str, int] = {}
        for line in self.letters:
            numbers[line["reason"]] = numbers.get(line["reason"], 0) + 1
        page = _page("letters", self.letters, asked)
        page["letters"] = [
            {k: v for k, v in line.items() if k != "payload"} for line in page["letters"]
        ]
        return {**page, "reasons": numbers}


def _page(name: str, lines: list[Document], asked: dict[str, str]) -> Document:
    found = [line for line in lines if _fits(line, asked)]
    offset = int(asked.get("offset", 0))
    return {"total": len(found), name: found[offset : offset + int(asked["limit"])]}


def _fits(line: Document, asked: dict[str, str]) -> bool:
    names = f"{line['site']} {line.get('pi_tag', '')}".lower()
    return (
        asked.get("search", "").lower() in names
        and asked.get("site", line["site"]) == line["site"]
        and asked.get("reason", line.get("reason")) == line.get("reason")
        and ("state" not in asked or asked["state"] in line["states"])
    )


def _json(document: Document, status: int) -> Response:
    return Response(json.dumps(document), status, content_type="application/json")


@contextmanager
def serving() -> Iterator[tuple[PageApi, str]]:
    """The page with these documents behind it, and its address, for as long as the block lasts."""
    daemon = FakeDaemon()
    api = PageApi(create_app(daemon, token=lambda: None, local=True))
    server = HttpServer(api, "127.0.0.1", 0, daemon.beat)
    server.start()
    try:
        yield api, f"http://127.0.0.1:{server.port}/"
    finally:
        server.stop()
