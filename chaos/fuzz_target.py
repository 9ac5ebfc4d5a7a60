"""One message through the whole bridge, in one process, with every step held to the contract.

    topic, payload ──▶ parse ──▶ intake ──▶ journal ──▶ entry ──▶ event · row · JSON row
                         │                     │                       │
                       oracle                letter ──▶ JSON ◀── refused by a sink
                                               └──▶ parse again

`check` judges one message; `Chain.check` the same for many, on one journal. A broken promise is
an AssertionError, and so is any other exception: no message may cause one.
"""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

from bridge.clock import SystemClock
from bridge.intake import Intake
from bridge.journal import Journal
from bridge.journal.letters import DeadLetter
from bridge.journal.types import Limits as JournalLimits
from bridge.reading import REASONS, Entry, Limits, Message, Reading, Rejection, parse
from chaos.fuzz_forms import NO_LIMITS, check_forms, check_letter, same
from chaos.fuzz_oracle import ACCEPTED, Broken, Content, Rules, Whole, judge

RECEIVED_US = 1_790_000_000_000_000  # 2026-09-21T14:13:20Z
MAX_PAYLOAD = 16_384
PLANT = Limits(max_payload_bytes=MAX_PAYLOAD)
ALL_TIMES = Limits(max_payload_bytes=MAX_PAYLOAD, max_age_us=2**62, max_future_us=2**62)
MESSAGES_A_JOURNAL = 1_000


def check(topic: str, payload: bytes) -> None:
    """Judge one message on a journal of its own. Raises AssertionError where a promise of the
    contract is broken."""
    with Chain() as chain:
        chain.check(topic, payload)


class Chain:
    """A context manager; used from one thread. Its journal begins anew every
    `MESSAGES_A_JOURNAL` messages, so that it stays small.

    directory: where the journal is. journal_every: of so many messages one goes through it, which
    takes as long as all the other steps together."""

    def __init__(self, directory: Path | None = None, journal_every: int = 1) -> None:
        self._journal_every = journal_every
        self._scratch = tempfile.TemporaryDirectory(prefix="fuzz-", dir=directory)
        self._number = 0
        self.outcomes: Counter[str] = Counter()  # of the messages judged so far

    def __enter__(self) -> Chain:
        self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._end()
        finally:
            self._journal.close()
            self._scratch.cleanup()

    def _begin(self) -> None:
        self._number += 1
        path = Path(self._scratch.name) / f"{self._number}.db"
        self._journal = Journal(path, JournalLimits(max_bytes=256 * 1024**2), SystemClock())
        self._journal.open()
        self._seen: dict[bytes, int] = {}
        self._taken = 0

    def _end(self) -> None:
        lines = self._journal.sites().values()
        assert sum(line.received for line in lines) == self._taken
        assert sum(line.accepted for line in lines) == len(self._seen)
        for line in lines:
            assert line.received == line.accepted + line.duplicates + line.rejected
        self._journal.close()
        for file in Path(self._scratch.name).glob(f"{self._number}.db*"):
            file.unlink()

    def check(self, topic: str, payload: bytes) -> None:
        """Judge one message, with a plant's limits of time and, where those refuse it, without."""
        if self._taken >= MESSAGES_A_JOURNAL:
            self._end()
            self._begin()
        message = Message(topic, payload, RECEIVED_US)
        try:
            result = self._check(message, PLANT)
            if isinstance(result, Rejection) and result.reason == "timestamp_out_of_range":
                self._check(message, ALL_TIMES)
        except AssertionError:
            raise
        except Exception as error:  # whatever it is, no message may cause it
            raise AssertionError(f"{error!r} was raised") from error

    def _check(self, message: Message, limits: Limits) -> Reading | Rejection:
        result = parse(message, limits)
        judgement = judge(message.topic, message.payload, _rules(limits))
        outcome = ACCEPTED if isinstance(result, Reading) else result.reason
        self.outcomes[outcome] += 1
        assert outcome in judgement.outcomes, (outcome, sorted(judgement.outcomes), result)
        if isinstance(result, Reading):
            assert judgement.content is not None
            _check_reading(result, message, judgement.content)
            entry = Entry(1, result)
            if self._is_for_the_journal():
                entry = self._through_journal(result, message, limits)
            check_forms(entry, judgement.content)
        else:
            _check_rejection(result, message, limits)
            letter = DeadLetter(1, None, *result, None)
            if self._is_for_the_journal():
                letter = self._as_letter(result, message, limits)
            check_letter(letter, result, message, limits)
        return result

    def _is_for_the_journal(self) -> bool:
        return self.outcomes.total() % self._journal_every == 0

    def _through_journal(self, reading: Reading, message: Message, limits: Limits) -> Entry:
        """The reading as the disk has it; a second one is a duplicate."""
        first = self._journal.last_seq + 1
        assert Intake(self._journal, limits).take([message, message]) == {}
        self._taken += 2
        seq = self._seen.setdefault(reading.event_id, first)
        [entry] = self._journal.entries([seq])
        # By their text, which tells 0 from 0.0 and from -0.0.
        assert repr(entry) == repr(Entry(seq, reading))
        assert self._journal.read(seq - 1, 1) == [entry]
        return entry

    def _as_letter(self, rejection: Rejection, message: Message, limits: Limits) -> DeadLetter:
        assert Intake(self._journal, limits).take([message]) == {}
        self._taken += 1
        [letter] = self._journal.letters_waiting(2)
        self._journal.letters_forwarded([letter])
        assert self._journal.letters_waiting(1) == []
        assert letter == DeadLetter(letter.id, None, *rejection, None)
        return letter


