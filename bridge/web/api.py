"""The documents of `/api/…`: the daemon's figures as JSON for the operators' page and `watch`.

What each holds is said in `docs/api.md`. Nothing in here waits for the network; the queries of the
statistics file take milliseconds, and where it is not there the rest is answered without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from bridge.clock import Clock
from bridge.snapshot import Daemon, Ledger, SinkState, SiteCounts, State
from bridge.statistics import Statistics
from bridge.statistics.latency import percentile
from bridge.statistics.sampler import key_usage
from bridge.statistics.series import Sample, Series, seconds_until
from bridge.statistics.tags import NoFigures
from bridge.times import iso_us
from bridge.version import VERSION
from bridge.web import findings
from bridge.web.findings import Finding
from bridge.web.ledger import line_document, totals_document
from bridge.web.parameters import Parameters

LATENCY_SECONDS = 300.0
KEY_BYTES_PER_SECOND = 1_000_000  # what Pub/Sub takes per ordering key
MAX_SITES = 1_000
SITE_ORDERS = ("site", "rate", "age", "pending", "key")

Document = dict[str, Any]
T = TypeVar("T")


class Source(NamedTuple):
    """What the documents are made from. environment: APP_ENV."""

    daemon: Daemon
    statistics: Statistics
    environment: str
    clock: Clock


class Site(NamedTuple):
    """One site's figures, as far as all sites need them for sorting."""

    name: str
    line: SiteCounts
    rate: float | None
    age: float | None
    key: float | None

    @property
    def pending(self) -> int:
        return sum(sink.pending for sink in self.line.sinks.values())


# --- overview -------------------------------------------------------------------------------------


def overview(source: Source) -> Document:
    """Everything about the daemon as a whole."""
    state, ledger = source.daemon.state(), source.daemon.ledger()
    series = source.statistics.samples.series()
    found = _findings(source, state, ledger)
    return {
        "now": iso_us(source.clock.now_us()),
        "version": VERSION,
        "environment": source.environment,
        "started_at": iso_us(source.statistics.started_us),
        "verdict": findings.verdict(found),
        "findings": [_finding(source, finding) for finding in found],
        "rates": _rates(state, series),
        "series": _series(state, series),
        "sinks": [_sink(source, sink, series) for sink in state.sinks],
        "journal": _journal(source, state),
        "mqtt": _mqtt(state),
        "ledger": {
            "balanced": ledger.balanced,
            "totals": totals_document(ledger, [sink.name for sink in state.sinks]),
            "taken": ledger.taken,
        },
        "sites_total": len(ledger.sites),
        **_tag_figures(source),
    }


def _findings(source: Source, state: State, ledger: Ledger) -> list[Finding]:
    found = [
        *findings.now(state, ledger, source.daemon.stalled()),
        *findings.since_start(state, ledger),
    ]
    kept = _letters_kept(source)
    if kept is None or kept:
        return found
    # Somebody has dealt with all of them.
    return [finding for finding in found if finding.fact != "dead_letters"]


def _finding(source: Source, finding: Finding) -> Document:
    since = None if finding.fact is None else source.statistics.samples.since(finding.fact)
    return {
        "level": finding.level,
        "what": finding.what,
        "since": _iso(since),
        "remedy": finding.remedy,
    }


def _rates(state: State, series: Series) -> Document:
    return {
        "received": rounded(series.rate(lambda sample: sample.received)),
        "sinks": {sink.name: rounded(series.rate(_settled(sink.name))) for sink in state.sinks},
    }


def _series(state: State, series: Series) -> Document:
    samples = series.samples
    names = [sink.name for sink in state.sinks]
    return {
        "at": [sample.unix for sample in samples],
        "received": _all_rounded(series.rates(lambda sample: sample.received)),
        "settled": {name: _all_rounded(series.rates(_settled(name))) for name in names},
        "pending": {name: [sample.sinks[name].pending for sample in samples] for name in names},
        "oldest_pending_seconds": {
            name: _all_rounded([sample.sinks[name].oldest_pending_seconds for sample in samples])
            for name in names
        },
    }


def _settled(name: str) -> Callable[[Sample], float]:
    return lambda sample: sample.sinks[name].settled


def _sink(source: Source, sink: SinkState, series: Series) -> Document:
    return {
        "name": sink.name,
        "pending": sink.pending,
        "oldest_pending_seconds": rounded(sink.oldest_pending_seconds),
        "held": sink.held,
        "last_error": sink.last_error,
        "error_since": _iso(source.statistics.samples.since(f"error {sink.name}")),
        "remedy": findings.sink_remedy(sink),
        "settled_per_second": rounded(series.rate(_settled(sink.name))),
        "latency_p50_seconds": _latency(0.50, sink, series),
        "latency_p99_seconds": _latency(0.99, sink, series),
    }


