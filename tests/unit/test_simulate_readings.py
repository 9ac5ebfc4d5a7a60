from __future__ import annotations

import json
from itertools import islice, pairwise
from random import Random

import pytest

from bridge.cli.readings import QUANTITIES, Quantity, Sample, Walk, sensors, simulated, site_codes
from bridge.reading import Limits, Message, Reading, parse
from tests.support.waiting_clock import WaitingClock


def always(_seconds: float) -> bool:
    return True


def some(seed: int, number: int = 500, rate: float = 0, attributes: bool = False) -> list[Sample]:
    rng = Random(seed)
    instruments = sensors(site_codes(3), 25, rng)
    return list(islice(simulated(instruments, rate, always, WaitingClock(), attributes), number))


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda quantity: quantity.suffix)
def test_a_value_wanders_but_stays_within_the_plausible_bounds(quantity: Quantity) -> None:
    walk = Walk(quantity, Random(3))
    values = [walk.next() for _ in range(3000)]
    assert all(quantity.low <= value <= quantity.high for value in values)
    assert len(set(values)) > 10
    steps = [abs(later - value) for value, later in pairwise(values)]
    assert max(steps) < 6 * quantity.step + (quantity.high - quantity.low) * 0.005 + 0.1


def test_every_made_up_reading_is_accepted_by_the_bridge_with_the_value_it_was_sent_with() -> None:
    for sample in some(seed=1):
        received_us = WaitingClock().now_us() + 1_000_000
        reading = parse(Message(sample.topic, sample.payload, received_us), Limits())
        assert isinstance(reading, Reading)
        assert (reading.site, reading.pi_tag) == (sample.site, sample.pi_tag)
        assert reading.value == json.loads(sample.value)
        assert reading.attributes is None


def test_attributes_carry_the_unit_and_the_quality() -> None:
    sample = some(seed=1, number=1, attributes=True)[0]
    members = json.loads(sample.payload)
    assert members["unit"] == "m3/h"
    assert members["quality"] == "Good"


def test_the_same_seed_makes_the_same_readings_apart_from_their_times() -> None:
    def untimed(samples: list[Sample]) -> list[Sample]:
        return [sample._replace(timestamp="") for sample in samples]

    assert untimed(some(seed=7)) == untimed(some(seed=7))
    assert untimed(some(seed=7)) != untimed(some(seed=8))


def test_no_two_readings_have_the_same_time_even_while_the_clock_stands_still() -> None:
    times = [sample.timestamp for sample in some(seed=2)]
    assert len(set(times)) == len(times)
    assert times == sorted(times)


def test_sites_and_tags_take_turns_and_every_sensor_has_a_name_of_its_own() -> None:
    instruments = sensors(("A", "B"), 60, Random(1))
    assert [sensor.site for sensor in instruments[:4]] == ["A", "B", "A", "B"]
    assert len({sensor.sensor_id for sensor in instruments}) == 120
    assert len({(sensor.site, sensor.pi_tag) for sensor in instruments}) == 120
    assert instruments[0].pi_tag == "SX1-E1-FLOW"
    assert instruments[-1].pi_tag.startswith("SX2-")


def test_each_reading_comes_when_the_rate_says_and_the_run_ends_when_it_is_over() -> None:
    asked: list[float] = []

    def until_one_second(seconds: float) -> bool:
        asked.append(seconds)
        return seconds < 1

    instruments = sensors(("A",), 3, Random(1))
    samples = list(simulated(instruments, 4, until_one_second, WaitingClock()))
    assert asked == [0, 0.25, 0.5, 0.75, 1.0]
    assert len(samples) == 4


def test_sites_beyond_the_known_ones_are_numbered() -> None:
    codes = site_codes(300)
    assert codes[:3] == ("MOR", "BAG", "SIE")
    assert codes[-1] == "S300"
    assert len(set(codes)) == 300
