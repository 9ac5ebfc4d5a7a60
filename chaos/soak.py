"""Seeded random mixes of faults, for as long as one likes: what no single scenario meets."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, NamedTuple

from chaos.rig import Rig
from chaos.runner import Result, Runner
from chaos.scenario import Scenario
from chaos.scenarios import absence, bridge, broker

# Sensors cover what a killed broker may forget: its snapshots are about two seconds apart.
COVER_SECONDS = 8.0
Action = Callable[[Rig], None]


class Trouble(NamedTuple):
    """A fault of the services that lasts while other things happen."""

    call: str
    fields: dict[str, Any]


TROUBLES = (
    *(
        Trouble(call, {"status": status})
        for call in ("pubsub.Publish", "storage.*", "*")
        for status in ("UNAVAILABLE", "INTERNAL", "ABORTED", "PERMISSION_DENIED", "NOT_FOUND")
    ),
    *(
        Trouble(call, fields)
        for call in ("pubsub.Publish", "storage.AppendRows")
        for fields in (
            {"kind": "answer_lost"},
            {"kind": "cut"},
            {"kind": "hang"},
            {"kind": "delay", "seconds": 0.5},
        )
    ),
    Trouble("pubsub.Publish", {"status": "UNAVAILABLE", "subject": "MOR"}),
    Trouble("storage.AppendRows", {"status": "ALREADY_EXISTS"}),
    Trouble("storage.AppendRows", {"status": "OUT_OF_RANGE"}),
)


def _end_streams(how: str, rig: Rig) -> None:
    rig.services.post(f"/streams/{how}")


def _restart_services(rig: Rig) -> None:
    """Their faults are gone with them."""
    rig.services.kill()
    rig.rest(rig.random.uniform(0.1, 2))
    rig.services.start()


def _restart_bridge(rig: Rig) -> None:
    """With trouble about, a stop may leave readings behind."""
    code = rig.bridge.terminate()
    rig.require(code in (0, 75), f"a stop ended with {code}")
    rig.bridge.start()


ACTIONS: tuple[Action, ...] = (
    bridge.kill_again_and_again,
    _restart_bridge,
    bridge.freeze,
    *(partial(bridge.die_at, step) for step in ("received", "committed", "acknowledged")),
    broker.restart,
    broker.kill,
    broker.cut,
    broker.cut_within_a_packet,
    broker.vanish,
    broker.take_over,
    _restart_services,
)
# These wait for something to get through, so nothing else may be in the way.
ALONE: tuple[Action, ...] = (
    *(partial(bridge.die_at, step) for step in ("published", "appended", "settling", "settled")),
    *(partial(_end_streams, how) for how in ("finalize", "forget")),
    *(partial(absence.leave_append_undecided, how) for how in ("finalize", "forget")),
)


def mix(chance: Random, rig: Rig) -> None:
    """A few things that go wrong, one after the other, most with up to two troubles about."""
    for _ in range(chance.randrange(2, 5)):
        action = chance.choice(ACTIONS + ALONE)
        if action in ACTIONS:
            _add_troubles(chance, rig)
        action(rig)
        rig.rest(chance.uniform(0, 3))
        rig.services.clear_faults()


def _add_troubles(chance: Random, rig: Rig) -> None:
    for trouble in chance.sample(TROUBLES, chance.randrange(0, 3)):
        rig.services.add_fault(trouble.call, times=chance.choice([None, 1, 5]), **trouble.fields)


def scenario(seed: int, number: int) -> Scenario:
    """The mix of that number; the same seed makes the same choices."""
    return Scenario(
        f"mix-{seed}-{number:03}",
        "soak",
        "a random mix",
        partial(mix, Random(f"{seed}/{number}")),
        settings={"DRAIN_SECONDS": "2"},
        cover_seconds=COVER_SECONDS,
    )


def soak(runner: Runner, minutes: float, seed: int, tell: Callable[[Result], None]) -> list[Result]:
    """Mixes on one journal until the time is up, at least one; ends early when one fails."""
    results: list[Result] = []
    end = time.monotonic() + minutes * 60
    while not results or (time.monotonic() < end and results[-1].holds):
        results.append(runner.run(scenario(seed, len(results) + 1)))
        tell(results[-1])
    return results
