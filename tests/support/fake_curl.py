"""A `curl` for dry runs: records its arguments and what it was given by standard input, and answers
for bridges by their host. Its state is a JSON file (FAKE_CURL_STATE):

    unready    beginnings of hosts whose /readyz fails
    ledger     what /ledger answers; empty: an error
    calls      [arguments, standard input], in order
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> int:
    path = Path(os.environ["FAKE_CURL_STATE"])
    state = json.loads(path.read_text())
    words = sys.argv[1:]
    given = sys.stdin.read() if "--config" in words else ""
    state["calls"].append([words, given])
    path.write_text(json.dumps(state))
    url = words[-1]
    if url.endswith("/readyz"):
        return 22 if any(url.startswith(f"https://{host}") for host in state["unready"]) else 0
    print(state["ledger"])
    return 0 if state["ledger"] else 22


if __name__ == "__main__":
    sys.exit(main())
