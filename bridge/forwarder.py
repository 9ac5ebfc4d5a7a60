"""Dead letters on their way to the dead-letter topic: from the journal, at least once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from random import Random
from typing import Protocol

from bridge.errors import ContentRefused, JournalDamaged, JournalError, SinkError
from bridge.journal import Journal
from bridge.journal.letters import DeadLetter
from bridge.policy import RetryPolicy

log = logging.getLogger(__name__)

LETTERS = 100
REQUEST_BYTES = 6_000_000  # of payload; base64 makes 8 MB of them, and a request takes 10
IDLE_SECONDS = 1.0


class LetterSink(Protocol):
    def publish(self, letters: Sequence[DeadLetter]) -> None:
        """Blocks until confirmed. Raises SinkError."""

    def close(self) -> None: ...


class Forwarder:
    """`run` belongs to one thread; the rest is safe from any."""

    def __init__(
        self, sink: LetterSink, journal: Journal, retry: RetryPolicy, random: Random
    ) -> None:
        self._sink = sink
        self._journal = journal
        self._retry = retry
        self._random = random
        self._stop = threading.Event()
        self._refused: set[int] = set()  # letters that the topic does not take, until a restart

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._sink.close()

    @property
    def waiting(self) -> bool:
        """Whether letters are still to be published that the topic has not refused. Reads the
        journal; where that cannot be read, there may be some."""
        try:
            found = self._journal.letters_waiting(1 + len(self._refused))
        except JournalError:
            return True
        return any(letter.id not in self._refused for letter in found)

    def run(self) -> None:
        """Publish letters as they come, until `stop`. Raises JournalDamaged."""
        attempts = 0
        while not self._stop.is_set():
            try:
                sent = self._send_some()
                attempts = 0
            except JournalDamaged:
                raise
            except SinkError as error:
                attempts += 1
                self._try_again(attempts, error.reason, error.detail)
                continue
            except JournalError as error:
                attempts += 1
                self._try_again(attempts, "journal", str(error))
                continue
            if not sent:
                self._stop.wait(IDLE_SECONDS)

    def _try_again(self, attempts: int, reason: str, detail: str) -> None:
        log.warning(
            "dead letters cannot be published: they stay in the journal, and are sent again soon. "
            "Look with `check` at PUBSUB_DEAD_LETTER_TOPIC, if it lasts",
            extra={"fields": {"reason": reason, "detail": detail}, "apart": reason},
        )
        self._stop.wait(self._retry.delay(attempts, self._random))

    def _send_some(self) -> int:
        waiting = self._journal.letters_waiting(LETTERS + len(self._refused))
        letters = _fitting([letter for letter in waiting if letter.id not in self._refused])
        if not letters:
            return 0
        try:
            self._sink.publish(letters)
        except ContentRefused as error:
            if len(letters) > 1:
                self._one_by_itself(letters[0])
            else:
                self._give_up(letters[0], error)
            return 1
        self._journal.letters_forwarded(letters)
        return len(letters)

    def _one_by_itself(self, letter: DeadLetter) -> None:
        try:
            self._sink.publish([letter])
        except ContentRefused as error:
            self._give_up(letter, error)
        else:
            self._journal.letters_forwarded([letter])

    def _give_up(self, letter: DeadLetter, error: ContentRefused) -> None:
        self._refused.add(letter.id)
        log.error(
            "the dead-letter topic refuses a dead letter: it stays in the journal, and is tried "
            "again after a restart. Look at it with `dead-letters show ID`",
            extra={"fields": {"id": letter.id, "detail": error.detail}},
        )


def _fitting(letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    fitting: list[DeadLetter] = []
    size = 0
    for letter in letters:
        size += len(letter.payload)
        if fitting and size > REQUEST_BYTES:
            break
        fitting.append(letter)
    return fitting
