"""Parse → journal: what stands between a message and its acknowledgement."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bridge.journal import Journal, letters
from bridge.reading import Limits, Message, Reading, Rejection, parse

log = logging.getLogger(__name__)


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
        """A step of the journal's upkeep. Raises JournalError."""
        self._journal.maintain()

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
