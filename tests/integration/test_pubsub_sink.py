"""Pub/Sub: in order per site by first occurrences, whatever fails. Real delivery, journal and
client; local service."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from google.pubsub_v1 import PublishRequest

from bridge.clock import SystemClock
from bridge.errors import ContentRefused, Held, Transient
from bridge.journal import Journal
from bridge.journal.letters import DeadLetter
from bridge.reading import Entry, Reading
from bridge.sinks.base import Outcome
from bridge.sinks.letter_json import letter_json
from bridge.sinks.pubsub import LetterPublisher, PubSubSink
from tests.contract.sink_harness import (
    HASTY,
    PATIENT,
    SITES,
    Place,
    Run,
    crash_at,
    micros,
    readings,
    running,
)
from tests.support.readings import reading

PUBLISH = "pubsub.Publish"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


_Request = PublishRequest.pb()


class Recording(PubSubSink):
    """Keeps every publish request."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.settings, SystemClock(), PATIENT)
        self.requests: list[Any] = []

    def open(self) -> None:
        super().open()
        assert self._publisher is not None
        self._send, self._publisher._call = self._publisher._call, self

    def future(self, request: Any, **options: Any) -> Any:
        """In the place of the client library's call."""
        self.requests.append(_Request.FromString(request))
        return self._send.future(request, **options)


def publishing(place: Place, deadline: float = PATIENT) -> Callable[[Journal], PubSubSink]:
    return lambda _journal: PubSubSink(place.settings, SystemClock(), deadline)


def firsts(place: Place, site: str) -> list[float]:
    """The values of a site's events, each at its first occurrence."""
    events = {
        event["event_id"]: event["value"] for event in place.events() if event["site_code"] == site
    }
    return list(events.values())


def require_order(place: Place, given: Sequence[Reading], sites: Sequence[str] = SITES) -> None:
    for site in sites:
        assert firsts(place, site) == [r.value for r in given if r.site == site], site


# --- what is sent ---------------------------------------------------------------------------------


def test_an_event_is_what_the_contract_says(place: Place, path: Path) -> None:
    one = reading(
        1,
        "MOR",
        event_us=micros("2026-11-21T03:00:00.123000+00:00"),
        received_us=micros("2026-11-21T03:00:00.201334+00:00"),
        value=12.5,
        attributes='{"unit":"m³/h","nested":{"a":[1,null]}}',
    )
    with running(path, publishing(place)) as run:
        run.journal.append([one], [])
        run.drain()
    (message,) = place.services.pubsub.messages(place.topic)
    event_id = one.event_id.hex()
    assert json.loads(message.data) == {
        "event_id": event_id,
        "event_type": "kpi.reading",
        "schema_version": 1,
        "site_code": "MOR",
        "process": "SolvExtract",
        "kpi": one.pi_tag,
        "sensor_id": one.sensor_id,
        "event_time": "2026-11-21T03:00:00.123000Z",
        "value": 12.5,
        "received_at": "2026-11-21T03:00:00.201334Z",
        "attributes": {"unit": "m³/h", "nested": {"a": [1, None]}},
    }
    assert message.attributes == {
        "event_id": event_id,
        "event_type": "kpi.reading",
        "schema_version": "1",
        "site_code": "MOR",
        "pi_tag": one.pi_tag,
        "event_time": "2026-11-21T03:00:00.123000Z",
    }
    assert message.ordering_key == "MOR"


def test_without_further_members_the_attributes_are_an_empty_object(
    place: Place, path: Path
) -> None:
    with running(path, publishing(place)) as run:
        run.journal.append(readings(1), [])
        run.drain()
    assert [event["attributes"] for event in place.events()] == [{}]


def test_a_request_has_one_ordering_key_and_at_most_a_thousand_messages(
    place: Place, path: Path
) -> None:
    given = readings(3_000, SITES[:2]) + readings(3_000, SITES[2:], first=3_001)
    sink = Recording(place)
    place.fail(PUBLISH, "delay", seconds=0.1, times=3)
    with running(path, lambda _journal: sink) as run:
        run.journal.append(given, [])
        run.drain()
    for request in sink.requests:
        assert len({message.ordering_key for message in request.messages}) == 1
    assert max(len(request.messages) for request in sink.requests) == 1_000
    require_order(place, given)


