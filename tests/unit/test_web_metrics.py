"""The metrics' names, labels and values, as a Prometheus parser reads them."""

from __future__ import annotations

import math
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from bridge.reading import REASONS
from bridge.snapshot import OTHER_SITE, HandoffState, HistogramCounts, SinkCounts
from bridge.web.metrics import MAX_SITES, Metrics
from tests.support.daemon import FakeDaemon, calm_state, line, sink_state

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

CONTRACT = {
    "bridge_readings_received_total": ("counter", {"site"}),
    "bridge_readings_accepted_total": ("counter", {"site"}),
    "bridge_readings_duplicate_total": ("counter", {"site"}),
    "bridge_readings_rejected_total": ("counter", {"reason"}),
    "bridge_readings_retained_ignored_total": ("counter", set()),
    "bridge_qos0_dropped_total": ("counter", set()),
    "bridge_sink_settled_total": ("counter", {"sink", "site"}),
    "bridge_sink_pending": ("gauge", {"sink"}),
    "bridge_sink_oldest_pending_seconds": ("gauge", {"sink"}),
    "bridge_sink_retries_total": ("counter", {"sink", "reason"}),
    "bridge_sink_dead_lettered_total": ("counter", {"sink"}),
    "bridge_sink_held": ("gauge", {"sink"}),
    "bridge_sink_replayed_total": ("counter", {"sink"}),
    "bridge_sink_batch_size_bucket": ("histogram", {"sink", "le"}),
    "bridge_sink_batch_size_sum": ("histogram", {"sink"}),
    "bridge_sink_batch_size_count": ("histogram", {"sink"}),
    "bridge_settle_latency_seconds_bucket": ("histogram", {"sink", "le"}),
    "bridge_settle_latency_seconds_sum": ("histogram", {"sink"}),
    "bridge_settle_latency_seconds_count": ("histogram", {"sink"}),
    "bridge_journal_bytes": ("gauge", set()),
    "bridge_journal_seconds_until_full": ("gauge", set()),
    "bridge_journal_loss": ("gauge", set()),
    "bridge_dedupe_window_seconds": ("gauge", set()),
    "bridge_mqtt_connected": ("gauge", set()),
    "bridge_mqtt_sessions_lost_total": ("counter", set()),
    "bridge_broker_dropped_messages": ("gauge", set()),
}


def busy_daemon() -> FakeDaemon:
    pubsub = sink_state(
        "pubsub",
        pending=4,
        oldest_pending_seconds=2.5,
        retries={"unavailable": 3},
        batch_size=HistogramCounts((1.0, 10.0, math.inf), (1, 3, 4), 130.0),
        settle_latency_seconds=HistogramCounts((0.05, math.inf), (2, 2), 0.04),
    )
    state = calm_state(
        loss="40 readings",
        sessions_lost=1,
        retained_ignored=2,
        qos0_dropped=3,
        broker_dropped=7,
        rejected_by_reason={"field_missing": 5, "other_reason": 1},
        sinks=(pubsub, sink_state("bigquery", held="the table is missing")),
    )
    sites = {
        "MOR": line(9, 1, 1, pubsub=SinkCounts(3, 4), bigquery=SinkCounts(6, 0, 1)),
        "": line(1, rejected=1),
    }
    return FakeDaemon(state, sites, taken=10)


