"""The bridge's metrics in Prometheus' text format. The only importer of prometheus_client.

Nothing is counted here: a scrape asks the daemon once for its state and once for its ledger, and
writes down what they say, so that metrics, ledger and page cannot contradict each other.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from bridge.reading import REASONS
from bridge.snapshot import (
    Daemon,
    HandoffState,
    HistogramCounts,
    Ledger,
    SinkState,
    SiteCounts,
    State,
)
from bridge.web.ledger import folded, summed

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
MAX_SITES = 1_000


class Metrics:
    """One daemon's metrics, in a registry of their own."""

    def __init__(self, daemon: Daemon) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_DaemonCollector(daemon))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """One scrape, UTF-8. From any thread; milliseconds, more with hundreds of sites."""
        return generate_latest(self._registry)


class _DaemonCollector(Collector):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def collect(self) -> Iterator[Metric]:
        state, ledger = self._daemon.state(), self._daemon.ledger()
        yield from _intake(state)
        yield from _journal(state)
        if state.handoff is not None:
            yield from _handoff(state.handoff)
        yield from _sinks(state.sinks)
        yield from _sites(folded(ledger.sites, MAX_SITES))
        yield _dead_lettered(ledger, state.sinks)


def _intake(state: State) -> Iterator[Metric]:
    yield _rejected(state.rejected_by_reason)
    yield CounterMetricFamily(
        "bridge_readings_retained_ignored",
        "Retained copies sent by the broker at subscription, ignored.",
        value=state.retained_ignored,
    )
    yield CounterMetricFamily(
        "bridge_qos0_dropped",
        "Messages of QoS 0 that came while the journal was full.",
        value=state.qos0_dropped,
    )
    yield GaugeMetricFamily(
        "bridge_mqtt_connected", "1 while connected to the broker.", value=state.mqtt_connected
    )
    yield CounterMetricFamily(
        "bridge_mqtt_sessions_lost",
        "Sessions that the broker should have kept and had forgotten.",
        value=state.sessions_lost,
    )
    if state.broker_dropped is not None:
        yield GaugeMetricFamily(
            "bridge_broker_dropped_messages",
            "Messages dropped by the broker, by its own count.",
            value=state.broker_dropped,
        )


def _rejected(by_reason: dict[str, int]) -> Metric:
    family = CounterMetricFamily(
        "bridge_readings_rejected", "Messages refused for good, by reason.", labels=["reason"]
    )
    for reason, count in (dict.fromkeys(REASONS, 0) | by_reason).items():
        family.add_metric([reason], count)
    return family


def _journal(state: State) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "bridge_journal_bytes", "Live data in the journal.", value=state.journal_bytes
    )
    yield GaugeMetricFamily(
        "bridge_journal_seconds_until_full",
        "Until the journal is full at the present rate; +Inf when it does not grow.",
        value=state.journal_seconds_until_full,
    )
    yield GaugeMetricFamily(
        "bridge_journal_loss",
        "1 from a damaged journal's loss until an operator clears it.",
        value=state.loss is not None,
    )
    yield GaugeMetricFamily(
        "bridge_dedupe_window_seconds",
        "How far back a repeated reading is recognised.",
        value=state.dedupe_window_seconds,
    )


def _handoff(handoff: HandoffState) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "bridge_handoff_unshipped",
        "Readings, at most, that the end of this instance's disk would lose.",
        value=handoff.unshipped,
    )
    yield GaugeMetricFamily(
        "bridge_handoff_unshipped_seconds", "Age of the oldest of them.", value=handoff.seconds
    )
    yield CounterMetricFamily(
        "bridge_handoff_failures", "Failed uses of the bucket.", value=handoff.failures
    )


def _sinks(sinks: tuple[SinkState, ...]) -> Iterator[Metric]:
    pending = GaugeMetricFamily(
        "bridge_sink_pending", "Readings that wait for this sink.", labels=["sink"]
    )
    oldest = GaugeMetricFamily(
        "bridge_sink_oldest_pending_seconds", "Age of the oldest of them.", labels=["sink"]
    )
    held = GaugeMetricFamily(
        "bridge_sink_held", "1 while the sink needs an operator.", labels=["sink"]
    )
    replayed = CounterMetricFamily(
        "bridge_sink_replayed", "Readings sent once more by `replay`.", labels=["sink"]
    )
    for sink in sinks:
        replayed.add_metric([sink.name], sink.replayed)
        pending.add_metric([sink.name], sink.pending)
        oldest.add_metric([sink.name], sink.oldest_pending_seconds)
        held.add_metric([sink.name], sink.held is not None)
    yield from (pending, oldest, held, replayed)
    yield _retries(sinks)
    yield from _histograms(sinks)


def _retries(sinks: tuple[SinkState, ...]) -> Metric:
    family = CounterMetricFamily(
        "bridge_sink_retries", "Failed attempts, by reason.", labels=["sink", "reason"]
    )
    for sink in sinks:
        for reason, count in sink.retries.items():
            family.add_metric([sink.name, reason], count)
    return family


def _histograms(sinks: tuple[SinkState, ...]) -> Iterator[Metric]:
    batches = HistogramMetricFamily(
        "bridge_sink_batch_size", "Readings in one write.", labels=["sink"]
    )
    latencies = HistogramMetricFamily(
        "bridge_settle_latency_seconds", "From reception to settlement.", labels=["sink"]
    )
    for sink in sinks:
        batches.add_metric([sink.name], _buckets(sink.batch_size), sink.batch_size.total)
        latency = sink.settle_latency_seconds
        latencies.add_metric([sink.name], _buckets(latency), latency.total)
    yield from (batches, latencies)


def _buckets(counts: HistogramCounts) -> list[tuple[str, float]]:
    bounds = ["+Inf" if bound == float("inf") else repr(float(bound)) for bound in counts.bounds]
    return list(zip(bounds, map(float, counts.cumulative), strict=True))


def _sites(sites: dict[str, SiteCounts]) -> Iterator[Metric]:
    received = _per_site("bridge_readings_received", "Messages received.")
    accepted = _per_site("bridge_readings_accepted", "Readings stored in the journal.")
    duplicates = _per_site("bridge_readings_duplicate", "Readings that were there already.")
    settled = CounterMetricFamily(
        "bridge_sink_settled", "Readings that the service has confirmed.", labels=["sink", "site"]
    )
    for site, counts in sites.items():
        received.add_metric([site], counts.received)
        accepted.add_metric([site], counts.accepted)
        duplicates.add_metric([site], counts.duplicates)
        for sink, sink_counts in counts.sinks.items():
            settled.add_metric([sink, site], sink_counts.settled)
    yield from (received, accepted, duplicates, settled)


def _per_site(name: str, documentation: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, documentation, labels=["site"])


def _dead_lettered(ledger: Ledger, sinks: tuple[SinkState, ...]) -> Metric:
    family = CounterMetricFamily(
        "bridge_sink_dead_lettered",
        "Readings that the service has refused for good.",
        labels=["sink"],
    )
    totals = summed(ledger.sites.values(), (sink.name for sink in sinks))
    # A counter: what is pending again was dead-lettered all the same.
    retried = {sink.name: sink.retried for sink in sinks}
    for sink, counts in totals.sinks.items():
        family.add_metric([sink], counts.dead_lettered + retried.get(sink, 0))
    return family
