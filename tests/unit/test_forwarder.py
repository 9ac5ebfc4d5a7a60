"""Dead letters on their way to the topic, with a sink that does what the test says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from bridge import forwarder as forwarder_module
from bridge.errors import ContentRefused, Held, JournalDamaged, JournalError, SinkError, Transient
from bridge.forwarder import Forwarder
from bridge.journal import Journal
from bridge.journal.journal import Limits
from bridge.journal.letters import DeadLetter
from bridge.policy import RetryPolicy
from tests.support.journals import opened, rows
from tests.support.poll import eventually
from tests.support.readings import rejection

FORWARDING = Limits(forwarding=True)


class Topic:
    """Takes letters, but those whose payload is in `refuses`; first raises what is in `errors`."""

    def __init__(self) -> None:
        self.errors: list[SinkError] = []
        self.refuses: set[bytes] = set()
        self.requests: list[list[bytes]] = []
        self.published: list[bytes] = []
        self.closed = False

    def publish(self, letters: Sequence[DeadLetter]) -> None:
        payloads = [letter.payload for letter in letters]
        self.requests.append(payloads)
        if self.errors:
            raise self.errors.pop(0)
        if self.refuses & set(payloads):
            raise ContentRefused("invalid_argument", "some message is refused")
        self.published += payloads

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder_module, "IDLE_SECONDS", 0.01)


@contextmanager
def forwarding(journal: Journal, topic: Topic) -> Iterator[Forwarder]:
    forwarder = Forwarder(topic, journal, RetryPolicy(0.01, maximum=0.02), Random(1))
    thread = threading.Thread(target=forwarder.run, daemon=True)
    thread.start()
    try:
        yield forwarder
    finally:
        forwarder.stop()
        thread.join(10)
        assert not thread.is_alive()


def put(journal: Journal, *payloads: bytes) -> None:
    for payload in payloads:
        journal.append([], [rejection(payload)])


def wait_published(topic: Topic, *payloads: bytes) -> None:
    eventually(lambda: set(topic.published) >= set(payloads), "the letters are published")


def test_letters_are_published_once_also_those_from_before(path: Path, topic: Topic) -> None:
    with opened(path) as journal:  # no topic was set then
        put(journal, b"1", b"2")
    with opened(path, FORWARDING) as journal, forwarding(journal, topic) as forwarder:
        wait_published(topic, b"1", b"2")
        put(journal, b"3")
        wait_published(topic, b"3")
        eventually(lambda: not forwarder.waiting, "no letter waits")
    assert topic.published == [b"1", b"2", b"3"]
    assert rows(path, "SELECT forwarded FROM dead_letters") == [(1,), (1,), (1,)]
    with opened(path, FORWARDING) as journal, forwarding(journal, topic) as forwarder:
        put(journal, b"4")
        wait_published(topic, b"4")
    assert topic.published == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    "error", [Transient("unavailable", "away"), Held("not_found", "no topic", "create it")]
)
def test_a_failure_is_tried_again_until_it_works(
    path: Path, topic: Topic, error: SinkError, caplog: pytest.LogCaptureFixture
) -> None:
    topic.errors = [error] * 5
    with opened(path, FORWARDING) as journal:
        put(journal, b"1", b"2")
        with forwarding(journal, topic):
            wait_published(topic, b"1", b"2")
    assert len(topic.requests) == 6
    assert "dead letters cannot be published" in caplog.text


def test_a_letter_waits_until_it_is_confirmed_and_noted(path: Path, topic: Topic) -> None:
    with opened(path, FORWARDING) as journal:
        forwarder = Forwarder(topic, journal, RetryPolicy(), Random(1))
        assert not forwarder.waiting
        put(journal, b"1")
        assert forwarder.waiting
        with forwarding(journal, topic) as forwarder:
            eventually(lambda: not forwarder.waiting, "no letter waits")
        assert topic.published == [b"1"]


def test_a_letter_that_the_topic_refuses_stays_and_holds_up_no_other(
    path: Path, topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    topic.refuses = {b"bad", b"worse"}
    with opened(path, FORWARDING) as journal:
        put(journal, b"1", b"bad", b"2", b"worse", b"3")
        with forwarding(journal, topic) as forwarder:
            wait_published(topic, b"1", b"2", b"3")
            eventually(lambda: not forwarder.waiting, "only refused ones are left")
            put(journal, b"4")
            wait_published(topic, b"4")
        assert topic.published == [b"1", b"2", b"3", b"4"]
        assert [letter.payload for letter in journal.letters_waiting(10)] == [b"bad", b"worse"]
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2


@pytest.mark.parametrize("method", ["letters_waiting", "letters_forwarded"])
def test_a_journal_that_fails_for_a_while_does_not_end_the_thread(
    path: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    with opened(path, FORWARDING) as journal:
        put(journal, b"1")
        works = getattr(journal, method)
        failures = [JournalError("database or disk is full")] * 3

        def fail_at_first(*arguments: object) -> object:
            if failures:
                raise failures.pop()
            return works(*arguments)

        monkeypatch.setattr(journal, method, fail_at_first)
        with forwarding(journal, topic):
            eventually(
                lambda: rows(path, "SELECT forwarded FROM dead_letters") == [(1,)], "it is noted"
            )
        assert set(topic.published) == {b"1"}


def test_a_damaged_journal_ends_the_thread(path: Path, topic: Topic) -> None:
    with opened(path, FORWARDING) as journal:

        def fail(_limit: int) -> list[DeadLetter]:
            raise JournalDamaged("the journal is damaged")

        journal.letters_waiting = fail  # type: ignore[method-assign, assignment]
        forwarder = Forwarder(topic, journal, RetryPolicy(), Random(1))
        with pytest.raises(JournalDamaged):
            forwarder.run()
        assert forwarder.waiting  # nobody knows better


def test_a_request_is_bounded_in_letters_and_bytes(
    path: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder_module, "REQUEST_BYTES", 50)
    monkeypatch.setattr(forwarder_module, "LETTERS", 3)
    with opened(path, FORWARDING) as journal:
        sizes = [20, 20, 20, 80, 10, 1, 1, 1, 1]
        put(journal, *(bytes([65 + index]) * size for index, size in enumerate(sizes)))
        with forwarding(journal, topic) as forwarder:
            eventually(lambda: not forwarder.waiting, "all are published")
    assert [[len(payload) for payload in request] for request in topic.requests] == [
        [20, 20],
        [20],
        [80],
        [10, 1, 1],
        [1, 1],
    ]


def test_beyond_the_limit_letters_are_let_go_as_soon_as_they_are_published(
    path: Path, topic: Topic
) -> None:
    limits = Limits(forwarding=True, dead_letter_max_bytes=0)
    with opened(path, limits) as journal, forwarding(journal, topic):
        put(journal, b"1", b"2")
        eventually(lambda: rows(path, "SELECT count(*) FROM dead_letters") == [(0,)], "they go")
    assert topic.published == [b"1", b"2"]


def test_closing_closes_the_sink(path: Path, topic: Topic) -> None:
    with opened(path, FORWARDING) as journal:
        Forwarder(topic, journal, RetryPolicy(), Random(1)).close()
    assert topic.closed
