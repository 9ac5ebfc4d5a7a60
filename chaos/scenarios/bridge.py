"""The bridge is killed, stopped, frozen."""

from __future__ import annotations

import signal
from functools import partial

from chaos import steps
from chaos.rig import Rig
from chaos.scenario import Scenario

GROUP = "bridge"
# More than one and a half of the keep-alive of 30 s, after which a broker gives a client up.
BEYOND_KEEP_ALIVE = 50.0


def kill_again_and_again(rig: Rig) -> None:
    for _ in range(int(rig.either(3, 12))):
        rig.rest(rig.random.uniform(0.1, rig.either(0.6, 5.0)))
        rig.bridge.kill()
        rig.bridge.start()


def stop_and_start(rig: Rig) -> None:
    for _ in range(int(rig.either(1, 4))):
        rig.rest(0.3, 3)
        code = rig.bridge.terminate()
        rig.require(code == 0, f"a stop under load ended with {code}")
        rig.bridge.start()


def stop_and_start_without_drain(rig: Rig) -> None:
    """The sinks are away, so that the stop leaves readings behind: it says so."""
    with rig.services.fault("*", status="UNAVAILABLE"):
        rig.rest(0.5, 5)
        code = rig.bridge.terminate()
        rig.require(code == 75, f"a stop with readings left ended with {code}")
        rig.bridge.start()
        rig.rest(0.5, 5)


def freeze(rig: Rig) -> None:
    rig.bridge.pause()
    rig.rest(2.0, BEYOND_KEEP_ALIVE)
    rig.bridge.go_on()


def freeze_beyond_keep_alive(rig: Rig) -> None:
    """In the quick form the broker gives the client up at once: its connection is reset."""
    rig.bridge.pause()
    if rig.quick:
        rig.rest(0.5)
        rig.proxy.cut()
        rig.rest(0.5)
    else:
        rig.rest(BEYOND_KEEP_ALIVE)
    rig.bridge.go_on()


def die_at(step: str, rig: Rig) -> None:
    for _ in range(int(rig.either(1, 5))):
        rig.bridge.terminate()
        if step == "stream-created":
            rig.services.post("/streams/forget")
        passes = rig.random.randrange(1, 30) if step in FREQUENT else 0
        rig.bridge.start(
            "run",
            wait=False,
            entrance=steps.ENTRANCE,
            CHAOS_STEP=step,
            CHAOS_STEP_AT=str(passes),
        )
        code = rig.wait_for_death()
        rig.require(code == -signal.SIGKILL, f"the bridge was not killed: it ended with {code}")
        rig.bridge.start()


# Points that are passed many times a second; the others may be passed once in a life.
FREQUENT = frozenset(steps.STEPS) - {"stream-created", "tidied"}
STORIES = {
    "received": "killed with messages in hand, before their commit",
    "committed": "killed after the commit, before any PUBACK",
    "acknowledged": "killed after PUBACKs were written",
    "loaded": "killed with a batch taken from the journal, before it is written",
    "published": "killed after Pub/Sub took a batch, before it is settled",
    "stream-created": "killed after a write stream was made, before it is written down",
    "intent-recorded": "killed after an append was written down, before it is sent",
    "appended": "killed after BigQuery took an append, before it is settled",
    "inserted": "killed after BigQuery took rows by insertAll, before they are settled",
    "settling": "killed before a settlement is committed",
    "settled": "killed after a settlement",
    "tidied": "killed after the journal was tidied",
}


def _deaths() -> list[Scenario]:
    return [
        Scenario(
            f"killed-{step}",
            GROUP,
            story,
            partial(die_at, step),
            settings={"BIGQUERY_WRITE_METHOD": "insert_all"} if step == "inserted" else {},
            alone=step == "stream-created",
        )
        for step, story in STORIES.items()
    ]


SCENARIOS = (
    Scenario("kill-9", GROUP, "kill -9 again and again", kill_again_and_again),
    Scenario("restart", GROUP, "SIGTERM and a new start under load", stop_and_start),
    Scenario(
        "stop-undrained",
        GROUP,
        "SIGTERM while both services are away: exit 75, the rest after the start",
        stop_and_start_without_drain,
        settings={"DRAIN_SECONDS": "1"},
    ),
    Scenario("frozen", GROUP, "SIGSTOP, with the connections left open", freeze),
    Scenario(
        "frozen-beyond-keep-alive",
        GROUP,
        "SIGSTOP for longer than the keep-alive: the broker gives the client up",
        freeze_beyond_keep_alive,
    ),
    *_deaths(),
)
