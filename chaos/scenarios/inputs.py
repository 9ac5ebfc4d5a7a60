from chaos.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = ()