def test_a_request_stays_within_ten_megabytes(place: Place, path: Path) -> None:
    sink = Recording(place)
    sizes = [300_000] * 11 + [6_000_000]
    given = [
        reading(number, attributes=json.dumps({"text": "x" * size}))
        for number, size in enumerate(sizes, 1)
    ]
    with running(path, lambda _journal: sink) as run:
        run.journal.append(given, [])
        run.drain()
    assert all(request.ByteSize() <= 10_000_000 for request in sink.requests)
    assert max(len(request.messages) for request in sink.requests) > 1
    require_order(place, given, SITES[:1])


class Watched(PubSubSink):
    """Counts the open writes by site."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.settings, SystemClock(), PATIENT)
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.most_of_a_site = self.most_sites = 0

    def write(self, batch: Sequence[Entry]) -> Future[Outcome]:
        site = batch[0].reading.site
        with self._lock:
            self._open[site] += 1
            self.most_of_a_site = max(self.most_of_a_site, self._open[site])
            self.most_sites = max(self.most_sites, sum(map(bool, self._open.values())))
        future = super().write(batch)
        future.add_done_callback(lambda _done: self._ended(site))
        return future

    def _ended(self, site: str) -> None:
        with self._lock:
            self._open[site] -= 1


def test_a_site_has_one_open_request_while_many_sites_have_theirs(place: Place, path: Path) -> None:
    sites = [f"S{number:02}" for number in range(20)]
    place.fail(PUBLISH, "delay", seconds=0.02, times=None)
    watched = Watched(place)
    given = readings(1_000, sites)
    with running(path, lambda _journal: watched) as run:
        for first in range(0, 1_000, 100):
            run.journal.append(given[first : first + 100], [])
        run.drain()
    assert watched.most_of_a_site == 1
    assert watched.most_sites >= 10
    require_order(place, given, sites)


# --- failures -------------------------------------------------------------------------------------

TROUBLES: list[dict[str, Any]] = [
    *({"kind": "status", "status": code} for code in ("UNAVAILABLE", "INTERNAL", "ABORTED")),
    *({"kind": "status", "status": code} for code in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")),
    *({"kind": "status", "status": code} for code in ("PERMISSION_DENIED", "NOT_FOUND")),
    {"kind": "answer_lost"},
    {"kind": "cut"},
    {"kind": "delay", "seconds": 0.05},
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda t: f"{t['kind']}-{t.get('status', '')}")
def test_the_order_of_every_site_survives_a_minute_of_retries(
    place: Place, path: Path, trouble: dict[str, Any]
) -> None:
    given = readings(600, SITES)
    place.fail(PUBLISH, **trouble, times=40)
    with running(path, publishing(place)) as run:
        for first in range(0, 600, 60):
            run.journal.append(given[first : first + 60], [])
        run.drain()
        assert run.journal.letters_waiting(1) == []
    require_order(place, given)


def test_the_order_survives_requests_that_are_never_answered(place: Place, path: Path) -> None:
    given = readings(300, SITES)
    place.fail(PUBLISH, "hang", skip=1, times=3)
    with running(path, publishing(place, HASTY)) as run:
        for first in range(0, 300, 50):
            run.journal.append(given[first : first + 50], [])
        run.drain()
        assert run.delivery.retries["deadline_exceeded"]
    require_order(place, given)


@pytest.mark.parametrize("kind", ["status", "hang", "answer_lost"])
def test_a_site_that_fails_is_replayed_in_order_while_the_others_flow(
    place: Place, path: Path, kind: str
) -> None:
    given = readings(600, SITES)
    place.fail(PUBLISH, kind, subject="MOR", times=None)
    with running(path, publishing(place, HASTY)) as run:
        for first in range(0, 600, 60):
            run.journal.append(given[first : first + 60], [])
        run.until(
            lambda: [len(firsts(place, site)) for site in ("SIE", "BAG")] == [200, 200],
            "the other sites are through",
        )
        assert run.journal.sites()["MOR"].sinks["pubsub"].settled == 0
        place.services.faults.clear()
        run.drain()
    require_order(place, given)


def test_copies_have_the_same_identity_and_the_same_content(place: Place, path: Path) -> None:
    place.fail(PUBLISH, "answer_lost", times=3)
    with running(path, publishing(place)) as run:
        run.journal.append(readings(5), [])
        run.drain()
    messages = place.services.pubsub.messages(place.topic)
    assert len(messages) == 20
    by_id: dict[str, set[bytes]] = {}
    for message in messages:
        by_id.setdefault(message.attributes["event_id"], set()).add(message.data)
    assert len(by_id) == 5
    assert all(len(contents) == 1 for contents in by_id.values())


@pytest.mark.parametrize("moment", ["before settle", "after settle"])
def test_the_order_survives_crashes(place: Place, path: Path, moment: str) -> None:
    given = readings(600, SITES)
    for first in range(0, 600, 200):
        run = Run(path, publishing(place), crash_at(moment, skip=1))
        run.journal.append(given[first : first + 200], [])
        run.start()
        run.until_over_or_drained()
        run.stop()
    with running(path, publishing(place)) as last:
        last.drain()
    require_order(place, given)


# --- refusals -------------------------------------------------------------------------------------


def test_a_message_that_is_refused_is_found_and_its_neighbours_stay_in_order(
    place: Place, path: Path
) -> None:
    given = [
        # Longer than an attribute of a message may be.
        r._replace(pi_tag="x" * 2_000) if number in (0, 77, 78, 150) else r
        for number, r in enumerate(readings(200))
    ]
    with running(path, publishing(place)) as run:
        run.journal.append(given, [])
        run.drain()
        letters = run.journal.letters_waiting(10)
    assert [letter.event_id for letter in letters] == [given[n].event_id for n in (0, 77, 78, 150)]
    require_order(place, [r for r in given if len(r.pi_tag) < 2_000], SITES[:1])


def test_a_topic_that_refuses_everything_holds_the_sites_and_nothing_is_given_up(
    place: Place, path: Path
) -> None:
    given = readings(300, SITES)
    place.fail(PUBLISH, status="INVALID_ARGUMENT", message="schema", times=None)
    with running(path, publishing(place)) as run:
        run.journal.append(given, [])
        run.until(lambda: run.delivery.retries["refused"] > 30, "it was tried again and again")
        assert "bridge" in str(run.delivery.held)
        assert run.delivery.last_error
        place.services.faults.clear()
        run.drain()
        assert run.journal.letters_waiting(1) == []
        run.until(lambda: run.delivery.held is None, "nothing is held any more")
    assert {r.event_id.hex() for r in given} == {event["event_id"] for event in place.events()}


def test_a_missing_topic_holds_the_sink_and_says_what_to_do(place: Place, path: Path) -> None:
    given = readings(30)
    settings = place.settings.model_copy(update={"pubsub_topic": "not-there"})
    with running(path, lambda _journal: PubSubSink(settings, SystemClock(), PATIENT)) as run:
        run.journal.append(given, [])
        run.until(lambda: run.delivery.held is not None, "the sink is held")
        assert "provision" in str(run.delivery.held)
        assert run.journal.letters_waiting(1) == []
    with running(path, publishing(place)) as run:
        run.drain()
    require_order(place, given, SITES[:1])


# --- the dead-letter topic ------------------------------------------------------------------------


def letter(number: int) -> DeadLetter:
    payload = f"payload {number}".encode()
    return DeadLetter(
        id=number,
        sink=None,
        reason="payload_not_json",
        detail="at character 0",
        site="MOR",
        topic="FCTS/FAE/MOR/SolvExtract/T",
        payload=payload,
        payload_bytes=len(payload),
        sha256=b"",
        received_us=1_795_000_000_000_000,
        event_id=None,
    )


@pytest.fixture
def letter_publisher(place: Place) -> Iterator[LetterPublisher]:
    topic = place.topic.rsplit("/", 1)[-1]
    publisher = LetterPublisher(
        place.settings.model_copy(update={"pubsub_dead_letter_topic": topic})
    )
    yield publisher
    publisher.close()


def test_dead_letters_are_confirmed_before_publish_returns(
    place: Place, letter_publisher: LetterPublisher
) -> None:
    letters = [letter(1), letter(2)]
    letter_publisher.publish(letters)
    messages = place.services.pubsub.messages(place.topic)
    assert [message.data for message in messages] == [letter_json(one) for one in letters]
    assert [message.ordering_key for message in messages] == ["", ""]


@pytest.mark.parametrize(
    ("code", "error"),
    [("UNAVAILABLE", Transient), ("NOT_FOUND", Held), ("INVALID_ARGUMENT", ContentRefused)],
)
def test_a_failure_of_the_dead_letter_topic_is_raised(
    place: Place, letter_publisher: LetterPublisher, code: str, error: type[Exception]
) -> None:
    place.fail(PUBLISH, status=code)
    with pytest.raises(error):
        letter_publisher.publish([letter(1)])
    letter_publisher.publish([letter(1)])
