"""The journal against a simple model of it, over random histories."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bridge.journal import AppendIntent, Journal, LaneProgress, Settlement
from bridge.journal.letters import Refused
from bridge.journal.orders import Order
from bridge.reading import Again, Entry
from tests.support.clock import ManualClock
from tests.support.journals import (
    MINUTE_US,
    Limits,
    audit,
    audit_by_day,
    is_for_another,
    new_journal,
    pass_time,
)
from tests.support.orders import carried_out
from tests.support.readings import reading, rejection

SITES = ("MOR", "NEV")
SINKS = {"pubsub": "topic", "bigquery": "table"}
RETENTION = 10
LIMITS = Limits(retention_us=RETENTION * MINUTE_US)


class Model:
    """What a journal has to be, with lists and sets."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}  # all ever accepted, by sequence number
        self.resolved: dict[str, set[int]] = {sink: set() for sink in SINKS}
        self.settled: dict[tuple[str, str], int] = {}
        self.dead: dict[tuple[str, str], int] = {}
        self.duplicates = dict.fromkeys(SITES, 0)
        self.rejected = dict.fromkeys(SITES, 0)
        self.intents: dict[str, AppendIntent] = {}
        self.letters = 0

    def pending(self, sink: str) -> list[Entry]:
        return [entry for seq, entry in self.entries.items() if seq not in self.resolved[sink]]

    def position(self, sink: str, last_seq: int) -> int:
        pending = self.pending(sink)
        return pending[0].seq - 1 if pending else last_seq


