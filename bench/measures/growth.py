"""Whether memory, and the cost of a reading, grow with the backlog, the sites or the tags."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from bench import process
from bench.generator import Load
from bench.measures.throughput import drain
from bench.scale import Scale
from bench.section import Row, Section, Tell
from bench.stage import Stage
from bench.subjects import BRIDGE
from chaos.bridge_process import Bridge


def measure(scale: Scale, tell: Tell) -> Section:
    rows = []
    for row in _rows(scale):
        rows.append(row)
        tell(f"{row['size']:,} of {row['of']}: {row['resident_mb']:.0f} MB resident")
    return Section(
        "growth",
        "What grows with the load",
        "Backlog: readings that wait for both services, and the cost of taking them in. Sites and "
        "tags: the cost of the whole way.",
        rows,
    )


def _rows(scale: Scale) -> Iterator[Row]:
    yield from _backlog(scale)
    for sites in scale.sites:
        yield _shape("sites", sites, Load(scale.growth, sites=sites, tags=max(scale.sites)))
    for tags in scale.tags:
        yield _shape("tags", tags, Load(scale.growth, tags=tags))


def _shape(of: str, size: int, load: Load) -> Row:
    found = drain(BRIDGE, load)
    cost = found.cpu_seconds / found.readings * 1e6
    return _row(of, size, found.resident_mb, cost)


def _backlog(scale: Scale) -> Iterator[Row]:
    with Stage() as stage:
        running = BRIDGE.start(stage)
        bridge = running.bridge
        yield _row("backlog", 0, process.resident_mb(running.pid), None)
        for call in ("pubsub.*", "storage.*"):
            stage.services.add_fault(call, status="UNAVAILABLE", times=None)
        for before, size in pairwise((0, *scale.backlog)):
            cpu = process.cpu_seconds(running.pid)
            stage.send(Load(size - before, first=before))
            stage.wait_until(partial(_waiting, bridge, size), f"{size} readings wait")
            cost = (process.cpu_seconds(running.pid) - cpu) / (size - before) * 1e6
            yield _row("backlog", size, process.resident_mb(running.pid), cost)
        stage.services.clear_faults()
        running.finish(scale.backlog[-1])


def _waiting(bridge: Bridge, count: int) -> bool:
    sinks = bridge.ledger()["totals"]["sinks"].values()
    return all(sink["pending"] >= count for sink in sinks)


def _row(of: str, size: int, resident_mb: float, cost: float | None) -> Row:
    return {"of": of, "size": size, "resident_mb": resident_mb, "cpu_us_per_reading": cost}