def _latency(share: float, sink: SinkState, series: Series) -> float | None:
    before = series.back(LATENCY_SECONDS)
    if before is None:
        return None
    counts = sink.settle_latency_seconds
    early = before.sinks[sink.name].latencies
    return rounded(percentile(share, counts.bounds, early, counts.cumulative), 6)


def _journal(source: Source, state: State) -> Document:
    return {
        "bytes": state.journal_bytes,
        "max_bytes": source.statistics.max_bytes,
        "seconds_until_full": rounded(state.journal_seconds_until_full),
        "seconds_until_full_without_sinks": rounded(
            source.statistics.seconds_until_full_without_sinks()
        ),
        "dedupe_window_seconds": rounded(state.dedupe_window_seconds),
    }


def _mqtt(state: State) -> Document:
    return {
        "connected": state.mqtt_connected,
        "sessions_lost": state.sessions_lost,
        "broker_dropped": state.broker_dropped,
        "qos0_dropped": state.qos0_dropped,
        "retained_ignored": state.retained_ignored,
    }


def _tag_figures(source: Source) -> Document:
    statistics = source.statistics
    counts = asked(lambda: statistics.tags.by_state(source.clock.now_us()))
    letters = _letters_kept(source)
    return {
        "statistics": {
            "available": counts is not None,
            "problem": statistics.problem,
            "behind_seconds": rounded(statistics.behind_seconds),
            "tags_left_out": statistics.tags_left_out,
        },
        "tags_total": None if counts is None else counts[0],
        "tags_by_state": None if counts is None else counts[1],
        "dead_letters_total": letters,
    }


def _letters_kept(source: Source) -> int | None:
    reasons = asked(source.statistics.tags.reasons)
    return None if reasons is None else sum(reasons.values())


# --- sites ----------------------------------------------------------------------------------------


def sites(source: Source, given: Parameters) -> Document:
    """One page of sites."""
    search = (given.text("search") or "").lower()
    found = [site for site in _all_sites(source) if search in site.name.lower()]
    order = given.choice("sort", SITE_ORDERS, "site")
    found.sort(key=_order(order), reverse=given.flag("descending"))
    offset, limit = given.number("offset", 0), given.number("limit", 200, MAX_SITES)
    page = found[offset : offset + limit]
    refused = asked(lambda: source.statistics.tags.refused([site.name for site in page]))
    return {
        "total": len(found),
        "sites": [_site(source, site, (refused or {}).get(site.name, {})) for site in page],
    }


def _all_sites(source: Source) -> list[Site]:
    ledger: Ledger = source.daemon.ledger()
    rates: Sequence[float | None] = source.statistics.samples.site_rates()
    newest = asked(source.statistics.tags.last_received) or {}
    usage = key_usage(source.daemon.state())
    now_us = source.clock.now_us()
    # A site that came after the last sample has no rate yet.
    rates = [*rates, *[None] * (len(ledger.sites) - len(rates))]
    return [
        Site(
            name,
            line,
            rate,
            max(0, now_us - newest[name]) / 1e6 if name in newest else None,
            usage.get(name),
        )
        for (name, line), rate in zip(ledger.sites.items(), rates, strict=False)
    ]


def _order(name: str) -> Callable[[Site], tuple[float, str]]:
    keys: dict[str, Callable[[Site], float | None]] = {
        "site": lambda site: 0,
        "rate": lambda site: site.rate,
        "age": lambda site: site.age,
        "pending": lambda site: site.pending,
        "key": lambda site: site.key,
    }
    return lambda site: (keys[name](site) or 0.0, site.name)


def _site(source: Source, site: Site, refused: dict[str, int]) -> Document:
    growth = source.statistics.samples.key_growth(site.name)
    until = None if site.key is None else seconds_until(KEY_BYTES_PER_SECOND, site.key, growth)
    return {
        "site": site.name,
        "rate": rounded(site.rate),
        "last_reading_seconds": rounded(site.age),
        **line_document(site.line),
        "refused": refused,
        "balanced": site.line.balanced,
        "key_bytes_per_second": rounded(site.key),
        "key_share": rounded(None if site.key is None else site.key / KEY_BYTES_PER_SECOND, 6),
        "key_seconds_until_limit": rounded(until),
    }


# --- parts ----------------------------------------------------------------------------------------


def asked(question: Callable[[], T]) -> T | None:
    """What the figures of tags answer; None where there are none."""
    try:
        return question()
    except NoFigures:
        return None


def _iso(micros: int | None) -> str | None:
    return None if micros is None else iso_us(micros)


def rounded(value: float | None, digits: int = 3) -> float | None:
    """None as well for what JSON has no number for."""
    return None if value is None or not math.isfinite(value) else round(value, digits)


def _all_rounded(values: Sequence[float | None]) -> list[float | None]:
    return [rounded(value) for value in values]
