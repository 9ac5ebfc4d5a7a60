"""Pictures of the operators' page for the documentation, of a real bridge: make screenshots.

A simulator streams readings of several sites through Mosquitto and the bridge into the local Google
services. Three states are waited for and photographed: all well, one sink away with a backlog, and
refusals coming in.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect

from bridge.cli.processes import Program
from chaos.bridge_process import Bridge
from localgcp.faults import Fault
from tests.browser.chromium import PHONE, Visit, chromium
from tests.support.plant import Plant, plant

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "screenshots"
WINDOW = {"width": 1280, "height": 1300}
FORMS: dict[str, dict[str, Any]] = {
    "": {"viewport": WINDOW},
    "-dark": {"viewport": WINDOW, "color_scheme": "dark"},
    "-phone": {"viewport": PHONE},
}
SITES = "MOR,BAG,SIE,CHI,SAF"


@contextmanager
def simulating(made: Plant, *options: str) -> Iterator[None]:
    """A simulator for as long as the block lasts."""
    words = ["simulate", "--sites", SITES, "--tags", "12", "--rate", "200", "--duplicates", "1"]
    command = [sys.executable, "mqtt_subscriber.py", *words, *options]
    program = Program("simulator", command, made.directory, made.environment, ROOT)
    try:
        yield
    finally:
        program.stop(30)


def photograph(
    browser: Browser, url: str, name: str, view: str, banner: str, *further: str
) -> None:
    """In light, and in further forms; waits until the banner says so."""
    for suffix in ("", *further):
        with Visit(browser, url, **FORMS[suffix]) as visit:
            page = visit.go(view)
            expect(page.get_by_role("status")).to_contain_text(banner)
            page.wait_for_timeout(1_000)  # the charts
            page.screenshot(path=PICTURES / f"{name}{suffix}.png")


def first_tag(bridge: Bridge) -> str:
    """The view of a tag that there is."""
    tag = json.loads(bridge.text("/api/tags?limit=1"))["tags"][0]
    return f"tags?at={tag['site']}&tag={tag['pi_tag']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150, help="before each picture")
    seconds = parser.parse_args().seconds
    PICTURES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        plant(Path(directory)) as made,
        chromium() as browser,
    ):
        bridge = made.bridge()
        bridge.start()
        url = f"http://127.0.0.1:{bridge.port}/"
        with simulating(made):
            time.sleep(seconds)
            photograph(browser, url, "all-well", "overview", "✓", "-phone")
            photograph(browser, url, "tag", first_tag(bridge), "✓")
            fault = Fault("pubsub.Publish", status="NOT_FOUND", times=None)
            made.services.faults.add(fault)
            time.sleep(seconds)
            photograph(browser, url, "sink-away", "overview", "✗", "-dark")
            made.services.faults.clear()
        with simulating(made, "--junk", "5"):
            time.sleep(seconds)
            photograph(browser, url, "refusals", "letters", "!")
        bridge.terminate()


if __name__ == "__main__":
    main()
