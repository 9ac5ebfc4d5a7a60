"""`python -m container.opening`: HAProxy, the sensors' way in, once the bridge is subscribed.

Before that the broker would acknowledge readings for which it has nobody, and drop them. Afterwards
the bridge's session stays with the broker, whatever becomes of the bridge, so the way in is opened
without another look when HAProxy has to be started again.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from container.probe import status

OPENED = "opened"
POLL_SECONDS = 0.2


def main(directory: Path) -> None:
    """Blocks until the bridge is ready, and becomes HAProxy then. Raises OSError without one."""
    opened = directory / OPENED
    while not opened.exists():
        if status("/readyz", os.environ) == 200:
            opened.touch()
        else:
            time.sleep(POLL_SECONDS)
    # -db: in this process, which gets Supervisor's signals.
    os.execvp("haproxy", ["haproxy", "-db", "-f", str(directory / "haproxy.cfg")])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
