"""What the operators' page says. Pure; `templates/page.html` lays it out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from bridge.snapshot import Ledger, SiteCounts, State
from bridge.web.findings import Finding, now, since_start
from bridge.web.ledger import summed
from bridge.web.words import count, duration, size, when

__all__ = ["count", "duration", "page", "size", "when"]

MAX_SITES = 200


@dataclass(frozen=True)
class Page:
    """Everything the template shows. `wrong`: now; `since_start`: happened, and is over."""

    wrong: list[Finding]
    since_start: list[Finding]
    state: State
    sites: list[tuple[str, SiteCounts]]
    sites_left_out: int
    totals: SiteCounts
    balanced: bool
    taken: int


def page(state: State, ledger: Ledger, stalled: str | None) -> Page:
    """The page of one moment."""
    return Page(
        wrong=list(now(state, ledger, stalled)),
        since_start=list(since_start(state, ledger)),
        state=state,
        sites=list(islice(ledger.sites.items(), MAX_SITES)),
        sites_left_out=max(0, len(ledger.sites) - MAX_SITES),
        totals=summed(ledger.sites.values(), (sink.name for sink in state.sinks)),
        balanced=ledger.balanced,
        taken=ledger.taken,
    )
