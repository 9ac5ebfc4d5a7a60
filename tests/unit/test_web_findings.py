"""The findings behind the banner of the operators' page, and figures in words."""

from __future__ import annotations

import math

import pytest

from bridge.snapshot import SinkCounts
from bridge.web import findings
from bridge.web.findings import Finding, verdict
from bridge.web.words import duration
from tests.support.daemon import FakeDaemon, calm_state, line, sink_state


def found(daemon: FakeDaemon) -> list[Finding]:
    state, ledger = daemon.state(), daemon.ledger()
    return [
        *findings.now(state, ledger, daemon.stalled()),
        *findings.since_start(state, ledger),
    ]


def test_a_calm_bridge_is_all_right() -> None:
    calm = FakeDaemon(sites={"MOR": line(1, pubsub=SinkCounts(1), bigquery=SinkCounts(1))})
    assert found(calm) == []
    assert verdict([]) == "ok"


@pytest.mark.parametrize(
    ("daemon", "what", "remedy"),
    [
        (FakeDaemon(stalled_part="the journal's thread"), "the journal's thread", "restart it"),
        (
            FakeDaemon(calm_state(unready="not connected", mqtt_connected=False)),
            "not connected",
            "MQTT_BROKER",
        ),
        (FakeDaemon(calm_state(unready="the journal is full")), "is full", "wait at the broker"),
        (FakeDaemon(calm_state(loss="12 readings are gone")), "12 readings", "clear-journal-loss"),
        (
            FakeDaemon(calm_state(sinks=(sink_state(held="no table: run provision"),))),
            "pubsub needs an operator: no table: run provision",
            "Nothing is lost",
        ),
        (
            FakeDaemon(calm_state(sinks=(sink_state(last_error="deadline exceeded"),))),
            "pubsub does not take readings just now: deadline exceeded",
            "Nothing to do yet",
        ),
        (
            FakeDaemon(calm_state(sinks=(sink_state(pending=9, oldest_pending_seconds=3700),))),
            "pubsub is 1 h 1 min behind",
            "quota",
        ),
        (
            FakeDaemon(
                calm_state(
                    journal_seconds_until_full=5400.0,
                    sinks=(sink_state(oldest_pending_seconds=90.0),),
                )
            ),
            "full in 1 h 30 min",
            "JOURNAL_MAX_BYTES",
        ),
        (
            FakeDaemon(sites={"MOR": line(2, pubsub=SinkCounts(1))}),
            "does not balance: MOR",
            "report it",
        ),
    ],
)
def test_each_trouble_is_named_with_its_remedy(daemon: FakeDaemon, what: str, remedy: str) -> None:
    (finding,) = found(daemon)
    assert what in finding.what
    assert remedy in finding.remedy
    assert verdict([finding]) == finding.level


@pytest.mark.parametrize(
    ("daemon", "what", "remedy"),
    [
        (FakeDaemon(calm_state(sessions_lost=1)), "session once", "MQTT_CLIENT_ID"),
        (FakeDaemon(calm_state(sessions_lost=3)), "session 3 times", "persistence"),
        (FakeDaemon(calm_state(broker_dropped=1200)), "dropped 1,200", "max_queued_messages"),
        (FakeDaemon(calm_state(qos0_dropped=4)), "4 messages of QoS 0", "QoS 1"),
        (FakeDaemon(calm_state(rejected_by_reason={"a": 2, "b": 1})), "3 readings", "dead-letters"),
        (
            FakeDaemon(sites={"A": line(2, pubsub=SinkCounts(0, 0, 2))}),
            "2 readings",
            "dead-letters",
        ),
    ],
)
def test_what_is_over_wants_attention_and_is_not_called_wrong(
    daemon: FakeDaemon, what: str, remedy: str
) -> None:
    (finding,) = (line for line in found(daemon) if line.level == "attention")
    assert what in finding.what
    assert remedy in finding.remedy
    assert verdict([finding]) == "attention"


def test_an_error_is_wrong_only_when_it_lasts() -> None:
    new = sink_state(last_error="unavailable", oldest_pending_seconds=10.0)
    old = sink_state(last_error="unavailable", oldest_pending_seconds=301.0)
    assert verdict(found(FakeDaemon(calm_state(sinks=(new,))))) == "attention"
    assert verdict(found(FakeDaemon(calm_state(sinks=(new, old))))) == "wrong"


def test_every_site_out_of_balance_is_named_up_to_ten() -> None:
    sites = {f"s{number}": line(1, log=SinkCounts()) for number in range(11)}
    (finding,) = found(FakeDaemon(sites={**sites, "": line(1, log=SinkCounts())}))
    assert finding.what.endswith("s9 and 2 more")


def test_malformed_topics_out_of_balance_are_named_in_words() -> None:
    (finding,) = found(FakeDaemon(sites={"": line(1, log=SinkCounts())}))
    assert "does not balance: (malformed topics)" in finding.what


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1.0, "0.0 s"),
        (0.25, "0.2 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3661, "1 h 1 min"),
        (86_400 * 3 + 7200, "3 d 2 h"),
        (math.inf, "for ever"),
    ],
)
def test_durations_read_well(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