def _rules(limits: Limits) -> Rules:
    return Rules(RECEIVED_US, *limits)


# --- a reading ------------------------------------------------------------------------------------


def _check_reading(reading: Reading, message: Message, content: Content) -> None:
    names = (reading.site, reading.pi_tag, reading.sensor_id)
    assert names == (content.site, content.pi_tag, content.sensor_id)
    assert abs(reading.event_us - content.event_us) <= content.slack_us
    assert struct.pack(">d", reading.value) == struct.pack(">d", content.value)
    assert reading.received_us == RECEIVED_US
    assert reading.topic == message.topic
    assert (reading.attributes is None) == (not content.further)
    assert same(json.loads(reading.attributes or "{}"), content.further)
    assert reading.event_id == _published_identity(reading)
    again = message._replace(payload=_spelled_otherwise(message.payload).encode())
    assert repr(parse(again, NO_LIMITS)) == repr(reading)


def _published_identity(reading: Reading) -> bytes:
    """As the documentation has it."""
    texts = [text.encode() for text in (reading.site, reading.pi_tag, reading.sensor_id)]
    texts.append((reading.attributes or "{}").encode())
    parts = [struct.pack(">I", len(text)) + text for text in texts]
    parts.insert(3, struct.pack(">qd", reading.event_us, reading.value))
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def _spelled_otherwise(payload: bytes) -> str:
    """The same document with its members the other way round, white space and escapes."""
    return " " + _spelled(json.loads(payload, parse_int=Whole, parse_float=Broken)) + "\r\n"


def _spelled(value: Any) -> str:
    if isinstance(value, Whole | Broken):
        return value
    if isinstance(value, dict):
        rows = [f"\t{_spelled(name)} :\n{_spelled(value[name])}" for name in reversed(value)]
        return "{" + " ,".join(rows) + " }"
    if isinstance(value, list):
        return "[ " + " , ".join(map(_spelled, value)) + "\n]"
    return json.dumps(value, ensure_ascii=True)


# --- a refused message ----------------------------------------------------------------------------


def _check_rejection(rejection: Rejection, message: Message, limits: Limits) -> None:
    assert rejection.reason in REASONS
    assert rejection.detail
    assert rejection.payload == message.payload[: limits.max_payload_bytes]
    assert rejection.payload_bytes == len(message.payload)
    assert rejection.sha256 == hashlib.sha256(message.payload).digest()
    assert rejection.received_us == message.received_us
    malformed = rejection.reason == "topic_malformed"
    assert rejection.site == ("" if malformed else message.topic.split("/")[2])
    assert rejection.topic == message.topic.encode("utf-8", "backslashreplace").decode()
