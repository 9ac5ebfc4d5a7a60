"""From the journal into the lanes: one cursor that follows the newest entries, and one that
catches up for lanes that had to be left behind.

A lane in trouble must neither stop the others nor fill the memory: its entries are skipped (it is
`spilled` from the first one skipped) and stay in the journal alone. When it works again, the
second cursor goes over the journal once for all such lanes, from the oldest that was skipped up
to the first cursor; there they join it again. A lane that works but is full stops its cursor:
that is back-pressure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from bridge.journal import Journal, LaneProgress, Resume
from bridge.lanes import Lane
from bridge.reading import Again, Entry, Reading

READ = 1_000
MAX_BUFFERED = 20_000  # entries in all lanes that are not in trouble
LANE_MIN, LANE_MAX = 20, 10_000  # entries in one lane that has its share
SHARES = 4  # that a lane may hold while it works
MAX_WITNESSES = 1_000  # lanes without anything to do of which the last accepted entry is kept


@dataclass
class Loader:
    """Used from the delivery's thread alone. `troubled` tells whether a lane is to be left
    behind when it is full; `witnessed`, whether its entries may be sent again (see `Lane`);
    `sink`, whose the entries are that are for one sink alone."""

    journal: Journal
    lane_of: Callable[[Reading], str]
    troubled: Callable[[Lane], bool]
    resume: Resume
    witnessed: bool = False
    sink: str = ""
    lanes: dict[str, Lane] = field(default_factory=dict)
    cursor: int = 0
    _behind: int | None = None
    _catching: set[str] = field(default_factory=set)
    _taken: set[int] = field(default_factory=set)
    _witnesses: dict[str, Entry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cursor = self.resume.position
        self._done: dict[str, LaneProgress] = dict(self.resume.lanes)

    def take_over(self, entries: list[Entry]) -> None:
        """Begin with a batch whose fate is unknown: it is tried first, as it is."""
        if entries:
            lane = self._lane(self.lane_of(entries[0].reading))
            lane.batch = [entry for entry in entries if not self._resolved(lane.key, entry.seq)]
            self._taken = {entry.seq for entry in lane.batch}

    def forget_idle(self, lane: Lane) -> None:
        """Let go of a lane of which nothing is outstanding."""
        if lane.idle and not lane.in_flight:
            self.lanes.pop(lane.key, None)
            self._catching.discard(lane.key)
            if lane.witness is not None:
                self._keep_witness(lane.key, lane.witness)

    def _keep_witness(self, key: str, witness: Entry) -> None:
        self._witnesses.pop(key, None)
        if len(self._witnesses) >= MAX_WITNESSES:
            del self._witnesses[next(iter(self._witnesses))]
        self._witnesses[key] = witness

    def position(self) -> int:
        """Everything up to here is resolved."""
        first = min(
            (seq for lane in self.lanes.values() if (seq := lane.first_open) is not None),
            default=None,
        )
        return self.cursor if first is None else min(self.cursor, first - 1)

    def load(self) -> bool:
        """Fill the lanes as far as they may be. Answers whether there may be more at once."""
        caught = self._catch_up()
        return self._follow() or caught

    # --- the newest -------------------------------------------------------------------------------

    def _follow(self) -> bool:
        room = self._lane_room()
        if room == 0 or self.cursor >= self.journal.last_seq:
            return False
        entries = self.journal.read(self.cursor, READ)
        for entry in entries:
            if type(entry) is Again and entry.sink != self.sink:
                self.cursor = entry.seq
                continue
            lane = self._lane(self.lane_of(entry.reading))
            if not self._resolved(lane.key, entry.seq) and not self._offer(lane, entry, room):
                return False
            self.cursor = entry.seq
        return bool(entries)

    def _offer(self, lane: Lane, entry: Entry, room: int) -> bool:
        """Put an entry into its lane or leave it to the journal; False: wait with it."""
        return lane.spilled is not None or self._put(lane, entry, room)

    def _put(self, lane: Lane, entry: Entry, room: int) -> bool:
        """Put an entry into its lane, or leave the lane behind; False: wait with it."""
        if lane.size >= room // SHARES and self.troubled(lane):
            self.spill(lane, entry.seq)
            return True
        if lane.size >= room:
            return False
        lane.queue.append(entry)
        if lane.spilled is not None:  # it catches up
            lane.spilled = entry.seq + 1
        return True

    def spill(self, lane: Lane, seq: int) -> None:
        """Leave a lane's untried entries, and those from `seq` on, to the journal. It keeps
        something to try: nothing else would tell that it works again."""
        kept = [] if lane.batch else list(islice(lane.queue, LANE_MIN))
        first = lane.queue[len(kept)].seq if len(lane.queue) > len(kept) else seq
        lane.queue = deque(kept)
        lane.spilled = first if lane.spilled is None else min(first, lane.spilled)
        self._catching.discard(lane.key)

    # --- those left behind ------------------------------------------------------------------------

    def _catch_up(self) -> bool:
        if self._behind is None and not self._begin_pass():
            return False
        room = self._lane_room()
        if room == 0:
            return False
        assert self._behind is not None
        entries = self.journal.read(self._behind, READ)
        for entry in entries:
            if entry.seq > self.cursor or not self._catching:
                break
            if not self._offer_behind(entry, room):
                return False
            self._behind = entry.seq
        else:
            if entries:
                return True
        self._end_pass()
        return True

    def _begin_pass(self) -> bool:
        ready = [
            lane
            for lane in self.lanes.values()
            if lane.spilled is not None and not self.troubled(lane)
        ]
        if not ready:
            return False
        self._catching = {lane.key for lane in ready}
        self._behind = min(lane.spilled or 0 for lane in ready) - 1
        return True

    def _offer_behind(self, entry: Entry, room: int) -> bool:
        if type(entry) is Again and entry.sink != self.sink:
            return True
        key = self.lane_of(entry.reading)
        if key not in self._catching or self._resolved(key, entry.seq):
            return True
        lane = self.lanes[key]
        assert lane.spilled is not None
        if entry.seq < lane.spilled or lane.has(entry.seq):
            return True
        return self._put(lane, entry, room)

    def _end_pass(self) -> None:
        caught, self._catching = self._catching, set()
        self._behind = None
        for key in caught:
            lane = self.lanes[key]
            lane.spilled = None
            self.forget_idle(lane)

    # --- common -----------------------------------------------------------------------------------

    def _lane(self, key: str) -> Lane:
        lane = self.lanes.get(key)
        if lane is None:
            done, witness = self._done.get(key), self._witnesses.get(key)
            lane = self.lanes[key] = Lane(key, done, self.witnessed, witness)
        return lane

    def _lane_room(self) -> int:
        """How many entries one lane may hold now: more than its share, for few of many are full at
        a time, and their sum is bounded. One in trouble, of which that is not said, is left behind
        with its share. 0: all together hold enough."""
        buffered = sum(lane.size for lane in self.lanes.values() if not self.troubled(lane))
        if buffered >= MAX_BUFFERED:
            return 0
        share = MAX_BUFFERED // max(1, len(self.lanes))
        return SHARES * max(LANE_MIN, min(LANE_MAX, share))

    def _resolved(self, key: str, seq: int) -> bool:
        """Whether an entry was resolved before this start, or is in the batch begun with."""
        if seq in self._taken:
            return True
        done = self._done.get(key)
        return done is not None and (seq <= done.position or seq in done.beyond)
