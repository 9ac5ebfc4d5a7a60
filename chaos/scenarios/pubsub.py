"""Pub/Sub answers with errors, late, or not at all."""

from __future__ import annotations

from functools import partial
from typing import Any

from chaos.rig import SITES, Rig
from chaos.scenario import Scenario

GROUP = "pubsub"
CALL = "pubsub.Publish"
TRANSIENT = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "ABORTED")
HOLDING = ("NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_ARGUMENT")


def fail(fields: dict[str, Any], rig: Rig) -> None:
    """The other sink goes on meanwhile."""
    before = rig.resolved("bigquery")
    with rig.services.fault(CALL, **fields):
        rig.rest(1.0, 60)
        rig.wait_until(lambda: rig.resolved("bigquery") >= before + 100, "BigQuery goes on")


def hold(status: str, rig: Rig) -> None:
    """Shown as needing an operator, until it is repaired."""
    with rig.services.fault(CALL, status=status):
        rig.wait_until_held()
        rig.rest(0.5, 60)
        rig.require(rig.bridge.ready(), "a held sink made the bridge unready")
    rig.wait_until_held(False)


def fail_one_site(rig: Rig) -> None:
    """The other sites go on meanwhile."""
    site, *others = SITES
    with rig.services.fault(CALL, subject=site, status="UNAVAILABLE"):
        before = _settled(rig, others[0])
        rig.rest(0.5, 60)
        rig.wait_until(lambda: _settled(rig, others[0]) >= before + 50, "other sites go on")


def _settled(rig: Rig, site: str) -> int:
    return int(rig.bridge.ledger()["sites"][site]["sinks"]["pubsub"]["settled"])


def lose_answers(rig: Rig) -> None:
    for _ in range(int(rig.either(2, 20))):
        rig.services.add_fault(CALL, kind="answer_lost", times=4)
        rig.rest(0.4, 2)


def hang(rig: Rig) -> None:
    with rig.services.fault(CALL, kind="hang"):
        rig.rest(1.0, 60)


def slow(rig: Rig) -> None:
    with rig.services.fault(CALL, kind="delay", seconds=rig.either(0.3, 5)):
        rig.rest(1.0, 60)


def restart(rig: Rig) -> None:
    rig.services.kill()
    rig.rest(0.5, 20)
    rig.services.start()


SCENARIOS = (
    *(
        Scenario(
            f"pubsub-{status.lower().replace('_', '-')}",
            GROUP,
            f"every publish answers {status}, for a minute",
            partial(fail, {"status": status}),
        )
        for status in TRANSIENT
    ),
    Scenario("pubsub-cut", GROUP, "connections end within a call", partial(fail, {"kind": "cut"})),
    Scenario("pubsub-one-site", GROUP, "one site's key fails, the others work", fail_one_site),
    Scenario("pubsub-answer-lost", GROUP, "taken, but the answer is lost", lose_answers),
    Scenario("pubsub-hang", GROUP, "calls that are never answered", hang),
    Scenario("pubsub-slow", GROUP, "answers come late", slow),
    *(
        Scenario(
            f"pubsub-{status.lower().replace('_', '-')}",
            GROUP,
            f"{status} until somebody repairs it",
            partial(hold, status),
        )
        for status in HOLDING
    ),
    Scenario("pubsub-restart", GROUP, "the services are killed and started again", restart),
)
