"""The ledger as `/ledger` and the metrics show it: folded past a number of sites, summed, JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from bridge.snapshot import OTHER_SITE, Ledger, SinkCounts, SiteCounts

MAX_SITES = 10_000


def folded(sites: Mapping[str, SiteCounts], limit: int) -> dict[str, SiteCounts]:
    """At most `limit` sites and, where there are more, the sum of the rest as `__other__`.

    The first to appear (the mapping's order) keep their line, so that a site never changes from
    one line into the other and every line only ever grows. What already counts as `__other__`
    stays in there.
    """
    own = [site for site in sites if site != OTHER_SITE]
    if len(own) <= limit:
        return dict(sites)
    rest = [sites[site] for site in (*own[limit:], OTHER_SITE) if site in sites]
    return {site: sites[site] for site in islice(own, limit)} | {OTHER_SITE: summed(rest)}


def summed(lines: Iterable[SiteCounts], sinks: Iterable[str] = ()) -> SiteCounts:
    """The sum of ledger lines; each of `sinks` is there even if no line knows it."""
    received = accepted = duplicates = rejected = 0
    by_sink: dict[str, list[SinkCounts]] = {sink: [] for sink in sinks}
    for line in lines:
        received += line.received
        accepted += line.accepted
        duplicates += line.duplicates
        rejected += line.rejected
        for name, counts in line.sinks.items():
            by_sink.setdefault(name, []).append(counts)
    totals = {name: _sum_of_sink(counts) for name, counts in by_sink.items()}
    return SiteCounts(received, accepted, duplicates, rejected, totals)


def _sum_of_sink(counts: list[SinkCounts]) -> SinkCounts:
    return SinkCounts(
        settled=sum(count.settled for count in counts),
        pending=sum(count.pending for count in counts),
        dead_lettered=sum(count.dead_lettered for count in counts),
        skipped=sum(count.skipped for count in counts),
    )


def ledger_document(ledger: Ledger, sinks: Iterable[str]) -> dict[str, Any]:
    """What `/ledger` answers. `sinks`: the names of the running sinks, for the totals of a bridge
    that has seen nothing yet."""
    sites = folded(ledger.sites, MAX_SITES)
    return {
        "balanced": ledger.balanced,
        "sites": {site: line_document(counts) for site, counts in sites.items()},
        "totals": totals_document(ledger, sinks) | {"taken": ledger.taken},
    }


def totals_document(ledger: Ledger, sinks: Iterable[str]) -> dict[str, Any]:
    """The sum of all sites' lines."""
    return line_document(summed(ledger.sites.values(), sinks))


def line_document(counts: SiteCounts) -> dict[str, Any]:
    return {
        "received": counts.received,
        "accepted": counts.accepted,
        "duplicates": counts.duplicates,
        "rejected": counts.rejected,
        "sinks": {name: _sink(sink) for name, sink in counts.sinks.items()},
    }


def _sink(counts: SinkCounts) -> dict[str, int]:
    shown = {
        "settled": counts.settled,
        "pending": counts.pending,
        "dead_lettered": counts.dead_lettered,
    }
    return shown | ({"skipped": counts.skipped} if counts.skipped else {})
