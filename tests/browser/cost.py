"""What the operators' page costs the daemon: python -m tests.browser.cost

The daemon takes 2,000 readings a second of 200 sites with 100 tags each. Its CPU is read from /proc
over the same time with the page closed and with one view after the other open in a browser. Then
the simulator stops, and each document is asked for many times in a row: its cost by itself.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from bridge.cli.processes import Program
from chaos.bridge_process import Bridge
from tests.browser.chromium import Visit, chromium
from tests.support.plant import plant
from tests.support.poll import eventually

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = 100
DOCUMENTS = ("overview", "sites?limit=100", "tags?limit=50", "dead-letters?limit=50")
VIEWS = ("", "overview", "", "sites", "", "tags", "")
WARM_UP_SECONDS = 60


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process since its start, in user mode and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answer_seconds(bridge: Bridge, document: str) -> float:
    """The daemon's CPU for one answer."""
    first = cpu_seconds(bridge.program.pid)
    for _ in range(ANSWERS):
        bridge.text(f"/api/{document}")
    return (cpu_seconds(bridge.program.pid) - first) / ANSWERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", default="2000", help="readings a second")
    parser.add_argument("--seconds", type=float, default=60, help="for each view")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        plant(Path(directory)) as made,
        chromium() as browser,
    ):
        bridge = made.bridge()
        bridge.start()
        words = ["simulate", "--sites", "200", "--tags", "100", "--rate", options.rate]
        command = [sys.executable, "mqtt_subscriber.py", *words]
        simulator = Program("simulator", command, made.directory, made.environment, ROOT)
        try:
            time.sleep(WARM_UP_SECONDS)
            url = f"http://127.0.0.1:{bridge.port}/"
            for view in VIEWS:
                with Visit(browser, url) if view else nullcontext() as visit:
                    if visit:
                        visit.go(view)
                    first, began = cpu_seconds(bridge.program.pid), time.monotonic()
                    taken = bridge.ledger()["totals"]["taken"]
                    time.sleep(options.seconds)
                    took = time.monotonic() - began
                    used = (cpu_seconds(bridge.program.pid) - first) / took
                    rate = (bridge.ledger()["totals"]["taken"] - taken) / took
                shown = view or "(closed)"
                print(f"{shown:10} {used * 100:6.2f} % of a core at {rate:.0f}/s", flush=True)
        finally:
            simulator.stop(30)
        eventually(lambda: bridge.settled(1), "all is settled", 120)
        for document in DOCUMENTS:
            print(f"{document:22} {answer_seconds(bridge, document) * 1000:6.1f} ms of CPU")
        bridge.terminate()


if __name__ == "__main__":
    main()
