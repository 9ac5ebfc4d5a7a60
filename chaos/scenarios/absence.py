"""The bridge is away for long, and what it finds when it comes back."""

from __future__ import annotations

import signal
from functools import partial

from chaos import steps
from chaos.rig import Rig
from chaos.scenario import Scenario

GROUP = "absence"
RETENTION_MINUTES = "0.05"
BEYOND_RETENTION = 4.0
TWO_HOURS = 7_200
REFUSALS = (
    ("pubsub.*", {"status": "PERMISSION_DENIED"}),
    ("storage.*", {"status": "PERMISSION_DENIED"}),
    ("bigquery.*", {"status": "403", "reason": "accessDenied"}),
)


def stay_away_beyond_retention(rig: Rig) -> None:
    """Killed with readings committed that the broker knows nothing of; while it is away more time
    passes, by every clock, than readings are kept."""
    before = rig.total("duplicates")
    _die_at(rig, "committed", 20)
    rig.rest(BEYOND_RETENTION, 60)
    clock = rig.directory / "clock"
    steps.set_clock(clock, TWO_HOURS)
    rig.bridge.start("run", entrance=steps.ENTRANCE, CHAOS_CLOCK_FILE=str(clock))
    rig.wait_until(lambda: rig.total("duplicates") > before, "the broker has sent them again", 20)


def leave_append_undecided(how: str, rig: Rig) -> None:
    """Killed after an append was applied; meanwhile its stream is over."""
    _die_at(rig, "appended", 10)
    rig.services.post(f"/streams/{how}")
    rig.bridge.start()


def leave_append_unsent(how: str, rig: Rig) -> None:
    """Killed after an append was written down and before it was sent; its stream is over."""
    _die_at(rig, "intent-recorded", 10)
    rig.services.post(f"/streams/{how}")
    rig.bridge.start()


def refuse_everything(rig: Rig) -> None:
    """All permission is withdrawn, and the bridge started again meanwhile: held, not given up."""
    before = _given_up(rig)
    numbers = [rig.services.add_fault(call, times=None, **fields) for call, fields in REFUSALS]
    rig.wait_until_held()
    rig.rest(0.5, 60)
    rig.bridge.kill()
    rig.bridge.start()
    rig.wait_until_held()
    rig.rest(0.5, 60)
    lost = _given_up(rig) - before
    rig.require(lost == 0, f"{lost} readings were given up")
    for number in numbers:
        rig.services.remove_fault(number)
    rig.wait_until_held(False)


def _given_up(rig: Rig) -> int:
    return sum(rig.of_sink(sink, "dead_lettered") for sink in ("pubsub", "bigquery"))


def change_destination(rig: Rig) -> None:
    """With readings in the journal the start is refused, until the old destination is back."""
    with rig.services.fault("pubsub.Publish", status="UNAVAILABLE"):
        rig.rest(0.5, 10)
        rig.bridge.kill()
        rig.bridge.start(wait=False, PUBSUB_TOPIC="somewhere-else")
        code = rig.wait_for_death()
        rig.require(code == 78, f"another destination ended with {code} instead of 78")
        rig.require("accept-destination-change" in rig.bridge.log, "the remedy is not told")
    rig.bridge.start()


def _die_at(rig: Rig, step: str, passes: int) -> None:
    rig.bridge.terminate()
    passed = {"CHAOS_STEP": step, "CHAOS_STEP_AT": str(passes)}
    rig.bridge.start("run", wait=False, entrance=steps.ENTRANCE, **passed)
    code = rig.wait_for_death()
    rig.require(code == -signal.SIGKILL, f"the bridge was not killed: it ended with {code}")


SCENARIOS = (
    Scenario(
        "away-beyond-retention",
        GROUP,
        "killed between commit and PUBACK, and away for longer than readings are kept",
        stay_away_beyond_retention,
        {"JOURNAL_RETENTION_MINUTES": RETENTION_MINUTES},
        alone=True,
    ),
    *(
        Scenario(
            f"append-undecided-{how}",
            GROUP,
            f"killed with an append applied, its stream {what} meanwhile",
            partial(leave_append_undecided, how),
        )
        for how, what in (("finalize", "finalized"), ("forget", "gone"))
    ),
    *(
        Scenario(
            f"append-unsent-{how}",
            GROUP,
            f"killed with an append written down only, its stream {what} meanwhile",
            partial(leave_append_unsent, how),
        )
        for how, what in (("finalize", "finalized"), ("forget", "gone"))
    ),
    Scenario(
        "everything-refused",
        GROUP,
        "all permission is withdrawn, with a restart in between",
        refuse_everything,
    ),
    Scenario(
        "destination-changed",
        GROUP,
        "another topic is configured while readings are pending",
        change_destination,
    ),
)
