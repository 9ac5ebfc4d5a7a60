"""All scenarios, by what is broken."""

from __future__ import annotations

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
