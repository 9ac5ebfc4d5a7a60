"""Which call is to fail next, and how.

A fault is a rule: it names calls by pattern, optionally one subject (an ordering key, a table, a
stream), how often it applies, and what happens. The servers ask `Faults.take` once a call; the
first rule that fits and is not used up is applied.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

Kind = Literal["status", "delay", "hang", "answer_lost", "close_stream", "cut"]
KINDS: tuple[Kind, ...] = ("status", "delay", "hang", "answer_lost", "close_stream", "cut")


@dataclass(frozen=True)
class Fault:
    """One rule.

    call: a shell pattern on the call's name: `pubsub.Publish`, `bigquery.tabledata.insertAll`
        `storage.AppendRows`.
    kind: `status` answers with `status`, nothing applied; `delay` waits `seconds`, then serves the
        call as usual; `hang` never answers (until the caller goes away or the fault is cleared);
        `answer_lost` applies the call and answers with `status` (UNAVAILABLE / 503 by default)
        as if it had not; `close_stream` ends a streaming call after applying nothing, without an
        error of its own; `cut` drops the caller's connection.
    status: a gRPC code's name (`UNAVAILABLE`) on gRPC, an HTTP code (`503`) on REST.
    reason: BigQuery's `errors[].reason` on REST (`backendError`, `quotaExceeded`, …).
    subject: a shell pattern on the call's subject: the ordering key of a publish, the table's id,
        the write stream's name.
    skip: how many fitting calls go through first. times: how often it applies; None: until removed.
    """

    call: str
    kind: Kind = "status"
    status: str = ""
    reason: str = ""
    message: str = "injected fault"
    subject: str = "*"
    seconds: float = 0.0
    skip: int = 0
    times: int | None = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(KINDS)}")

    def fits(self, call: str, subject: str) -> bool:
        return fnmatchcase(call, self.call) and fnmatchcase(subject, self.subject)


@dataclass
class _Rule:
    fault: Fault
    seen: int = 0
    used: int = 0

    def take(self) -> bool:
        self.seen += 1
        if self.seen <= self.fault.skip:
            return False
        if self.fault.times is not None and self.used >= self.fault.times:
            return False
        self.used += 1
        return True


@dataclass
class Faults:
    """The rules in force and a count of the calls seen. Safe from every thread; never blocks."""

    _rules: dict[int, _Rule] = field(default_factory=dict)
    _calls: Counter[str] = field(default_factory=Counter)
    _withheld: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def add(self, fault: Fault) -> int:
        """Put a rule in force, behind those there are; answers its id."""
        with self._lock:
            number = next(self._ids)
            self._rules[number] = _Rule(fault)
            return number

    def remove(self, number: int) -> None:
        """Lift one rule. Idempotent. A call that hangs by it is released."""
        with self._lock:
            self._rules.pop(number, None)

    def clear(self) -> None:
        """Lift all rules, and grant all permissions. Calls that hang by one are released."""
        with self._lock:
            self._rules.clear()
            self._withheld.clear()

    def withhold(self, *permissions: str) -> None:
        """Have testIamPermissions answer without these. The calls themselves still go through:
        that they fail is a rule's business."""
        with self._lock:
            self._withheld.update(permissions)

    def granted(self, asked: Iterable[str]) -> list[str]:
        """Those that are not withheld, in order."""
        with self._lock:
            return [permission for permission in asked if permission not in self._withheld]

    def take(self, call: str, subject: str = "") -> tuple[int, Fault] | None:
        """Count the call, and answer the rule to apply to it with its id, if any."""
        with self._lock:
            self._calls[call] += 1
            for number, rule in self._rules.items():
                if rule.fault.fits(call, subject) and rule.take():
                    return number, rule.fault
            return None

    def in_force(self, number: int) -> bool:
        """Whether the rule still stands: what a hanging call polls."""
        with self._lock:
            return number in self._rules

    def calls(self) -> dict[str, int]:
        """How often each call was made since the start."""
        with self._lock:
            return dict(self._calls)

    def listing(self) -> list[dict[str, Any]]:
        with self._lock:
            return [
                {"id": number, "used": rule.used, **asdict(rule.fault)}
                for number, rule in self._rules.items()
            ]