def scrape(daemon: FakeDaemon) -> Samples:
    families = text_string_to_metric_families(Metrics(daemon).text().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_metric_of_the_contract_is_there_with_its_type_and_labels() -> None:
    found = {
        sample.name: (family.type, set(sample.labels))
        for family in text_string_to_metric_families(Metrics(busy_daemon()).text().decode())
        for sample in family.samples
        if sample.name.startswith("bridge_")
    }
    assert found == CONTRACT


def test_the_values_are_those_of_state_and_ledger() -> None:
    samples = scrape(busy_daemon())
    mor = (("site", "MOR"),)
    pubsub = (("sink", "pubsub"),)
    bigquery = (("sink", "bigquery"),)
    expected = {
        ("bridge_readings_received_total", mor): 9,
        ("bridge_readings_accepted_total", mor): 7,
        ("bridge_readings_duplicate_total", mor): 1,
        ("bridge_readings_received_total", (("site", ""),)): 1,
        ("bridge_sink_settled_total", (("sink", "bigquery"), ("site", "MOR"))): 6,
        ("bridge_sink_dead_lettered_total", bigquery): 1,
        ("bridge_sink_dead_lettered_total", pubsub): 0,
        ("bridge_sink_pending", pubsub): 4,
        ("bridge_sink_oldest_pending_seconds", pubsub): 2.5,
        ("bridge_sink_retries_total", (("reason", "unavailable"), ("sink", "pubsub"))): 3,
        ("bridge_sink_held", pubsub): 0,
        ("bridge_sink_held", bigquery): 1,
        ("bridge_journal_bytes", ()): 4096,
        ("bridge_journal_loss", ()): 1,
        ("bridge_mqtt_connected", ()): 1,
        ("bridge_mqtt_sessions_lost_total", ()): 1,
        ("bridge_readings_retained_ignored_total", ()): 2,
        ("bridge_qos0_dropped_total", ()): 3,
        ("bridge_broker_dropped_messages", ()): 7,
        ("bridge_dedupe_window_seconds", ()): 2100,
    }
    assert {key: samples.get(key) for key in expected} == expected


def test_a_dead_letter_that_is_pending_again_lowers_no_counter() -> None:
    sinks = (sink_state("bigquery", retried=2, replayed=5),)
    ledger = {"MOR": line(3, bigquery=SinkCounts(settled=2, dead_lettered=1))}
    samples = scrape(FakeDaemon(now=calm_state(sinks=sinks), sites=ledger))
    assert samples["bridge_sink_dead_lettered_total", (("sink", "bigquery"),)] == 3
    assert samples["bridge_sink_replayed_total", (("sink", "bigquery"),)] == 5


def test_histograms_keep_their_bounds_counts_and_sums() -> None:
    samples = scrape(busy_daemon())

    def bucket(bound: str) -> float:
        labels = (("le", bound), ("sink", "pubsub"))
        return samples["bridge_sink_batch_size_bucket", labels]

    assert [bucket("1.0"), bucket("10.0"), bucket("+Inf")] == [1, 3, 4]
    assert samples["bridge_sink_batch_size_sum", (("sink", "pubsub"),)] == 130
    assert samples["bridge_sink_batch_size_count", (("sink", "pubsub"),)] == 4
    assert (
        samples["bridge_settle_latency_seconds_bucket", (("le", "0.05"), ("sink", "pubsub"))] == 2
    )


def test_every_reason_of_refusal_is_there_from_the_start() -> None:
    samples = scrape(FakeDaemon())
    for reason in REASONS:
        assert samples["bridge_readings_rejected_total", (("reason", reason),)] == 0


def test_reasons_the_contract_does_not_know_are_shown_as_well() -> None:
    samples = scrape(busy_daemon())
    assert samples["bridge_readings_rejected_total", (("reason", "other_reason"),)] == 1
    assert samples["bridge_readings_rejected_total", (("reason", "field_missing"),)] == 5


def test_a_journal_that_does_not_grow_is_full_at_infinity() -> None:
    assert scrape(FakeDaemon())["bridge_journal_seconds_until_full", ()] == math.inf


def test_the_brokers_count_is_absent_while_the_broker_publishes_none() -> None:
    assert ("bridge_broker_dropped_messages", ()) not in scrape(FakeDaemon())


def test_past_a_thousand_sites_the_rest_count_as_other() -> None:
    sites = {f"site {number}": line(2, log=SinkCounts(2)) for number in range(MAX_SITES + 5)}
    samples = scrape(FakeDaemon(sites=sites))
    received = [key for key in samples if key[0] == "bridge_readings_received_total"]
    assert len(received) == MAX_SITES + 1
    assert samples["bridge_readings_received_total", (("site", OTHER_SITE),)] == 10
    assert samples["bridge_sink_settled_total", (("sink", "log"), ("site", OTHER_SITE))] == 10


def test_a_site_of_any_characters_keeps_its_name() -> None:
    name = 'Süd "7"\\n {x="y"} ⚗'
    assert (
        scrape(FakeDaemon(sites={name: line(3)}))[
            "bridge_readings_received_total", (("site", name),)
        ]
        == 3
    )


def test_one_scrape_asks_the_daemon_once_for_each() -> None:
    daemon = FakeDaemon()
    metrics = Metrics(daemon)
    daemon.asked.clear()
    metrics.text()
    assert sorted(daemon.asked) == ["ledger", "state"]


def test_two_daemons_in_one_process_do_not_share_a_registry() -> None:
    one, other = Metrics(FakeDaemon(taken=1)), Metrics(FakeDaemon(taken=2))
    assert one.text()
    assert other.text()


def test_the_process_tells_of_its_memory_and_descriptors() -> None:
    samples = scrape(FakeDaemon())
    assert samples["process_resident_memory_bytes", ()] > 0
    assert samples["process_open_fds", ()] > 0


def test_what_is_handed_over_is_shown_where_there_is_a_bucket() -> None:
    daemon = busy_daemon()
    daemon.now = replace(daemon.now, handoff=HandoffState(12, 3.5, 2))
    samples = scrape(daemon)
    assert samples[("bridge_handoff_unshipped", ())] == 12
    assert samples[("bridge_handoff_unshipped_seconds", ())] == 3.5
    assert samples[("bridge_handoff_failures_total", ())] == 2
    assert not any("handoff" in name for name, _ in scrape(busy_daemon()))
