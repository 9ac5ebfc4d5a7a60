"""MQTT: connect, subscribe, receive in batches, acknowledge in order after the commit.

One thread does all of it, in a straight line: read what the socket holds, hand the batch to the
intake (which returns when it is on disk), write the acknowledgements. paho's external loop makes
that possible: it neither starts a thread nor acknowledges by itself.

Back-pressure is MQTT's own: at most Receive Maximum messages are unacknowledged, and the broker
keeps the rest. While the journal takes nothing the messages in hand wait here, the connection
stays alive, and nothing is acknowledged.
"""

from __future__ import annotations

import logging
import select
import ssl
import threading
from collections.abc import Iterable
from random import Random
from typing import Any

import paho.mqtt.client as mqtt

from bridge.broker_session import BrokerSession
from bridge.clock import Clock
from bridge.errors import JournalDamaged, JournalError
from bridge.intake import Intake
from bridge.link import Link, Received
from bridge.mqtt_client import BatchClient
from bridge.mqtt_setup import (
    DROPPED_TOPIC,
    connect_options,
    make_client,
    subscriptions,
    topic_filter,
)
from bridge.mqtt_version import Version
from bridge.policy import RetryPolicy
from bridge.reading import Message
from bridge.settings import Settings

log = logging.getLogger(__name__)

RECEIVE_MAXIMUM = 1_000
ALL_PACKET_IDS = 65_535  # MQTT 3.1.1 knows no other bound
LINGER_SECONDS = 0.006  # how long the first message of a commit waits for others
KEEP_ALIVE_SECONDS = 30
UPKEEP_SECONDS = 1.0  # between two steps of upkeep, at most
IDLE_UPKEEP_SECONDS = 0.05  # and at least: it takes the journal from the deliveries, and may flush
RESUBSCRIBE_SECONDS = 15.0
STEADY_SECONDS = 10.0  # a connection that lasted less is made again with growing pauses
POLL_SECONDS = 0.2
MOVING_SECONDS = 8.0
# The other side will say no more. Linux alone has the first of these.
HANG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
UNSUPPORTED_VERSION = 132
SESSION_TAKEN_OVER = 142
RETRY = RetryPolicy(initial=0.2, maximum=10.0)
MANY_FAILURES = 3
GONE_FAILURES = 5  # in a row, for a broker from which nothing more is to be had


