"""A new container beside the old one, as a deploy starts it: nothing acknowledged is lost."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

from chaos.proxy import Proxy
from tests.support.container import Stack, stack
from tests.support.container_plant import cloud, load_on, wait_for_readings
from tests.support.poll import eventually
from tests.support.storage import storage


def test_sensors_that_go_on_sending_through_a_redeploy_lose_and_double_nothing(
    tmp_path: Path,
) -> None:
    for each in ("old", "new"):
        (tmp_path / each).mkdir()
    with (
        cloud(tmp_path / "cloud") as google,
        storage(tmp_path / "storage") as stored,
        stack(tmp_path / "old", **google.environ, **stored.environment, DRAIN_SECONDS="3") as old,
        stack(tmp_path / "new", **google.environ, **stored.environment) as new,
        # What the sensors' name leads to.
        Proxy(old.ports.mqtt) as name,
    ):
        with load_on(name.port) as load:
            wait_for_readings(load, 500)
            google.services.add_fault("storage.AppendRows", times=None)
            wait_for_readings(load, 500)
            # BigQuery is away, so it cannot drain: it hands over, and its disk goes.
            assert old.stop() == 0
            shutil.rmtree(tmp_path / "old" / "data")
            eventually(lambda: accepted(new) >= 500, "the new one has what the old one had", 60)
            name.lead_to(new.ports.mqtt)
            wait_for_readings(load, 500)
            google.services.clear_faults()
            wait_for_readings(load, 100)
        google.wait_for_all(load)
        assert new.stop() == 0


def accepted(programs: Stack) -> int:
    url = f"http://127.0.0.1:{programs.environ['PORT']}/ledger"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(json.load(answer)["totals"]["accepted"])
