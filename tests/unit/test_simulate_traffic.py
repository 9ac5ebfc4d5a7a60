from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from bridge.cli.readings import Sample, sensors, simulated
from bridge.cli.traffic import JUNK, RETRY_REACH, Junk, Outgoing, mixed
from bridge.reading import REASONS, Limits, Message, Reading, Rejection, parse
from tests.support.waiting_clock import WaitingClock


def samples(number: int) -> list[Sample]:
    instruments = sensors(("MOR", "BAG"), 10, Random(1))
    return list(islice(simulated(instruments, 0, lambda _: True, WaitingClock()), number))


def messages(number: int, seed: int = 5, **percent: float) -> list[Outgoing]:
    return list(mixed(samples(number), Random(seed), **percent))


def judged(topic: str, payload: bytes) -> Reading | Rejection:
    return parse(Message(topic, payload, WaitingClock().now_us()), Limits())


@pytest.mark.parametrize("kind", JUNK, ids=lambda kind: kind.reason)
def test_each_kind_of_junk_is_refused_by_the_bridge_for_the_reason_it_names(kind: Junk) -> None:
    for sample in samples(20):
        verdict = judged(*kind.make(sample))
        assert isinstance(verdict, Rejection)
        assert verdict.reason == kind.reason


def test_junk_shows_every_reason_but_the_one_of_size() -> None:
    assert {kind.reason for kind in JUNK} == set(REASONS) - {"payload_too_large"}


def test_the_readings_go_through_in_order_whatever_is_mixed_in() -> None:
    sent = messages(2000, junk=20, duplicates=20)
    readings = [message for message in sent if message.kind == "reading"]
    assert [message.sample for message in readings] == samples(2000)
    assert all(isinstance(judged(m.topic, m.payload), Reading) for m in readings)


def test_junk_and_duplicates_come_on_top_in_about_the_percentage_asked_for() -> None:
    sent = messages(5000, junk=4, duplicates=10)
    kinds = [message.kind for message in sent]
    assert kinds.count("reading") == 5000
    assert 150 <= kinds.count("junk") <= 250
    assert 400 <= kinds.count("duplicate") <= 600


def test_a_duplicate_is_byte_for_byte_one_of_the_latest_readings() -> None:
    recent: list[tuple[str, bytes]] = []
    for message in messages(1000, duplicates=30):
        if message.kind == "duplicate":
            assert (message.topic, message.payload) in recent[-RETRY_REACH:]
        else:
            recent.append((message.topic, message.payload))


def test_without_percentages_only_the_readings_are_sent() -> None:
    assert [message.kind for message in messages(100)] == ["reading"] * 100


def test_the_same_seed_mixes_in_the_same_junk_and_duplicates() -> None:
    assert messages(500, junk=10, duplicates=10) == messages(500, junk=10, duplicates=10)
    assert messages(500, junk=10) != messages(500, seed=6, junk=10)
