"""All scenarios, by what is broken."""

from __future__ import annotations

from collections.abc import Iterable

from chaos.scenario import Scenario
from chaos.scenarios import absence, bigquery, bridge, broker, inputs, machine, pubsub

ALL: tuple[Scenario, ...] = (
    *bridge.SCENARIOS,
    *broker.SCENARIOS,
    *pubsub.SCENARIOS,
    *bigquery.SCENARIOS,
    *absence.SCENARIOS,
    *machine.SCENARIOS,
    *inputs.SCENARIOS,
)


def in_order(scenarios: Iterable[Scenario]) -> list[Scenario]:
    """Those of one stage behind each other, in which they then may share a bridge."""
    chosen = list(scenarios)
    first = {scenario.stage: index for index, scenario in reversed(list(enumerate(chosen)))}
    return sorted(chosen, key=lambda scenario: first[scenario.stage])
