"""The worker of a sink, over a real journal and a sink in memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from bridge import loading
from bridge.clock import SystemClock
from bridge.delivery import Delivery
from bridge.errors import ContentRefused, Held, SinkError, Transient
from bridge.journal import Journal
from bridge.journal.journal import Limits
from bridge.journal.orders import Order
from bridge.loading import LANE_MIN
from bridge.policy import BatchPolicy, RetryPolicy
from bridge.reading import Entry
from bridge.sinks.base import Outcome
from bridge.sinks.memory import Answer, MemorySink
from tests.support.orders import carried_out
from tests.support.poll import eventually
from tests.support.samples import sample, samples

QUICK = RetryPolicy(initial=0.01, maximum=0.02)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.db", Limits(), SystemClock())
    opened.open()
    yield opened
    opened.close()


@contextmanager
def delivering(sink: MemorySink, journal: Journal) -> Iterator[Delivery]:
    delivery = Delivery(sink, journal, QUICK, SystemClock(), Random(1))
    failures: list[BaseException] = []

    def run() -> None:
        try:
            delivery.run()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield delivery
    finally:
        delivery.stop()
        thread.join(10)
    assert not failures, failures
    assert not thread.is_alive()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    eventually(condition, "delivery is where the test wants it", seconds)


def values(sink: MemorySink, lane: str = "") -> list[float]:
    return [reading.value for reading in sink.written[lane]]


def refusing(*bad: float) -> Callable[[Sequence[Entry]], Answer]:
    """A service that names the bad rows and appends nothing beside them."""

    def answer(batch: Sequence[Entry]) -> Answer:
        named = {entry.seq: "never fits" for entry in batch if entry.reading.value in bad}
        return Outcome([], named) if named else None

    return answer


def refusing_unnamed(*bad: float) -> Callable[[Sequence[Entry]], Answer]:
    def answer(batch: Sequence[Entry]) -> Answer:
        found = any(entry.reading.value in bad for entry in batch)
        return ContentRefused("invalid_argument", "something is wrong") if found else None

    return answer


def test_everything_is_written_once_in_order_and_settled(journal: Journal) -> None:
    sink = MemorySink()
    journal.activate({"memory": "m"})
    with delivering(sink, journal) as delivery:
        for first in range(0, 1000, 100):
            journal.append(samples(100, first=first), [])
        until(lambda: delivery.drained)
    assert values(sink) == [float(number) for number in range(1000)]
    assert journal.sites()["MOR"].sinks["memory"].settled == 1000
    assert journal.sites()["MOR"].balanced


def test_a_batch_whose_answer_was_lost_is_sent_again_as_it_was_before_anything_later(
    journal: Journal,
) -> None:
    answers: list[Answer] = [Transient("unavailable", "gone"), Transient("unavailable", "gone")]
    sink = MemorySink(script=lambda _batch: answers.pop() if answers else None)
    journal.activate({"memory": "m"})
    journal.append(samples(10), [])
    with delivering(sink, journal) as delivery:
        until(lambda: bool(sink.batches))
        journal.append(samples(10, first=10), [])
        until(lambda: delivery.drained)
        assert delivery.retries["unavailable"] == 2
    first = sink.batches[0]
    assert sink.batches[1] == first
    assert sink.batches[2] == first
    assert values(sink) == [float(number) for number in range(20)]


def test_a_row_that_is_named_becomes_a_dead_letter_and_its_neighbours_go_through(
    journal: Journal,
) -> None:
    sink = MemorySink(script=refusing(3.0, 7.0))
    journal.activate({"memory": "m"})
    journal.append(samples(10), [])
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.drained)
    assert values(sink) == [0.0, 1.0, 2.0, 4.0, 5.0, 6.0, 8.0, 9.0]
    line = journal.sites()["MOR"].sinks["memory"]
    assert (line.settled, line.dead_lettered, line.pending) == (8, 2, 0)
    letters = journal.letters_waiting(10)
    assert [letter.sink for letter in letters] == ["memory", "memory"]
    assert all(letter.event_id for letter in letters)


def test_a_culprit_that_is_not_named_is_found_by_halving(journal: Journal) -> None:
    sink = MemorySink(script=refusing_unnamed(0.0, 41.0, 99.0))
    journal.activate({"memory": "m"})
    journal.append(samples(100), [])
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.drained)
    assert values(sink) == [float(n) for n in range(100) if n not in (0, 41, 99)]
    assert journal.sites()["MOR"].sinks["memory"].dead_lettered == 3
    written = [seq for batch in sink.batches for seq in batch]
    assert len(written) < 700


def test_a_refusal_of_everything_holds_the_sink_and_gives_nothing_up(journal: Journal) -> None:
    broken = threading.Event()
    broken.set()

    def answer(batch: Sequence[Entry]) -> Answer:
        if broken.is_set():
            return Outcome([], {entry.seq: "no such column" for entry in batch})
        return None

    sink = MemorySink(script=answer)
    journal.activate({"memory": "m"})
    journal.append(samples(50), [])
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.retries["refused"] >= 3)
        assert delivery.held
        assert journal.letters_waiting(10) == []
        broken.clear()
        until(lambda: delivery.drained)
        until(lambda: delivery.held is None)
    assert values(sink) == [float(number) for number in range(50)]


def test_an_unnamed_refusal_of_everything_holds_the_sink_too(journal: Journal) -> None:
    broken = threading.Event()
    broken.set()

    def answer(_batch: Sequence[Entry]) -> Answer:
        return ContentRefused("invalid_argument", "no") if broken.is_set() else None

    sink = MemorySink(script=answer)
    journal.activate({"memory": "m"})
    journal.append(samples(50), [])
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.retries["refused"] >= 4)
        assert journal.letters_waiting(10) == []
        broken.clear()
        until(lambda: delivery.drained)
    assert values(sink) == [float(number) for number in range(50)]


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> int:
    """In memory, for a lane; in entries."""
    monkeypatch.setattr(loading, "LANE_MAX", 500)
    return 500


@pytest.mark.parametrize("named", [True, False])
def test_a_sink_that_refused_more_than_memory_holds_goes_on_when_it_is_mended(
    journal: Journal, little_room: int, named: bool
) -> None:
    broken = threading.Event()
    broken.set()

    def answer(batch: Sequence[Entry]) -> Answer:
        if not broken.is_set():
            return None
        if named:
            return Outcome([], {entry.seq: "no such column" for entry in batch})
        return ContentRefused("invalid_argument", "no")

    count = little_room + 1_000
    sink = MemorySink(script=answer, policy=BatchPolicy(1_000, 10**9))
    journal.activate({"memory": "m"})
    journal.append(samples(100), [])
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.retries["refused"] >= 1)
        for first in range(100, count, 100):
            journal.append(samples(100, first=first), [])
        held = delivery.retries["refused"]
        until(lambda: delivery.retries["refused"] >= held + 5)
        broken.clear()
        until(lambda: delivery.drained, 30)
    assert values(sink) == [float(number) for number in range(count)]
    assert journal.letters_waiting(10) == []


def test_a_lane_left_behind_with_nothing_but_bad_entries_in_hand_catches_up(
    journal: Journal, little_room: int
) -> None:
    broken = threading.Event()
    bad = range(1, 1 + LANE_MIN)

    def answer(batch: Sequence[Entry]) -> Answer:
        found = broken.is_set() or any(entry.reading.value in bad for entry in batch)
        return ContentRefused("invalid_argument", "no") if found else None

    count = little_room + 1_000
    sink = MemorySink(script=answer, policy=BatchPolicy(1_000, 10**9), ordered_copies=True)
    journal.activate({"memory": "m"})
    journal.append([sample(0.0)], [])
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.drained)
        broken.set()
        for first in range(1, count, 100):
            journal.append(samples(100, first=first), [])
        until(lambda: delivery.retries["invalid_argument"] >= 50)
        broken.clear()
        until(lambda: delivery.drained, 30)
    good = [0.0, *(float(number) for number in range(1 + LANE_MIN, count + 1))]
    assert list(dict.fromkeys(values(sink))) == good
    assert journal.sites()["MOR"].sinks["memory"].dead_lettered == LANE_MIN


def test_a_single_refused_entry_waits_for_a_neighbour_before_it_is_given_up(
    journal: Journal,
) -> None:
    sink = MemorySink(script=refusing(0.0))
    journal.activate({"memory": "m"})
    journal.append([sample(0.0)], [])
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.retries["refused"] >= 2)
        assert journal.letters_waiting(10) == []
        journal.append([sample(1.0)], [])
        until(lambda: delivery.drained)
    assert len(journal.letters_waiting(10)) == 1
    assert values(sink) == [1.0]


def test_entries_that_are_accepted_are_not_sent_again_with_those_that_are_kept(
    journal: Journal,
) -> None:
    rounds = iter([True, False])

    def answer(batch: Sequence[Entry]) -> Answer:
        if next(rounds, False):
            return Outcome([entry.seq for entry in batch if entry.reading.value % 2], {})
        return None

    sink = MemorySink(script=answer)
    journal.activate({"memory": "m"})
    journal.append(samples(10), [])
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.drained)
    assert sorted(values(sink)) == [float(number) for number in range(10)]


def test_what_was_accepted_out_of_order_is_remembered_across_a_restart(journal: Journal) -> None:
    def odd_only(batch: Sequence[Entry]) -> Answer:
        odd = [entry.seq for entry in batch if entry.reading.value % 2]
        return Outcome(odd, {}) if odd else Transient("unavailable", "gone")

    journal.activate({"memory": "m"})
    journal.append(samples(10), [])
    before = MemorySink(script=odd_only)
    with delivering(before, journal) as delivery:
        until(lambda: delivery.retries["unavailable"] > 0)
    after = MemorySink()
    with delivering(after, journal) as delivery:
        until(lambda: delivery.drained)
    assert values(before) == [1.0, 3.0, 5.0, 7.0, 9.0]
    assert values(after) == [0.0, 2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize(
    "error", [Transient("unavailable", "gone"), Held("not_found", "no topic", "create it")]
)
def test_one_sites_trouble_delays_no_other_site(journal: Journal, error: SinkError) -> None:
    mended = threading.Event()

    def answer(batch: Sequence[Entry]) -> Answer:
        return error if batch[0].reading.site == "BAD" and not mended.is_set() else None

    sink = MemorySink(by_site=True, script=answer)
    journal.activate({"memory": "m"})
    with delivering(sink, journal) as delivery:
        for first in range(0, 300, 30):
            journal.append(samples(30, ("BAD", "MOR", "SIE"), first), [])
        until(lambda: len(sink.written["MOR"]) == 100 and len(sink.written["SIE"]) == 100)
        assert not sink.written["BAD"]
        # Twice: with the second answer, the round that took in the first is over.
        until(lambda: delivery.retries[error.reason] > 1)
        assert (delivery.held is not None) == isinstance(error, Held)
        mended.set()
        until(lambda: delivery.drained)
    for site in ("BAD", "MOR", "SIE"):
        assert values(sink, site) == sorted(values(sink, site))
        assert len(values(sink, site)) == 100


def test_a_site_whose_calls_hang_delays_no_other_site(journal: Journal) -> None:
    sink = MemorySink(by_site=True, policy=BatchPolicy(10, 10_000_000))
    sink.hold("BAD")
    journal.activate({"memory": "m"})
    with delivering(sink, journal) as delivery:
        for first in range(0, 600, 30):
            journal.append(samples(30, ("BAD", "MOR", "SIE"), first), [])
        until(lambda: len(sink.written["MOR"]) == 200 and len(sink.written["SIE"]) == 200)
        sink.release("BAD")
        until(lambda: delivery.drained)
    assert values(sink, "BAD") == sorted(values(sink, "BAD"))
    assert len(values(sink, "BAD")) == 200


def test_a_backlog_far_beyond_the_buffers_comes_out_whole_and_in_order_per_site(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "MAX_BUFFERED", 60)
    monkeypatch.setattr(loading, "LANE_MAX", 20)
    monkeypatch.setattr(loading, "LANE_MIN", 5)
    monkeypatch.setattr(loading, "READ", 17)
    away = threading.Event()
    away.set()

    def answer(batch: Sequence[Entry]) -> Answer:
        site = batch[0].reading.site
        if site in ("A", "B") and away.is_set():
            return Transient("unavailable", "gone")
        return None

    sink = MemorySink(by_site=True, script=answer, policy=BatchPolicy(7, 10_000_000))
    journal.activate({"memory": "m"})
    sites = ("A", "B", "C", "D")
    with delivering(sink, journal) as delivery:
        for first in range(0, 2000, 40):
            journal.append(samples(40, sites, first), [])
        until(lambda: len(sink.written["C"]) == 500 and len(sink.written["D"]) == 500)
        held = sum(lane.size for lane in delivery._loader.lanes.values())
        assert held <= 200
        away.clear()
        journal.append(samples(40, sites, 2000), [])
        until(lambda: delivery.drained)
    for site in sites:
        assert values(sink, site) == [float(n) for n in range(2040) if sites[n % 4] == site]


def test_after_a_restart_each_site_goes_on_where_it_was(journal: Journal) -> None:
    def answer(batch: Sequence[Entry]) -> Answer:
        slow = batch[0].reading.site == "BAD"
        return Transient("unavailable", "gone") if slow else None

    before = MemorySink(by_site=True, script=answer)
    journal.activate({"memory": "m"})
    journal.append(samples(300, ("BAD", "MOR", "SIE")), [])
    with delivering(before, journal):
        until(lambda: len(before.written["MOR"]) == 100 and len(before.written["SIE"]) == 100)
    after = MemorySink(by_site=True)
    with delivering(after, journal) as delivery:
        until(lambda: delivery.drained)
    assert set(after.written) == {"BAD"}
    assert len(after.written["BAD"]) == 100


def test_nothing_is_given_up_while_the_store_of_dead_letters_is_full(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "small.db", Limits(dead_letter_max_bytes=0), SystemClock())
    journal.open()
    journal.activate({"memory": "m"})
    journal.append(samples(10), [])
    sink = MemorySink(script=refusing(3.0))
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.retries["refused"] > 0 and delivery.held is not None)
        assert "DEAD_LETTER_MAX_BYTES" in (delivery.held or "")
        assert journal.pending("memory") == 1
    assert len(values(sink)) == 9
    journal.close()


def test_the_random_failures_of_a_service_lose_double_and_reorder_nothing(
    journal: Journal,
) -> None:
    chance = Random(7)

    def answer(batch: Sequence[Entry]) -> Answer:
        bad = {entry.seq: "never" for entry in batch if entry.reading.value % 97 == 13}
        match chance.randrange(6):
            case 0:
                return Transient("unavailable", "gone")
            case 1 if bad:
                return ContentRefused("invalid_argument", "something")
            case _:
                return Outcome([], bad) if bad else None

    sink = MemorySink(by_site=True, script=answer, policy=BatchPolicy(13, 10_000_000))
    journal.activate({"memory": "m"})
    sites = ("A", "B", "C")
    with delivering(sink, journal) as delivery:
        for first in range(0, 3000, 30):
            journal.append(samples(30, sites, first), [])
        until(lambda: delivery.drained, 60)
    for site in sites:
        expected = [float(n) for n in range(3000) if sites[n % 3] == site and n % 97 != 13]
        assert values(sink, site) == expected
    assert all(line.balanced for line in journal.sites().values())


@pytest.mark.parametrize("refusals", range(1, 31))
def test_where_order_counts_a_destination_mended_at_any_moment_costs_no_order(
    journal: Journal, refusals: int
) -> None:
    """After so many refusals of everything the destination works, whatever is tried just then."""
    calls = 0

    def answer(_batch: Sequence[Entry]) -> Answer:
        nonlocal calls
        calls += 1
        broken = calls > 1 and calls <= 1 + refusals  # the first one shows that it can work
        return ContentRefused("invalid_argument", "no") if broken else None

    sink = MemorySink(script=answer, ordered_copies=True)
    journal.activate({"memory": "m"})
    journal.append(samples(5), [])
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.drained)
        journal.append(samples(20, first=5), [])
        until(lambda: delivery.drained)
    assert list(dict.fromkeys(values(sink))) == [float(number) for number in range(25)]
    assert journal.letters_waiting(10) == []


def test_where_order_counts_a_lone_refused_entry_is_compared_with_the_last_accepted_one(
    journal: Journal,
) -> None:
    sink = MemorySink(script=refusing_unnamed(1.0), ordered_copies=True)
    journal.activate({"memory": "m"})
    with delivering(sink, journal) as delivery:
        for number in range(2):
            journal.append([sample(float(number))], [])
            until(lambda: delivery.drained)
    assert values(sink) == [0.0, 0.0]
    assert len(journal.letters_waiting(10)) == 1
    line = journal.sites()["MOR"].sinks["memory"]
    assert (line.settled, line.dead_lettered, line.pending) == (1, 1, 0)


def test_where_order_counts_bad_entries_hold_up_nobody(journal: Journal) -> None:
    bad = [float(number) for number in (*range(10, 20), 41, 43, 99)]
    sink = MemorySink(script=refusing_unnamed(*bad), ordered_copies=True)
    journal.activate({"memory": "m"})
    journal.append(samples(5), [])
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.drained)
        journal.append(samples(95, first=5), [])
        until(lambda: delivery.drained)
    good = [float(number) for number in range(100) if number not in bad]
    assert list(dict.fromkeys(values(sink))) == good
    assert journal.sites()["MOR"].sinks["memory"].dead_lettered == len(bad)


@pytest.mark.parametrize(("level", "lines"), [(logging.DEBUG, 3), (logging.INFO, 0)])
def test_each_settled_reading_is_a_line_at_debug_alone(
    journal: Journal, caplog: pytest.LogCaptureFixture, level: int, lines: int
) -> None:
    journal.activate({"memory": "m"})
    journal.append(samples(3), [])
    with caplog.at_level(level, "bridge.delivery"), delivering(MemorySink(), journal) as delivery:
        until(lambda: delivery.drained)
    found = [record for record in caplog.records if record.message == "reading settled"]
    assert len(found) == lines


def test_when_one_site_works_again_the_others_do_not_wait_for_their_turn(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = RetryPolicy(initial=3_600.0, maximum=3_600.0)
    sites = tuple(f"S{number}" for number in range(8))
    gone = threading.Event()
    gone.set()
    error = Transient("unavailable", "gone")
    sink = MemorySink(by_site=True, script=lambda _batch: error if gone.is_set() else None)
    journal.activate({"memory": "m"})
    monkeypatch.setattr("tests.unit.test_delivery.QUICK", patient)
    with delivering(sink, journal) as delivery:
        journal.append(samples(80, sites), [])
        until(lambda: delivery.retries["unavailable"] >= len(sites))
        gone.clear()
        journal.append([sample(1_000.0, "NEW")], [])
        until(lambda: delivery.drained or len(sink.written["NEW"]) == 1)
        assert not sink.written["S0"], "a site that never failed says nothing of the others"
        lane = delivery._loader.lanes["S3"]
        lane.retry_at = 0.0
        until(lambda: delivery.drained)
    assert [values(sink, site) for site in sites] == [
        [float(value) for value in range(number, 80, 8)] for number in range(8)
    ]


def test_of_many_sites_those_that_wait_for_longest_are_written_first(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.delivery.BURST", 3)
    sites = tuple(f"S{number}" for number in range(10))
    sink = MemorySink(by_site=True)
    journal.activate({"memory": "m"})
    with delivering(sink, journal) as delivery:
        journal.append(samples(50, sites), [])
        until(lambda: delivery.drained)
    assert [batch[0] for batch in sink.batches] == list(range(1, 11))


@pytest.mark.parametrize(("lanes", "begun"), [(3, 3), (12, 5), (80, 8)])
def test_a_round_writes_a_few_lanes_or_a_part_of_many(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, lanes: int, begun: int
) -> None:
    monkeypatch.setattr("bridge.delivery.ROUND_SECONDS", 60.0)
    sink = MemorySink(by_site=True)
    journal.activate({"memory": "m"})
    with delivering(sink, journal):
        journal.append(samples(lanes, tuple(f"S{number}" for number in range(lanes))), [])
        until(lambda: len(sink.batches) >= begun)
        assert len(sink.batches) == begun, "the others wait for the next round"


# --- what one sink alone is to get again ----------------------------------------------------------


def replay_all(journal: Journal) -> None:
    """Order the replay of every dead letter, and have it done."""
    waiting = [Order(letter.id) for letter in journal.letters_waiting(1_000)]
    assert set(carried_out(journal, *waiting)) == {"pending"}


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_a_letter_that_is_replayed_goes_to_its_own_sink_and_no_other(
    journal: Journal, restarted: bool
) -> None:
    picky, other = MemorySink("picky", script=refusing(3, 4)), MemorySink("other", by_site=True)
    journal.activate({"picky": "p", "other": "o"})
    journal.append(samples(10), [])
    with delivering(picky, journal) as first, delivering(other, journal) as second:
        until(lambda: first.drained and second.drained)
        picky.script = lambda _batch: None
        if not restarted:
            replay_all(journal)
            until(lambda: first.drained and second.drained)
    if restarted:
        replay_all(journal)
        with delivering(picky, journal) as first, delivering(other, journal) as second:
            journal.append(samples(5, first=10), [])
            until(lambda: first.drained and second.drained)
    count = 15 if restarted else 10
    expected = [float(number) for number in range(count)]
    assert sorted(values(picky)) == expected
    assert values(picky)[8:10] == [3.0, 4.0]
    assert values(other, "MOR") == expected
    assert all(site.balanced for site in journal.sites().values())


def test_a_sink_that_catches_up_passes_by_what_is_for_another(
    journal: Journal, little_room: int
) -> None:
    away = threading.Event()
    away.set()
    gone = Transient("unavailable", "gone")
    picky = MemorySink("picky", script=refusing(*range(0, 40, 2)))
    absent = MemorySink("absent", by_site=True, script=lambda _: gone if away.is_set() else None)
    journal.activate({"picky": "p", "absent": "a"})
    with delivering(picky, journal) as first, delivering(absent, journal) as second:
        journal.append(samples(100), [])
        until(lambda: first.drained)
        picky.script = lambda _batch: None
        for start in range(100, little_room + 600, 100):
            journal.append(samples(100, first=start), [])
            until(lambda: first.drained)
            if start == 300:
                replay_all(journal)
        until(lambda: first.drained)
        away.clear()
        until(lambda: second.drained, 30)
    assert values(absent, "MOR") == [float(number) for number in range(little_room + 600)]
    assert sorted(values(picky)) == values(absent, "MOR")
    assert all(site.balanced for site in journal.sites().values())


def test_the_latency_of_a_reading_sent_again_among_new_ones_counts_where_it_belongs(
    journal: Journal,
) -> None:
    now = SystemClock().now_us()
    old, new = (
        [one._replace(received_us=now - age) for one in samples(2, first=first)]
        for first, age in ((0, 10_000_000_000), (2, 0))
    )
    sink = MemorySink()
    journal.activate({"memory": "m"})
    journal.append([old[0], new[0], old[1], new[1]], [])
    with delivering(sink, journal) as delivery:
        until(lambda: delivery.drained)
        counts = delivery.latencies.counts()
    by_bound = dict(zip(counts.bounds, counts.cumulative, strict=True))
    assert (by_bound[1_800.0], by_bound[7_200.0], by_bound[float("inf")]) == (2, 2, 4)
