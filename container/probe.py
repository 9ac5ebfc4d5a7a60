"""`python -m container.probe PATH`: whether the bridge answers on a path with 200. The image has no
curl; this one also goes past proxies."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

SECONDS = 5.0
EVERY_ADDRESS = ("", "0.0.0.0", "::")


def status(path: str, environ: Mapping[str, str]) -> int | None:
    """The HTTP status of a path of the bridge that runs with `environ`; None when it does not
    answer within five seconds."""
    host = environ.get("HTTP_HOST", "")
    port = int(environ.get("PORT") or 8080)
    connection = HTTPConnection("127.0.0.1" if host in EVERY_ADDRESS else host, port, SECONDS)
    with suppress(OSError, HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status
    return None


if __name__ == "__main__":
    sys.exit(status(sys.argv[1], os.environ) != 200)
