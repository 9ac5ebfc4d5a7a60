"""Parse → journal: what stands between a message and its acknowledgement."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bridge.journal import Journal, letters
from bridge.journal.letters import DeadLetter
from bridge.journal.orders import Fresh, Order, Retry, Unfit, Verdict
from bridge.reading import Limits, Message, Reading, Rejection, parse

log = logging.getLogger(__name__)

# What was accepted once is not measured again.
NO_LIMITS = Limits(max_payload_bytes=2**62, max_age_us=2**62, max_future_us=2**62)


class Intake:
    """Used from the subscriber's thread alone."""

    def __init__(self, journal: Journal, limits: Limits) -> None:
        self._journal = journal
        self._limits = limits

    @property
    def full(self) -> bool:
        """Whether the journal takes nothing now."""
        return self._journal.full

    def take(self, messages: Sequence[Message]) -> dict[int, int]:
        """Judge a batch and commit it, readings and dead letters alike. On disk when it returns:
        all may be acknowledged but the ones answered, by index, for which there was no room, with
        the bytes that each needs. Raises JournalError, having taken nothing."""
        readings: list[Reading] = []
        rejections: list[Rejection] = []
        places: list[int] = []
        for place, message in enumerate(messages):
            judged = parse(message, self._limits)
            if isinstance(judged, Reading):
                readings.append(judged)
            else:
                rejections.append(judged)
                places.append(place)
        result = self._journal.append(readings, rejections)
        if rejections:
            self._tell(rejections, result.deferred)
        return {places[index]: letters.size(rejections[index]) for index in result.deferred}

    def has_room_for(self, size: int) -> bool:
        """Whether a dead letter that needs so many bytes would be stored now."""
        return self._journal.fits_as_letter(size)

    def upkeep(self) -> None:
        """A step of the journal's upkeep, and of what operators have ordered. Raises
        JournalError."""
        self._journal.maintain()
        self.carry_out_orders()

    def carry_out_orders(self) -> int:
        """Some of the orders that wait; answers how many. On disk when it returns. Raises
        JournalError, and they wait on."""
        done = self._journal.carry_out(
            lambda order, letter, now_us: judged(order, letter, now_us, self._limits)
        )
        if done:
            log.info("carried out what an operator ordered", extra={"fields": {"orders": done}})
        return done

    @staticmethod
    def _tell(rejections: Sequence[Rejection], deferred: frozenset[int]) -> None:
        for index, rejection in enumerate(rejections):
            if index not in deferred:
                log.warning(
                    "a message was refused: it is kept as a dead letter, and acknowledged. Look "
                    "at it with `dead-letters list`, and mend the sensor",
                    extra={
                        "fields": {
                            "reason": rejection.reason,
                            "detail": rejection.detail,
                            "site": rejection.site,
                            "topic": rejection.topic,
                        },
                        "apart": rejection.reason,
                    },
                )
        if deferred:
            log.error(
                "refused messages are left unacknowledged: the store of dead letters is full, and "
                "the broker keeps them. Export and purge dead letters, raise "
                "DEAD_LETTER_MAX_BYTES, or set PUBSUB_DEAD_LETTER_TOPIC",
                extra={"fields": {"messages": len(deferred)}},
            )


def judged(order: Order, letter: DeadLetter, now_us: int, limits: Limits) -> Verdict:
    """What an order to replay a letter makes of it. Pure; never raises."""
    if letter.sink is not None and order.topic is None and order.payload is None:
        return _as_it_was(letter, letter.sink)
    if letter.reason == "topic_malformed" and order.topic is None:
        return Unfit("its topic is malformed: say with --topic under which it is to be received")
    if order.payload is None and not letter.whole:
        kept, whole = len(letter.payload), letter.payload_bytes
        return Unfit(f"only {kept} of its {whole} bytes were kept: give all of it with --payload")
    payload = letter.payload if order.payload is None else order.payload
    found = parse(Message(order.topic or letter.topic, payload, now_us), limits)
    if isinstance(found, Rejection):
        return Unfit(f"it is refused again: {found.reason}: {found.detail}")
    if letter.sink is not None and found.event_id == letter.event_id:
        return _as_it_was(letter, letter.sink)  # what was given is no other reading
    return Fresh(found)


def _as_it_was(letter: DeadLetter, sink: str) -> Verdict:
    found = parse(Message(letter.topic, letter.payload, letter.received_us), NO_LIMITS)
    if isinstance(found, Rejection) or found.event_id != letter.event_id:
        return Unfit("the reading that was refused cannot be read back from what was kept of it")
    return Retry(found, sink)
