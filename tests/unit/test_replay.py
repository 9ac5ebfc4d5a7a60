"""`replay`: which readings of a journal it takes, and what it makes of a service's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from bridge import replay
from bridge.errors import ContentRefused, FatalError, Held, Transient
from bridge.journal import Journal, LaneProgress, Settlement, store
from bridge.journal.letters import Refused
from bridge.journal.orders import Order
from bridge.policy import BatchPolicy, RetryPolicy
from bridge.reading import Entry
from bridge.replay import PubSubTarget, Replay, Settled, Tally, Wanted
from bridge.sinks.base import Outcome
from tests.support.journals import SINKS, opened, rows, settle, settle_everything
from tests.support.orders import carried_out, refuse
from tests.support.readings import reading


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with opened(tmp_path / "journal.db") as journal:
        yield journal


def settled(journal: Journal, wanted: Wanted) -> list[float]:
    with closing(store.connect_reader(journal.path)) as db:
        return [entry.reading.value for step in Settled(db, wanted).steps() for entry in step]


# --- what is there --------------------------------------------------------------------------------


def test_what_is_pending_is_left_to_the_daemon(journal: Journal) -> None:
    journal.append([reading(n, "AB"[n % 2]) for n in range(6)], [])
    a, b = journal.read(0, 10)[0::2], journal.read(0, 10)[1::2]
    done = [
        Settlement("A", LaneProgress(a[0].seq, (a[2].seq,)), [a[0], a[2]]),
        Settlement("B", LaneProgress(b[2].seq, ()), b),
    ]
    journal.settle("pubsub", done, a[0].seq)
    assert settled(journal, Wanted("pubsub")) == [0, 1, 3, 4, 5]
    assert settled(journal, Wanted("bigquery")) == []


def test_sites_and_event_times_select(journal: Journal) -> None:
    journal.append([reading(n, "ABC"[n % 3]) for n in range(9)], [])
    settle_everything(journal)
    first = reading(3).event_us
    assert settled(journal, Wanted("pubsub", frozenset({"A", "C"}))) == [0, 2, 3, 5, 6, 8]
    assert settled(journal, Wanted("pubsub", first_us=first)) == [3, 4, 5, 6, 7, 8]
    assert settled(journal, Wanted("pubsub", before_us=first)) == [0, 1, 2]


def test_what_the_sink_refused_is_not_sent_but_once_it_took_it(journal: Journal) -> None:
    journal.append([reading(1), reading(2)], [])
    first, second = journal.read(0, 2)
    settle_everything(journal, ["pubsub"])
    letter = refuse(journal, "bigquery", first)
    settle(journal, "bigquery", [second])
    assert settled(journal, Wanted("bigquery")) == [2]
    carried_out(journal, Order(letter))
    assert settled(journal, Wanted("bigquery")) == [2]
    settle_everything(journal)
    assert settled(journal, Wanted("bigquery")) == [2, 1]
    assert settled(journal, Wanted("pubsub")) == [1, 2]


def test_a_step_holds_nothing_and_is_bounded(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "READ", 4)
    journal.append([reading(n) for n in range(10)], [])
    settle_everything(journal)
    with closing(store.connect_reader(journal.path)) as db:
        steps = []
        for step in Settled(db, Wanted("pubsub")).steps():
            steps.append(len(step))
            store.checkpoint(journal._db)
            busy = journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            assert busy == 0
            journal.append([reading(100 + len(steps))], [])  # comes after it began
    assert steps == [4, 4, 2]


# --- sending --------------------------------------------------------------------------------------


class Service:
    """A target that gives the answers of a script, and then takes everything."""

    policy = BatchPolicy(max_entries=3, max_bytes=10**6)

    def __init__(self, *script: Exception | Callable[[Sequence[Entry]], Outcome]) -> None:
        self.script = list(script)
        self.written: list[list[float]] = []
        self.present: set[float] = set()
        self.finished = False

    def open(self) -> None:
        pass

    def missing(self, batch: Sequence[Entry]) -> list[Entry]:
        return [entry for entry in batch if entry.reading.value not in self.present]

    def write(self, batch: Sequence[Entry]) -> Outcome:
        self.written.append([entry.reading.value for entry in batch])
        answer = self.script.pop(0) if self.script else None
        if isinstance(answer, Exception):
            raise answer
        return answer(batch) if answer else Outcome([entry.seq for entry in batch], {})

    def finish(self) -> None:
        self.finished = True

    def close(self) -> None:
        pass


@pytest.fixture
def run(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Service, bool], Tally]]:
    monkeypatch.setattr(replay, "RETRY", RetryPolicy(initial=0.0))
    journal.append([reading(n) for n in range(5)], [])
    settle_everything(journal, SINKS)
    with closing(store.connect_writer_beside(journal.path)) as db:

        def run(service: Service, dry: bool = False) -> Tally:
            one = Replay(db, Wanted("bigquery"), service, random=Random(1))
            one.run(dry)
            return one.tally

        yield run


def test_what_is_missing_is_sent_in_batches_and_counted(
    journal: Journal, run: Callable[..., Tally]
) -> None:
    service = Service()
    service.present = {1.0, 3.0}
    assert run(service) == Tally(found=5, present=2, sent=3)
    assert service.written == [[0, 2], [4]]
    assert service.finished
    run(Service())
    assert rows(journal.path, "SELECT * FROM replayed") == [("bigquery", "MOR", 8)]


def test_a_dry_run_sends_nothing(journal: Journal, run: Callable[..., Tally]) -> None:
    service = Service()
    service.present = {1.0}
    assert run(service, True) == Tally(found=5, present=1, sent=4)
    assert (service.written, service.finished) == ([], False)
    assert rows(journal.path, "SELECT * FROM replayed") == []


def test_after_a_passing_failure_the_same_batch_comes_again(run: Callable[..., Tally]) -> None:
    service = Service(Transient("unavailable", "x"), Transient("unavailable", "x"))
    assert run(service) == Tally(found=5, sent=5)
    assert service.written == [[0, 1, 2]] * 3 + [[3, 4]]


def test_refused_rows_are_counted_and_their_neighbours_go_again(run: Callable[..., Tally]) -> None:
    service = Service(lambda batch: Outcome((), {batch[1].seq: "no"}))
    assert run(service) == Tally(found=5, sent=4, refused=1)
    assert service.written == [[0, 1, 2], [0, 2], [3, 4]]


def test_what_only_an_operator_can_mend_ends_it_with_the_remedy(run: Callable[..., Tally]) -> None:
    with pytest.raises(FatalError, match=r"permission_denied: no\. Remedy: let it write"):
        run(Service(Held("permission_denied", "no", "let it write")))
    with pytest.raises(FatalError, match="whole request"):
        run(Service(ContentRefused("invalid_argument", "no")))


class Picky(PubSubTarget):
    """Refuses every request that holds the entry 7."""

    def __init__(self) -> None:
        self.requests: list[int] = []

    def _publish(self, batch: Sequence[Entry]) -> None:
        self.requests.append(len(batch))
        if any(entry.seq == 7 for entry in batch):
            raise ContentRefused("invalid_argument", "not this one")


def test_the_event_that_pubsub_minds_is_found_by_halves() -> None:
    outcome = Picky().write([Entry(seq, reading(seq)) for seq in range(1, 10)])
    assert sorted(outcome.accepted) == [1, 2, 3, 4, 5, 6, 8, 9]
    assert outcome.refused == {7: "not this one"}


def test_letters_of_another_sink_keep_nothing_out(journal: Journal) -> None:
    journal.append([reading(1)], [])
    (entry,) = journal.read(0, 1)
    progress = LaneProgress(entry.seq, ())
    journal.settle("pubsub", [Settlement("", progress, [], [Refused(entry, "r", "d")])], entry.seq)
    settle_everything(journal, ["bigquery"])
    assert settled(journal, Wanted("bigquery")) == [1]
    assert settled(journal, Wanted("pubsub")) == []