class Histories(RuleBasedStateMachine):
    """One lane a site for `pubsub`, one lane for `bigquery`."""

    folder: tempfile.TemporaryDirectory[str]
    journal: Journal

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "journal.db"
        self.clock = ManualClock()
        self.journal = new_journal(self.path, LIMITS, self.clock, SINKS)
        self.model = Model()

    @rule(
        numbers=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(SITES)), max_size=6),
        letters=st.lists(st.sampled_from(SITES), max_size=2),
        acknowledge=st.booleans(),
    )
    def append(self, numbers: list[tuple[int, str]], letters: list[str], acknowledge: bool) -> None:
        batch = [reading(number, site) for number, site in numbers]
        before = self.journal.last_seq
        held = self._held_ids()
        result = self.journal.append(batch, [rejection(site=site) for site in letters])
        new = {entry.seq: entry for entry in self.journal.read(before, 1_000)}
        accepted = []
        for one in batch:
            if one.event_id in held:
                self.model.duplicates[one.site] += 1
            else:
                held.add(one.event_id)
                accepted.append(one)
        assert [entry.reading for entry in new.values()] == accepted
        assert result.accepted == len(accepted)
        assert result.duplicates == len(batch) - len(accepted)
        self.model.entries |= new
        for site in letters:
            self.model.rejected[site] += 1
        self.model.letters += len(letters)
        if acknowledge:
            self.journal.acknowledged(result.last_seq)

    def _held_ids(self) -> set[bytes]:
        return {row[0] for row in self.journal._db.execute("SELECT event_id FROM ids")}

    @rule(sink=st.sampled_from(sorted(SINKS)), count=st.integers(1, 8), data=st.data())
    def settle(self, sink: str, count: int, data: st.DataObject) -> None:
        """An answer: the first of a lane are settled or refused, sometimes with holes."""
        pending = self.model.pending(sink)
        lanes = sorted({self._lane(sink, entry) for entry in pending})
        if not lanes:
            return
        lane = data.draw(st.sampled_from(lanes))
        batch = [entry for entry in pending if self._lane(sink, entry) == lane][:count]
        fates = data.draw(
            st.lists(st.sampled_from(["settled", "refused", "kept"]), min_size=len(batch))
        )
        chosen = list(zip(batch, fates, strict=False))
        settled = [entry for entry, fate in chosen if fate == "settled"]
        refused = [Refused(entry, "row", "no") for entry, fate in chosen if fate == "refused"]
        resolved = self.model.resolved[sink]
        resolved |= {entry.seq for entry in settled}
        resolved |= {letter.entry.seq for letter in refused}
        for entry in settled:
            key = sink, entry.reading.site
            self.model.settled[key] = self.model.settled.get(key, 0) + 1
        for letter in refused:
            key = sink, letter.entry.reading.site
            self.model.dead[key] = self.model.dead.get(key, 0) + 1
        self.model.letters += len(refused)
        settlement = Settlement(lane, self._progress(sink, lane), settled, refused)
        position = self.model.position(sink, self.journal.last_seq)
        self.journal.settle(sink, [settlement], position)

    @staticmethod
    def _lane(sink: str, entry: Entry) -> str:
        return entry.reading.site if sink == "pubsub" else ""

    def _progress(self, sink: str, lane: str) -> LaneProgress:
        resolved = self.model.resolved[sink]
        seqs = [
            seq
            for seq, entry in self.model.entries.items()
            if self._lane(sink, entry) == lane and not is_for_another(entry, sink)
        ]
        unresolved = [seq for seq in seqs if seq not in resolved]
        if not unresolved:
            return LaneProgress(max(seqs, default=0), ())
        before = [seq for seq in seqs if seq < unresolved[0]]
        beyond = tuple(seq for seq in seqs if seq > unresolved[0] and seq in resolved)
        return LaneProgress(max(before, default=0), beyond)

    @rule(sink=st.sampled_from(sorted(SINKS)), offset=st.integers(0, 100))
    def record(self, sink: str, offset: int) -> None:
        seqs = tuple(entry.seq for entry in self.model.pending(sink)[:5])
        if seqs:
            intent = AppendIntent("stream", offset, seqs)
            self.journal.record_append(sink, intent)
            self.model.intents[sink] = intent

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """What a sink refused is to go there once more, and nowhere else."""
        query = "SELECT id, sink, site FROM dead_letters WHERE sink NOTNULL AND replayed_us ISNULL"
        letters = self.journal._db.execute(query).fetchall()
        if not letters:
            return
        number, sink, site = data.draw(st.sampled_from(letters))
        assert carried_out(self.journal, Order(number)) == ["pending"]
        (again,) = self.journal.entries([self.journal.last_seq])
        assert isinstance(again, Again)
        assert again.sink == sink
        self.model.entries[again.seq] = again
        for other in SINKS.keys() - {sink}:
            self.model.resolved[other].add(again.seq)
        self.model.dead[sink, site] -= 1

    @rule()
    def forward(self) -> None:
        self.journal.letters_forwarded(self.journal.letters_waiting(3))

    @rule(minutes=st.integers(0, RETENTION * 2), jump=st.sampled_from([0, -86_400, 86_400]))
    def pass_time(self, minutes: int, jump: int) -> None:
        pass_time(self.journal, self.clock, minutes * 60)
        self.clock.jump(jump)

    @rule(kill=st.booleans())
    def restart(self, kill: bool) -> None:
        if kill:  # what a kill leaves: nothing written, the lock gone
            self.journal._db.close()
            self.journal._file_lock.release()
        else:
            self.journal.close()
        self.clock.pass_(86_400)
        self.journal = new_journal(self.path, LIMITS, self.clock, SINKS)
        assert self.journal.loss is None

    @invariant()
    def the_ledger_is_the_models(self) -> None:
        if not hasattr(self, "model"):
            return
        counts = self.journal.sites()
        for site in SITES:
            accepted = sum(
                entry.reading.site == site and not isinstance(entry, Again)
                for entry in self.model.entries.values()
            )
            if site not in counts:
                assert accepted == self.model.duplicates[site] == self.model.rejected[site] == 0
                continue
            line = counts[site]
            assert line.balanced
            assert line.accepted == accepted
            assert line.duplicates == self.model.duplicates[site]
            assert line.rejected == self.model.rejected[site]
            for sink in SINKS:
                assert line.sinks[sink].settled == self.model.settled.get((sink, site), 0)
                assert line.sinks[sink].dead_lettered == self.model.dead.get((sink, site), 0)
                assert line.sinks[sink].skipped == 0

    @invariant()
    def what_is_pending_can_be_read_and_nothing_else_is_pending(self) -> None:
        if not hasattr(self, "model"):
            return
        for sink in SINKS:
            pending = self.model.pending(sink)
            assert self.journal.pending(sink) == len(pending)
            resume = self.journal.resume(sink)
            found = [
                entry
                for entry in self.journal.read(resume.position, 1_000)
                if not self._behind(resume.lanes.get(self._lane(sink, entry)), entry.seq)
                and not is_for_another(entry, sink)
            ]
            assert found == pending
            assert self.journal.entries([entry.seq for entry in pending]) == pending
            assert self.journal.append_intent(sink) == self.model.intents.get(sink)
            oldest = self.journal.oldest_pending_us(sink)
            assert oldest == (pending[0].reading.received_us if pending else None)

    @staticmethod
    def _behind(progress: LaneProgress | None, seq: int) -> bool:
        return progress is not None and (seq <= progress.position or seq in progress.beyond)

    @invariant()
    def ids_of_the_last_minutes_are_held(self) -> None:
        if hasattr(self, "model"):
            again = self.journal._db.execute("SELECT event_id FROM again")
            held = self._held_ids() | {event_id for (event_id,) in again}
            unresolved = {e.reading.event_id for sink in SINKS for e in self.model.pending(sink)}
            assert unresolved <= held

    @invariant()
    def letters_are_kept(self) -> None:
        if hasattr(self, "model"):
            found = self.journal._db.execute("SELECT count(*) FROM dead_letters").fetchone()
            assert found == (self.model.letters,)

    def teardown(self) -> None:
        if hasattr(self, "model"):
            self.journal.close()
            audit(self.path)
            audit_by_day(self.path)
            self.folder.cleanup()


Histories.TestCase.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)
TestHistories = Histories.TestCase
