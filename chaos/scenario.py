"""What a scenario is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.rig import Rig


@dataclass(frozen=True)
class Scenario:
    """One fault under load.

    name: short, unique, with dashes. group: what is broken. story: one sentence, what happens.
    fault: injects it and returns when everything outside the bridge is whole again and the bridge
        runs. It may block as long as it takes.
    settings: variables for the bridge. broker: further lines of the broker's configuration.
    cover_seconds: sensors that send again after a lost connection (`chaos.sensors.Sensor`).
    alone: whether it leaves the journal in a state that no other scenario should begin with.
    disk_bytes: if not 0, the journal is on a disk of its own of this size (needs root).
    padding: bytes of an extra member in each reading. rate: readings a second and site.
    """

    name: str
    group: str
    story: str
    fault: Callable[[Rig], None]
    settings: Mapping[str, str] = field(default_factory=dict)
    broker: str = ""
    cover_seconds: float = 0.0
    alone: bool = False
    disk_bytes: int = 0
    padding: int = 0
    rate: float = 100.0

    @property
    def stage(self) -> tuple[object, ...]:
        """Scenarios of one stage may follow each other on one bridge with one journal."""
        own = self.name if self.alone else ""
        return (tuple(sorted(self.settings.items())), self.broker, self.disk_bytes, own)
