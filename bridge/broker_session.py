"""The broker's session for this bridge: whether it is still the one that was left there, and how
far the broker is known to have read the acknowledgements.

A QoS 1 message can come again until the broker has read its PUBACK. To know that it has, it is
asked something behind the PUBACKs: MQTT keeps the order of a connection, so the answer says that
what went before was read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from bridge.errors import JournalDamaged, JournalError
from bridge.link import Barrier, Link
from bridge.mqtt_client import BatchClient
from bridge.mqtt_setup import topic_filter
from bridge.settings import Settings

log = logging.getLogger(__name__)

BARRIER_SECONDS = 1.0
# Never subscribed to: only the broker's answer to leaving it is wanted.
BARRIER_TOPIC = "fcts-bridge/barrier"


class Notes(NamedTuple):
    """What may be asked of and told to the journal about the broker's session."""

    known: Callable[[], str | None]
    remember: Callable[[str], None]
    last_seq: Callable[[], int]
    acknowledged: Callable[[int], None]


class BrokerSession:
    """Used from the subscriber's thread; `lost` from any.

    lost: how often the broker no longer had the session that it should have kept.
    """

    def __init__(self, settings: Settings, notes: Notes) -> None:
        self._settings = settings
        self._notes = notes
        self._name = f"{settings.client_id} at {settings.mqtt_broker}"
        self._filter = topic_filter(settings)
        self.lost = 0

    # --- a connection begins ----------------------------------------------------------------------

    def found(self, present: bool, client: BatchClient, link: Link) -> None:
        """Compare what the broker's CONNACK says with what was left there. Does not block, but for
        the journal."""
        known, _, former = (self._notes.known() or "").partition("\n")
        if not present:
            # Nothing that was acknowledged or not can come again.
            self._notes.acknowledged(self._notes.last_seq())
            if known == self._name and self._settings.mqtt_session_expiry_seconds > 0:
                self._tell_of_loss()
        if present and known == self._name and former not in ("", self._filter):
            # The session would bring what the former filter fits for as long as it lives.
            _, link.leaving = client.unsubscribe(former)
        elif (known, former) != (self._name, self._filter):
            self._remember()

    def _tell_of_loss(self) -> None:
        self.lost += 1
        log.error(
            "the broker has lost the session: messages that it had queued for the bridge "
            "are gone. Look at the broker's persistence and session expiry, and have the "
            "sensors send again",
            extra={"fields": {"client_id": self._settings.client_id}},
        )

    def _remember(self) -> None:
        try:
            self._notes.remember(f"{self._name}\n{self._filter}")
        except JournalDamaged:
            raise
        except JournalError as error:  # remembered at the next connection
            log.error(
                "the broker's session could not be noted in the journal: it is tried again at the "
                "next connection. Look at the disk that JOURNAL_PATH is on",
                extra={"fields": {"error": str(error)}},
            )

    # --- what the broker can still send again -----------------------------------------------------

    def worth_asking(self, link: Link, now: float) -> bool:
        """Whether there is news for the broker to confirm, and an answer would confirm it."""
        news = self._notes.last_seq() != link.confirmed_seq and link.may_confirm
        return news and now - link.barrier_at >= BARRIER_SECONDS

    def ask(self, client: BatchClient, link: Link, now: float) -> None:
        """Have the broker say that it has read the acknowledgements written so far."""
        seq = self._notes.last_seq()
        link.barrier_at = now
        _, mid = client.unsubscribe(BARRIER_TOPIC)
        if mid is not None:
            link.barrier = Barrier(mid, link.arrived, link.done, seq)

    def answered(self, mid: int, link: Link) -> Barrier | None:
        """Take in an UNSUBACK. Answers the barrier that it was the answer to."""
        if mid == link.leaving:
            self._remember()
        barrier = link.barrier
        if barrier is None or barrier.mid != mid:
            return None
        link.barrier = None
        if link.confirms(barrier):
            link.confirmed_seq = barrier.seq
            self._notes.acknowledged(barrier.seq)
        return barrier
