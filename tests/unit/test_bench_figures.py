"""How the benchmark counts, sums up and judges."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from bench import prices
from bench.arrivals import Miscounted, require_each_once
from bench.generator import BASE, PACKET, PACKET_BYTES, Load
from bench.meter import Meter
from bench.report import shown
from bench.section import Row, Section, quantile, summed_up
from bench.stages import shares, stage_of
from bench.targets import Target, targets
from bridge.reading import Limits, Message, Reading, parse


def packet(number: int) -> bytes:
    return PACKET % (3, 42, 1, 2, 3, 42, b"2026-11-21T12:00:00", 7, BASE + number)


@pytest.mark.parametrize("number", [0, 1, 899_999_999])
def test_the_generators_packets_are_of_one_length_and_hold_a_reading(number: int) -> None:
    content = packet(number)
    assert len(content) == PACKET_BYTES
    assert content[0] == 0x32
    assert (content[1] & 0x7F) + 128 * content[2] == PACKET_BYTES - 3
    end = 5 + content[4]
    topic, payload = content[5:end].decode(), content[end + 2 :]
    received = 1_795_262_400_000_000  # the same second
    reading = parse(Message(topic, payload, received), Limits())
    assert isinstance(reading, Reading)
    assert reading.value == BASE + number + 0.5
    assert (reading.site, reading.pi_tag) == ("S0003", "T000042")
    assert json.loads(payload)["timestamp"] == "2026-11-21T12:00:00.000007Z"


@pytest.mark.parametrize(("sites", "connections"), [(1, 1), (3, 3), (10, 2), (20, 4), (1000, 4)])
def test_the_sites_are_shared_evenly_by_the_connections(sites: int, connections: int) -> None:
    assert Load(1, sites=sites, tags=sites).connections == connections


def test_tags_that_sites_cannot_share_evenly_are_refused() -> None:
    with pytest.raises(ValueError, match="50 tags cannot be shared evenly by 20 sites"):
        Load(1, sites=20, tags=50)


def test_what_arrived_once_each_adds_up() -> None:
    require_each_once("pubsub", [2, 0, 1], 3)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([0, 2], "1 are missing, 0 are copies, and 0 were never sent"),
        ([0, 1, 2, 2], "0 are missing, 1 are copies, and 0 were never sent"),
        ([0, 1, 2, 3], "0 are missing, 0 are copies, and 1 were never sent"),
    ],
)
def test_what_does_not_add_up_is_told_in_counts(found: list[int], words: str) -> None:
    with pytest.raises(Miscounted, match=f"bigquery: of 3 readings {words}"):
        require_each_once("bigquery", found, 3)


@pytest.mark.parametrize(
    ("share", "value"), [(0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (1, 100)]
)
def test_a_quantile_is_the_least_value_that_the_share_is_within(share: float, value: int) -> None:
    assert quantile(range(1, 101), share) == value


def test_trials_are_summed_up_by_their_medians_with_the_spread_beside() -> None:
    trials: list[Row] = [
        {"subject": "a", "round": 0, "rate": 3.0},
        {"subject": "b", "round": 0, "rate": 7.0},
        {"subject": "a", "round": 1, "rate": 1.0},
        {"subject": "a", "round": 2, "rate": 9.0},
    ]
    assert summed_up(trials, ["subject"], "rate") == [
        {"subject": "a", "rate": 3.0, "trials": 3, "least": 1.0, "most": 9.0},
        {"subject": "b", "rate": 7.0, "trials": 1, "least": 7.0, "most": 7.0},
    ]


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target("", 0.5, least=0.5), True),
        (Target("", 0.49, least=0.5), False),
        (Target("", 99.9, most=100), True),
        (Target("", 100.0, most=100), False),
        (Target("", None, most=100), None),
    ],
)
def test_a_target_is_met_missed_or_not_measured(target: Target, met: bool | None) -> None:
    assert target.met is met


def test_what_was_not_measured_is_no_target_met() -> None:
    assert {target.met for target in targets({})} == {None}


def test_memory_that_stays_small_and_costs_that_rise_are_told_apart() -> None:
    costs = {1: 100.0, 10: 110.0, 100: 160.0}
    rows: list[Row] = [
        {"of": "sites", "size": size, "resident_mb": 90.0, "cpu_us_per_reading": cost}
        for size, cost in costs.items()
    ]
    found = {t.words: t for t in targets({"growth": Section("growth", "", "", rows)})}
    assert found["resident memory over all sizes of sites, MB"].met is True
    spread = found["dearest to cheapest reading over all sizes of sites"]
    assert (spread.found, spread.met) == (1.6, False)
    assert found["resident memory over all sizes of tags, MB"].met is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0, "0"), (0.01234, "0.0123"), (12.345, "12.3"), (1234.5, "1,234"), ("a", "a")],
)
def test_figures_are_shown_with_three_digits(value: float | str | None, text: str) -> None:
    assert shown(value) == text


def test_a_meter_counts_what_it_passes_on_in_both_directions() -> None:
    with socket.create_server(("127.0.0.1", 0)) as service:

        def serve() -> None:
            caller, _ = service.accept()
            with caller:
                caller.sendall(caller.recv(5, socket.MSG_WAITALL) * 3)

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            Meter(service.getsockname()[1]) as meter,
            socket.create_connection(("127.0.0.1", meter.port)) as caller,
        ):
            caller.sendall(b"hello")
            assert caller.recv(15, socket.MSG_WAITALL) == b"hello" * 3
            assert caller.recv(1) == b""
        thread.join()
    assert (meter.sent, meter.answered) == (5, 15)


def test_a_message_is_billed_for_data_attributes_time_and_id() -> None:
    message = {"data": "x" * 100, "attributes": {"site_code": "MOR"}, "ordering_key": "MOR"}
    assert prices.message_bytes(message) == 100 + 9 + 3 + 20 + 17


def test_a_request_is_billed_for_a_thousand_bytes_at_least() -> None:
    assert prices.published_bytes(10, 400, requests=10) == 10 * 1_000
    assert prices.published_bytes(10, 400, requests=1) == 4_000


def test_a_row_is_billed_by_its_types_and_a_streamed_one_for_a_kilobyte_at_least() -> None:
    row = {"site_code": "MOR", "event_time": 1, "value": 2.5, "attributes": "{}", "more": None}
    assert prices.row_bytes(row) == 5 + 8 + 8 + 2
    assert prices.streamed_row_bytes(23) == 1_024
    assert prices.streamed_row_bytes(5_000) == 5_000


def test_a_stack_counts_for_the_stage_that_is_at_work_and_not_where_it_waits() -> None:
    append = "thread;Subscriber.run (bridge/subscriber.py:1);Journal._append (bridge/journal.py:9)"
    assert stage_of(append) == "journal: append"
    assert stage_of("thread;Subscriber._take (bridge/subscriber.py:5)") == "receive and acknowledge"
    assert stage_of("thread;Delivery.run (bridge/delivery.py:5);Condition.wait (t.py:1)") is None
    assert shares([f"{append} 7", f"{append} 3", "thread;idle (x.py:1) 2"]) == {
        "journal: append": 10,
        "the rest": 2,
    }
