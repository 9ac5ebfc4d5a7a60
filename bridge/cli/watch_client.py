"""Asking a running bridge over HTTP, from this machine or another."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode, urlsplit

from bridge.errors import FatalError

ASK_SECONDS = 5.0
MAX_BYTES = 16 * 1024**2
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Document = dict[str, Any]


class NoAnswer(FatalError):
    """The bridge did not answer; the words have the remedy."""


class BridgeClient:
    """One bridge's `/api`. url: up to the port; token: None where none is needed."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A proxy is for the way to other machines, and never for this one.
        own = urlsplit(url).hostname in LOOPBACK
        handlers = [urllib.request.ProxyHandler({})] if own else []
        self._opener = urllib.request.build_opener(*handlers)

    def overview(self) -> Document:
        return self._asked("/api/overview", {}, "verdict")

    def tags(self, **wanted: str | int | None) -> Document:
        given = {name: value for name, value in wanted.items() if value is not None}
        return self._asked("/api/tags", given, "tags")

    def _asked(self, path: str, given: dict[str, Any], member: str) -> Document:
        """Blocks for seconds at most. Raises NoAnswer; also where what answers has no such
        member."""
        request = urllib.request.Request(
            f"{self._url}{path}?{urlencode(given)}", headers=self._headers
        )
        try:
            with self._opener.open(request, timeout=ASK_SECONDS) as answer:
                document = json.loads(answer.read(MAX_BYTES))
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except (OSError, urllib.error.URLError) as error:
            why = getattr(error, "reason", error)
            raise NoAnswer(
                f"{self._url}: no answer ({why}). Remedy: see that the bridge runs there, and "
                "that --url has its host and its PORT."
            ) from error
        except ValueError as error:
            raise self._no_bridge() from error
        if not isinstance(document, dict) or member not in document:
            raise self._no_bridge()
        return document

    def _refused(self, error: urllib.error.HTTPError) -> NoAnswer:
        with error:
            words = _words(error)
        if error.code == 401:
            return NoAnswer(
                f"{self._url}: the bridge wants its token. Remedy: set HTTP_TOKEN or "
                "HTTP_TOKEN_FILE as the bridge has it, or give --token."
            )
        return self._no_bridge() if words is None else NoAnswer(f"{self._url}: {words}")

    def _no_bridge(self) -> NoAnswer:
        return NoAnswer(
            f"{self._url}: what answers there is no bridge, or one without /api. Remedy: correct "
            "--url, or start a newer bridge there."
        )


def _words(error: urllib.error.HTTPError) -> str | None:
    """What a bridge says of an error; None where it says nothing of use, or is none."""
    try:
        document = json.loads(error.read(MAX_BYTES))
    except (OSError, ValueError):
        return None
    known = isinstance(document, dict) and error.code in (400, 503)
    return str(document["error"]) if known and "error" in document else None