class Subscriber:
    """`run` belongs to one thread; `stop` and the attributes may be used from any.

    problem: why nothing is subscribed to, in words. journal_problem: why the journal did not take
    what was in hand, until it does.
    """

    def __init__(
        self,
        settings: Settings,
        intake: Intake,
        session: BrokerSession,
        clock: Clock,
        random: Random,
        password: str | None = None,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._session = session
        self._clock = clock
        self._random = random
        self._password = password
        self._filter = topic_filter(settings)
        self._retry = RETRY
        self._stop = threading.Event()
        self._finish = threading.Event()
        self._version = Version()
        self._client = self._make_client()
        self._link = Link(clock.monotonic(), RECEIVE_MAXIMUM)
        self._failures = 0  # connections in a row that were refused or short
        self._retry_at = self._upkeep_at = 0.0
        self._connecting = False
        self.connected = False
        self.subscribed = False
        self.problem: str | None = "not connected to the broker yet"
        self.journal_problem: str | None = None
        self.taken = 0
        self.retained_ignored = 0
        self.qos0_dropped = 0
        self.broker_dropped: int | None = None
        self._beat_at = clock.monotonic()

    def stop(self) -> None:
        """Take no more; `run` ends after what is in hand is taken and acknowledged."""
        self._stop.set()

    def finish(self) -> None:
        """Take all that the broker still holds for the bridge, and then `stop`; at once where
        the broker cannot be reached. For a broker to which nobody sends any more: else it has no
        end."""
        self._finish.set()

    @property
    def moving(self) -> bool:
        """Whether the thread has come round lately. While it connects it cannot: finding the
        name of an absent broker may take minutes, and that is no fault of the intake."""
        return self._connecting or self._clock.monotonic() - self._beat_at < MOVING_SECONDS

    @property
    def sessions_lost(self) -> int:
        """How often the broker no longer had the session that it should have kept."""
        return self._session.lost

    @property
    def choked(self) -> bool:
        """Whether refused messages without room take up all that the broker may send."""
        return self._link.all_left

    # --- the thread -------------------------------------------------------------------------------

    def run(self) -> None:
        """Receive until `stop`. Raises JournalDamaged, ConfigurationError."""
        if self._settings.mqtt_shared_group:
            log.warning(
                "a shared subscription is used: the order per site holds, and duplicates are "
                "recognised, only within what this bridge receives. Unset MQTT_SHARED_GROUP, if "
                "one bridge is enough",
                extra={"fields": {"group": self._settings.mqtt_shared_group}},
            )
        while not self._stop.is_set():
            if self._connect():
                self._serve()
            self._failures = 0 if self._ended_well() else self._failures + 1
            if self._finish.is_set() and self._failures >= GONE_FAILURES:
                break
            if not self._stop.is_set() and self._failures:
                self._pause(self._retry.delay(self._failures, self._random))
        self._leave()

    def _ended_well(self) -> bool:
        since = self._link.subscribed_at
        lasted = since is not None and self._clock.monotonic() - since >= STEADY_SECONDS
        return lasted or self._link.planned_end

    def _pause(self, seconds: float) -> None:
        deadline = self._clock.monotonic() + seconds
        while not self._stop.is_set() and (left := deadline - self._clock.monotonic()) > 0:
            self._upkeep()
            self._stop.wait(min(POLL_SECONDS, left))
            if self._finish.is_set():
                break  # there is no time for long pauses

    def _connect(self) -> bool:
        window = RECEIVE_MAXIMUM if self._version.is_5 else ALL_PACKET_IDS
        self._link = Link(self._clock.monotonic(), window)
        settings = self._settings
        self._connecting = True
        try:
            self._client.connect(
                settings.mqtt_broker,
                settings.mqtt_port,
                keepalive=KEEP_ALIVE_SECONDS,
                **connect_options(settings, self._version, RECEIVE_MAXIMUM),
            )
        except (OSError, UnicodeError) as error:  # the latter: no name that could be looked up
            self._disturbed(
                "the broker cannot be reached: the bridge tries again, and readings wait with the "
                "sensors. Start the broker, or correct MQTT_BROKER, MQTT_PORT and MQTT_TLS",
                f"the broker cannot be reached: {error}",
            )
            return False
        finally:
            self._connecting = False
        return True

    def _serve(self) -> None:
        """One connection, from CONNECT until it is gone or `stop`."""
        while not self._stop.is_set() and self._client.socket() is not None:
            self._gather()
            self._read(POLL_SECONDS if not self._link.waiting or self._held_up else 0.0)
            if self._due():
                self._take_waiting(acknowledge=True)
            self._write()
            self._client.loop_misc()
            self._upkeep()
        if not self._stop.is_set():
            self._connection_gone()

    def _gather(self) -> None:
        """Let others come together with the message that waits: waking up for each one costs more
        than taking it in."""
        if self._link.waiting and not self._held_up and not self._link.batch_is_full:
            left = self._link.first_at + LINGER_SECONDS - self._clock.monotonic()
            if left > 0:
                self._stop.wait(left)

    def _read(self, timeout: float) -> None:
        """Read packets until the socket is empty, a batch is full or its time is over. While the
        journal takes nothing, too: the broker's sign of life is among them."""
        socket = self._client.socket()
        if socket is None or not self._ready(socket, timeout):
            return
        for _ in range(RECEIVE_MAXIMUM):
            if self._link.batch_is_full and not self._held_up:
                break
            before = self._link.arrived
            if self._client.receive() != mqtt.MQTT_ERR_SUCCESS or self._link.arrived == before:
                break

    def _ready(self, socket: Any, timeout: float) -> bool:
        if isinstance(socket, ssl.SSLSocket) and socket.pending():
            return True
        poll = select.poll()
        flags = select.POLLIN | (select.POLLOUT if self._client.want_write() else 0)
        poll.register(socket, flags)
        events = poll.poll(timeout * 1000)
        return any(event & ~select.POLLOUT for _, event in events)

    def _write(self) -> None:
        # A write that fails makes paho close the socket, with all that could still be read from
        # it: of a broker that is gone, messages that nobody else has any more.
        if self._client.want_write() and not self._hung_up():
            self._client.loop_write()

    def _hung_up(self) -> bool:
        socket = self._client.socket()
        if socket is None:
            return False
        poll = select.poll()
        poll.register(socket, HANG_UP)
        return bool(poll.poll(0))

    def _due(self) -> bool:
        if not self._link.waiting or self._clock.monotonic() < self._retry_at:
            return False
        late = self._clock.monotonic() - self._link.first_at >= LINGER_SECONDS
        return late or self._link.batch_is_full

    @property
    def _held_up(self) -> bool:
        """Whether the journal takes nothing, and messages wait in hand."""
        return self._intake.full or self._clock.monotonic() < self._retry_at

    # --- intake and acknowledgement ---------------------------------------------------------------

    def _take_waiting(self, acknowledge: bool) -> None:
        """Commit what is in hand, batch by batch, and acknowledge it on this connection."""
        while self._link.waiting and not self._held_up:
            try:
                self._take(self._link.batch(), acknowledge)
            except JournalDamaged:
                raise
            except JournalError as error:
                self._cannot_journal(error)

    def _take(self, batch: list[Received], acknowledge: bool) -> None:
        live = [index for index, received in enumerate(batch) if not received.retained]
        deferred = self._intake.take([batch[index].message for index in live])
        self.journal_problem = None
        self.taken += len(live) - len(deferred)
        left = {live[place]: room for place, room in deferred.items()}
        self._drop_qos0(batch[index] for index in left)
        left = {index: room for index, room in left.items() if batch[index].mid}
        choked = self._link.all_left
        self._link.taken(batch, left, self._clock.monotonic())
        if acknowledge:
            self._client.acknowledge(
                [
                    received.mid
                    for index, received in enumerate(batch)
                    if received.mid and index not in left
                ]
            )
        if self._link.all_left and not choked:
            log.error(
                "refused messages without room take up all that the broker may send: nothing "
                "comes in any more. Export and purge dead letters, or raise DEAD_LETTER_MAX_BYTES",
                extra={"fields": {"messages": self._link.left}},
            )

    def _cannot_journal(self, error: JournalError) -> None:
        self._retry_at = self._clock.monotonic() + 1.0
        self.journal_problem = str(error)
        log.error(
            "the journal takes nothing: messages are not acknowledged, and the broker keeps "
            "them. Look at the disk that JOURNAL_PATH is on",
            extra={"fields": {"error": str(error), "in_hand": len(self._link.waiting)}},
        )

    def _drop_qos0(self, messages: Iterable[Received]) -> None:
        """Count those of these that nobody will send again."""
        dropped = sum(1 for received in messages if not (received.mid or received.retained))
        if dropped:
            self.qos0_dropped += dropped
            log.warning(
                "QoS 0 messages cannot wait for the journal: they are lost. Let the sensors "
                "publish with QoS 1",
                extra={"fields": {"messages": dropped}},
            )

    def _upkeep(self) -> None:
        now = self._beat_at = self._clock.monotonic()
        try:
            idle = not self._link.waiting
            pause = IDLE_UPKEEP_SECONDS if idle else UPKEEP_SECONDS
            # At once where a step of it may make room for what waits.
            if self._held_up or now - self._upkeep_at >= pause:
                self._upkeep_at = now
                self._intake.upkeep()
                if not self._link.waiting:
                    self.journal_problem = None
        except JournalDamaged:
            raise
        except JournalError as error:
            self.journal_problem = str(error)
            log.error(
                "the journal's upkeep failed: it is tried again within a second. Look at the disk "
                "that JOURNAL_PATH is on",
                extra={"fields": {"error": str(error)}},
            )
        if self.connected:
            self._see_to_session(now)

    def _see_to_session(self, now: float) -> None:
        link = self._link
        if not self.subscribed and now - link.subscribe_at >= RESUBSCRIBE_SECONDS:
            self._subscribe()
        if link.barrier is None and self._barrier_due(now):
            self._session.ask(self._client, link, now)
        if link.planned_end or link.waiting:
            return
        # Only a new connection makes the broker send again what was left unacknowledged.
        if link.left and self._intake.has_room_for(link.least_room):
            self._reconnect("there is room for dead letters again")
        elif link.passing_over and not self._held_up:
            self._reconnect("the journal takes messages again")

    def _reconnect(self, why: str) -> None:
        log.info(
            "the bridge connects anew: only then the broker sends again what it holds",
            extra={"fields": {"reason": why}},
        )
        self._link.planned_end = True
        self._client.disconnect()

    def _barrier_due(self, now: float) -> bool:
        if self._finish.is_set():
            return self.subscribed and not self._link.waiting
        return self._session.worth_asking(self._link, now)

    # --- paho's callbacks, all within the thread --------------------------------------------------

    def _on_connect(self, _c: Any, _u: Any, flags: Any, code: Any, _p: Any) -> None:
        self._link.answered = True
        if code.is_failure:
            self._link.version_refused = code.value == UNSUPPORTED_VERSION
            self._disturbed_for_good(
                "the broker refused the connection: the bridge tries again. Correct "
                "MQTT_USERNAME, its password and MQTT_CLIENT_ID, or the broker's users",
                f"the broker refused the connection: {code}",
            )
            return
        self.connected = True
        self._version.accepted()
        self._session.found(bool(flags.session_present), self._client, self._link)
        self._subscribe()

    def _subscribe(self) -> None:
        self._link.subscribe_at = self._clock.monotonic()
        self._client.subscribe(subscriptions(self._settings, self._version))

    def _on_subscribe(self, _c: Any, _u: Any, _mid: int, codes: Any, _p: Any) -> None:
        granted = codes[0]
        if granted.is_failure or granted.value != 1:
            self.subscribed = False
            self._disturbed_for_good(
                "the broker refused the subscription: nothing comes in, and the bridge asks again "
                "every 15 s. Let the user of MQTT_USERNAME read MQTT_TOPIC at QoS 1",
                f"the broker refused the subscription to {self._filter} at QoS 1 "
                f"({granted}): let the bridge's user read it",
            )
            return
        self.subscribed = True
        self._link.subscribed_at = self._clock.monotonic()
        self.problem = None
        log.info(
            "subscribed: readings are taken from now on",
            extra={"fields": {"topic": self._filter, "mqtt": str(self._version)}},
        )

    def _on_unsubscribe(self, _c: Any, _u: Any, mid: int, _codes: Any, _p: Any) -> None:
        barrier = self._session.answered(mid, self._link)
        if barrier and self._finish.is_set() and self._link.is_last(barrier):
            self._stop.set()

    def _on_publish(
        self, topic: bytes, payload: bytes, _qos: int, mid: int, retained: bool
    ) -> None:
        if topic == DROPPED_TOPIC:
            self._on_counter(payload)
            return
        # Whatever the broker let pass: bytes that are no UTF-8 become lone surrogates, which no
        # name may have.
        name = topic.decode("utf-8", "surrogateescape")
        received = Received(Message(name, payload, self._clock.now_us()), mid, retained)
        self._link.arrive(received)
        self.retained_ignored += retained
        if mid or not self._held_up:
            self._link.hold(received, self._clock.monotonic())
        else:
            self._drop_qos0([received])

    def _on_counter(self, payload: bytes) -> None:
        if payload.isdigit():
            self.broker_dropped = int(payload)

    def _on_disconnect(self, _c: Any, _u: Any, _flags: Any, code: Any, _p: Any) -> None:
        refused = self._link.answered and not self.connected
        self.connected = self.subscribed = False
        if self._stop.is_set() or refused:
            return  # a refusal has said why already
        if self._link.planned_end:
            self.problem = "connecting anew"
        elif code.value == SESSION_TAKEN_OVER or self._ends_again_and_again():
            self._disturbed_for_good(
                "another client seems to connect under this bridge's name: the broker ends one "
                "connection for the other. Stop that client, or give each its own MQTT_CLIENT_ID",
                f"the connection to the broker ended: {code}. Another client seems to connect as "
                f"{self._settings.client_id}: stop it, or give each its own MQTT_CLIENT_ID",
            )
        elif not self._link.answered:
            hint = ". It may want another certificate: see MQTT_TLS_CERT_FILE"
            self._disturbed(
                "the broker hung up instead of answering: the bridge tries again. Look at the "
                "broker's log, at MQTT_TLS and at the certificates",
                "the broker hung up instead of answering" + hint * self._settings.mqtt_tls,
            )
        else:
            self._disturbed(
                "the connection to the broker ended: the bridge connects again, and the broker "
                "keeps the readings. Look at the broker's log, if it comes back",
                f"the connection to the broker ended: {code}",
            )

    def _ends_again_and_again(self) -> bool:
        # Not every broker says that another client has taken the session over.
        return self._link.subscribed_at is not None and self._failures >= MANY_FAILURES

    # --- connections come and go ------------------------------------------------------------------

    def _connection_gone(self) -> None:
        """What is in hand is journalled all the same, but not acknowledged: acknowledgements
        are for the connection the message came on. If it comes again it is a duplicate."""
        self.connected = self.subscribed = False
        self._take_waiting(acknowledge=False)
        # What the journal cannot take now is still with the broker.
        self._drop_qos0(self._link.drop_waiting())
        if self._version.ended(self._link.answered, self._link.version_refused):
            self._client = self._make_client()
            log.warning(
                "the broker does not seem to know this MQTT version: the other one is tried. "
                "Nothing is to be done",
                extra={"fields": {"mqtt": str(self._version)}},
            )

    def _leave(self) -> None:
        """The end: take what is in hand, let the acknowledgements out, say goodbye. The session
        stays with the broker, which queues for it."""
        self._take_waiting(acknowledge=self._client.socket() is not None)
        self._drop_qos0(self._link.drop_waiting())
        deadline = self._clock.monotonic() + 1.0
        if self.connected:
            self._client.disconnect()
        while self._client.want_write() and self._clock.monotonic() < deadline:
            if self._client.socket() is None or self._client.loop_write() != mqtt.MQTT_ERR_SUCCESS:
                break
        self.connected = self.subscribed = False
        self.problem = "stopping"

    def _disturbed(self, message: str, problem: str) -> None:
        """message: the log's line, always the same for the same trouble; problem: this time's."""
        self.problem = problem
        log.warning(message, extra={"fields": self._trouble(problem)})

    def _disturbed_for_good(self, message: str, problem: str) -> None:
        """As `_disturbed`, for what does not pass by itself."""
        self.problem = problem
        log.error(message, extra={"fields": self._trouble(problem)})

    def _trouble(self, problem: str) -> dict[str, str]:
        broker = f"{self._settings.mqtt_broker}:{self._settings.mqtt_port}"
        return {"broker": broker, "problem": problem}

    def _make_client(self) -> BatchClient:
        client = make_client(self._settings, self._version, self._password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_publish_received = self._on_publish
        return client
