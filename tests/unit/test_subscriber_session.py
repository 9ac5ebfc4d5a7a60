"""The subscriber against a scripted broker that writes down every packet."""

from __future__ import annotations

import json
import logging
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bridge import broker_session
from bridge import link as link_module
from bridge import subscriber as subscriber_module
from bridge.errors import JournalDamaged, JournalError
from bridge.intake import Intake
from bridge.journal.journal import Appended, Limits
from bridge.policy import RetryPolicy
from bridge.reading import Reading, Rejection
from tests.support.fake_broker import (
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    SUBSCRIBE,
    TAKEN_OVER,
    UNSUBSCRIBE,
    Connection,
    FakeBroker,
    text,
)
from tests.support.journals import rows, settle_everything
from tests.support.poll import eventually
from tests.support.subscribing import Subscribing, mqtt_settings

TOPIC = "FCTS/FAE/MOR/SolvExtract/SX1-FLOW"
FILTER = "FCTS/FAE/+/SolvExtract/+"
DROPPED = "$SYS/broker/publish/messages/dropped"
NEVER = 1e12
REAL_RETRY = subscriber_module.RETRY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with FakeBroker() as made:
        yield made


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Barriers and long pauses only where they are what is tested."""
    monkeypatch.setattr(broker_session, "BARRIER_SECONDS", NEVER)
    monkeypatch.setattr(subscriber_module, "RETRY", RetryPolicy(initial=0.02, maximum=0.1))
    monkeypatch.setattr(subscriber_module, "POLL_SECONDS", 0.02)


def reading(value: float) -> bytes:
    members = {"site_code": "MOR", "sensor_id": "FT-1", "timestamp": 1.79e9, "value": value}
    return json.dumps(members).encode()


def subscribing(
    path: Path, broker: FakeBroker, limits: Limits | None = None, **changes: Any
) -> Subscribing:
    settings = mqtt_settings(broker.port, timestamp_max_future_seconds=3e8, **changes)
    return Subscribing(path, settings, limits)


def letters(path: Path) -> list[tuple[object, ...]]:
    return rows(path, "SELECT reason, topic, payload FROM dead_letters ORDER BY id")


class Gate:
    """Stands before the journal's append: shut, it makes the appending thread wait."""

    def __init__(self, bench: Subscribing) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.after: Callable[[], None] = lambda: None
        self._append = bench.journal.append
        bench.journal.append = self._pass  # type: ignore[method-assign]

    def _pass(self, readings: Sequence[Reading], rejections: Sequence[Rejection]) -> Appended:
        self.entered.set()
        assert self.open.wait(20)
        result = self._append(readings, rejections)
        self.after()
        return result


class Door:
    """Says for every intake whether its journal is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        monkeypatch.setattr(Intake, "full", property(lambda _: self.full))


def break_journal(bench: Subscribing, error: JournalError) -> Callable[[], None]:
    """Have every append fail with this. Answers what mends it."""
    append = bench.journal.append

    def fail(_readings: Sequence[Reading], _rejections: Sequence[Rejection]) -> Appended:
        raise error

    def mend() -> None:
        bench.journal.append = append  # type: ignore[method-assign]

    bench.journal.append = fail  # type: ignore[method-assign, assignment]
    return mend


def answer_barriers(connection: Connection, condition: Callable[[], bool], what: str) -> None:
    """Answer every UNSUBSCRIBE until the condition holds."""
    answered = 0

    def step() -> bool:
        nonlocal answered
        for number in range(answered + 1, len(connection.of(UNSUBSCRIBE)) + 1):
            connection.unsuback(number)
            answered = number
        return condition()

    eventually(step, what)


# --- connecting -----------------------------------------------------------------------------------


def test_it_asks_for_a_kept_session_and_bounds_what_is_in_flight(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker, mqtt_session_expiry_seconds=4321):
        connection = broker.next().accept()
        body = connection.wait_for(CONNECT).body
        properties = body[11 : 11 + body[10]]
        assert connection.version == 5
        assert body[7] & 2 == 0  # no clean start
        assert b"\x11" + struct.pack(">I", 4321) in properties
        assert b"\x21" + struct.pack(">H", 1000) in properties
        assert body.endswith(text("bridge"))


def test_it_subscribes_with_qos_1_retain_handling_2_and_without_retain_as_published(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker):
        body = broker.next().accept().wait_for(SUBSCRIBE).body
        assert body[3:] == text(FILTER) + b"\x21" + text(DROPPED) + b"\x00"


def test_a_shared_group_is_subscribed_to_and_warned_of(
    path: Path, broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    with subscribing(path, broker, mqtt_shared_group="twins"):
        body = broker.next().accept().wait_for(SUBSCRIBE).body
        assert text(f"$share/twins/{FILTER}") in body
    (warning,) = [record for record in caplog.records if "shared subscription" in record.message]
    assert warning.levelno == logging.WARNING
    assert "order" in warning.message
    assert "duplicates" in warning.message


def test_a_name_that_cannot_be_looked_up_is_a_problem_and_no_end(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker, mqtt_broker="x" * 70 + ".invalid") as bench:
        problem = "the broker cannot be reached"
        eventually(lambda: problem in (bench.subscriber.problem or ""), "the problem is said")
        assert bench.alive


def test_while_it_connects_it_counts_as_moving_however_long_that_takes(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "MOVING_SECONDS", -1.0)
    seen: list[bool] = []
    bench = subscribing(path, broker)

    def look(*_arguments: Any, **_options: Any) -> None:
        seen.append(bench.subscriber.moving)
        raise OSError("no broker")

    monkeypatch.setattr(bench.subscriber._client, "connect", look)
    with bench:
        eventually(lambda: bool(seen), "it connects")
        eventually(lambda: not bench.subscriber.moving, "it waits before the next time")
    assert seen[0] is True


def test_bytes_that_are_no_mqtt_cost_the_connection_and_nothing_else(
    path: Path, broker: FakeBroker
) -> None:
    nonsense = [
        b"\x00\x00",
        b"\xff" * 40,
        b"\x30\x02\xff\xff",
        b"\x90\x01\x00",
        b"\x20\x02\x00\xaa",
    ]
    with subscribing(path, broker) as bench:
        for number, raw in enumerate(nonsense):
            broker.next().accept(number > 0).send(raw)
        connection = broker.next().accept(True)
        connection.publish(TOPIC, reading(1), 1)
        connection.wait_for(PUBACK)
        assert bench.values == [1.0]


def test_a_refusal_is_said_in_words_and_stays_said_when_the_connection_ends(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        connection = broker.next()
        connection.connack(code=0x86)
        eventually(lambda: connection.closed, "the connection ends")
        broker.next()
        assert bench.subscriber.problem is not None
        assert "refused the connection: Bad user name or password" in bench.subscriber.problem


# --- versions -------------------------------------------------------------------------------------


def refuse_in_5(connection: Connection) -> None:
    connection.connack(code=132)


def refuse_in_3(connection: Connection) -> None:
    connection.send(b"\x20\x02\x00\x01")
    connection.close()


@pytest.mark.parametrize("refuse", [refuse_in_5, refuse_in_3])
def test_a_broker_that_does_not_know_mqtt_5_is_spoken_to_in_3_1_1_for_good(
    path: Path, broker: FakeBroker, refuse: Callable[[Connection], None]
) -> None:
    with subscribing(path, broker) as bench:
        refuse(broker.next())
        older = broker.next()
        assert older.version == 4
        assert older.of(CONNECT)[0].body[7] & 2 == 0  # no clean session
        older.accept()
        older.publish(TOPIC, reading(1), 1)
        older.wait_for(PUBACK)
        older.close()
        assert broker.next().version == 4
        assert bench.values == [1.0]


def test_a_broker_that_hangs_up_on_mqtt_5_is_spoken_to_in_3_1_1(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        for _ in range(3):
            connection = broker.next()
            assert connection.version == 5
            connection.close()
        older = broker.next().accept()
        assert older.version == 4
        older.publish(TOPIC, reading(1), 1)
        older.wait_for(PUBACK)
        bench.wait_taken(1)


def test_after_mere_silence_mqtt_5_is_tried_again_with_the_next_connection(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker):
        for _ in range(3):
            broker.next().close()
        older = broker.next().accept()
        assert older.version == 4
        older.wait_for(SUBSCRIBE)
        older.close()
        assert broker.next().version == 5


def test_a_broker_that_has_spoken_mqtt_5_is_never_spoken_to_in_less(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "STEADY_SECONDS", 0.0)
    with subscribing(path, broker):
        broker.next().accept().close()
        for _ in range(5):
            connection = broker.next()
            assert connection.version == 5
            connection.close()


def test_a_broker_that_knows_neither_is_not_spoken_to_in_anything_older(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker):
        refuse_in_5(broker.next())
        versions = []
        for _ in range(4):
            connection = broker.next()
            versions.append(connection.version)
            refuse_in_3(connection)
    assert versions == [4, 4, 4, 5]


# --- acknowledgements -----------------------------------------------------------------------------


def test_acknowledgements_go_out_after_the_commit_and_in_the_order_of_arrival(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        gate = Gate(bench)
        connection = broker.next().accept()
        bench.wait_subscribed()
        at_commit: list[list[int]] = []
        gate.after = lambda: at_commit.append(connection.acknowledged)
        for number, mid in enumerate((500, 3, 65_535, 9)):
            connection.publish(TOPIC, reading(number), mid)
        assert gate.entered.wait(10)
        assert connection.acknowledged == []
        gate.open.set()
        connection.wait_for(PUBACK, 4)
        assert connection.acknowledged == [500, 3, 65_535, 9]
        assert at_commit[0] == []
        assert bench.values == [0.0, 1.0, 2.0, 3.0]


def test_upkeep_leaves_the_journal_to_the_deliveries_between_commits(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "IDLE_UPKEEP_SECONDS", 60.0)
    monkeypatch.setattr(subscriber_module, "UPKEEP_SECONDS", 60.0)
    steps: list[int] = []
    with subscribing(path, broker) as bench:
        maintain = bench.journal.maintain

        def counted() -> None:
            steps.append(bench.journal.last_seq)
            maintain()

        bench.journal.maintain = counted  # type: ignore[method-assign]
        connection = broker.next().accept()
        bench.wait_subscribed()
        for number in range(1, 6):
            connection.publish(TOPIC, reading(number), number)
            bench.wait_taken(number)
    assert len(steps) <= 1, f"steps of upkeep after commits {steps}"


def test_what_the_journal_does_not_take_is_not_acknowledged_until_it_does(
    path: Path,
    broker: FakeBroker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(subscriber_module, "KEEP_ALIVE_SECONDS", 1)
    with subscribing(path, broker) as bench:
        mend = break_journal(bench, JournalError("I/O error"))
        connection = broker.next().accept()
        for number in range(1, 6):
            connection.publish(TOPIC, reading(number), number)
        connection.wait_for(PINGREQ, 2)  # longer than the keep-alive
        assert connection.acknowledged == []
        assert not connection.closed
        assert bench.subscriber.journal_problem == "I/O error"
        mend()
        connection.wait_for(PUBACK, 5)
        assert connection.acknowledged == [1, 2, 3, 4, 5]
        assert bench.subscriber.journal_problem is None
    told = [record for record in caplog.records if "the journal takes nothing" in record.message]
    assert told
    assert told[0].levelno == logging.ERROR


def test_while_the_journal_is_full_the_connection_lives_and_qos_0_is_dropped_and_counted(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "KEEP_ALIVE_SECONDS", 1)
    door = Door(monkeypatch)
    with subscribing(path, broker) as bench:
        connection = broker.next().accept()
        for number in range(1, 6):
            connection.publish(TOPIC, reading(number), number)
            connection.publish(TOPIC, reading(100 + number))
        connection.wait_for(PINGREQ, 2)
        assert connection.acknowledged == []
        assert bench.subscriber.qos0_dropped == 5
        door.full = False
        connection.wait_for(PUBACK, 5)
        assert bench.values == [1.0, 2.0, 3.0, 4.0, 5.0]
        assert connection.acknowledged == [1, 2, 3, 4, 5]


def test_acknowledgements_of_a_dead_connection_are_not_sent_on_the_next_one(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        gate = Gate(bench)
        first = broker.next().accept()
        first.publish(TOPIC, reading(1), 7)
        first.publish(TOPIC, reading(2), 8)
        assert gate.entered.wait(10)
        first.close()
        gate.open.set()
        second = broker.next().accept(present=True)
        bench.wait_taken(2)
        second.publish(TOPIC, reading(1), 41, duplicate=True)
        second.publish(TOPIC, reading(2), 42, duplicate=True)
        second.wait_for(PUBACK, 2)
        assert second.acknowledged == [41, 42]
        assert bench.values == [1.0, 2.0]
        assert bench.duplicates == 2


def test_at_a_stop_what_is_in_hand_is_taken_and_acknowledged_before_the_goodbye(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "LINGER_SECONDS", 60.0)  # nothing is due by itself
    bench = subscribing(path, broker)
    with bench:
        connection = broker.next().accept()
        connection.publish(TOPIC, reading(1), 1)
        connection.publish(TOPIC, reading(2), 2)
        eventually(lambda: len(bench.subscriber._link.waiting) == 2, "both are in hand")
        bench.subscriber.stop()
        connection.wait_for(DISCONNECT)
        kinds = [packet.kind for packet in connection.packets]
        assert kinds == [CONNECT, SUBSCRIBE, PUBACK, PUBACK, DISCONNECT]
        assert bench.values == [1.0, 2.0]


def meet_damage(path: Path, broker: FakeBroker) -> None:
    with subscribing(path, broker) as bench:
        break_journal(bench, JournalDamaged("the journal is damaged: malformed"))
        connection = broker.next().accept()
        connection.publish(TOPIC, reading(1), 1)
        eventually(lambda: not bench.alive, "the thread ends")
        assert connection.acknowledged == []


def test_damage_of_the_journal_ends_the_thread_with_nothing_acknowledged(
    path: Path, broker: FakeBroker
) -> None:
    with pytest.raises(JournalDamaged):
        meet_damage(path, broker)


# --- when connections end again and again ---------------------------------------------------------


def gaps(broker: FakeBroker, count: int) -> list[float]:
    """Seconds between that many connections, each ended as soon as it is subscribed."""
    times = []
    for number in range(count):
        connection = broker.next()
        times.append(time.monotonic())
        connection.accept(number > 0)
        connection.send(TAKEN_OVER)
    return [later - earlier for earlier, later in pairwise(times)]


def test_a_client_that_takes_the_session_over_is_named_and_not_fought(
    path: Path,
    broker: FakeBroker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(subscriber_module, "RETRY", REAL_RETRY)
    with subscribing(path, broker):
        waits = gaps(broker, 5)
    assert waits[1] >= 0.15
    assert waits[2] >= 0.3
    assert waits[3] >= 0.6
    assert "another client seems to connect under this bridge's name" in caplog.text
    assert "MQTT_CLIENT_ID" in caplog.text


def test_after_a_steady_connection_the_next_one_is_made_at_once(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "RETRY", REAL_RETRY)
    monkeypatch.setattr(subscriber_module, "STEADY_SECONDS", 0.0)
    with subscribing(path, broker) as bench:
        for number in range(6):
            connection = broker.next().accept(number > 0)
            bench.wait_subscribed()
            ended = time.monotonic()
            connection.close()
        broker.next()
        assert time.monotonic() - ended < 2.0  # six pauses in a row would be at the longest


def test_qos_0_messages_that_a_full_journal_leaves_behind_with_the_connection_are_counted(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        break_journal(bench, JournalError("I/O error"))
        connection = broker.next().accept()
        connection.publish(TOPIC, reading(1))
        connection.publish(TOPIC, reading(2), 2)
        eventually(lambda: bench.subscriber.journal_problem is not None, "the journal fails")
        connection.close()
        eventually(lambda: bench.subscriber.qos0_dropped == 1, "the QoS 0 message is counted")


# --- subscription ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x87, 0x00])
def test_a_refused_subscription_is_said_in_words_and_tried_again(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(subscriber_module, "RESUBSCRIBE_SECONDS", 0.1)
    with subscribing(path, broker) as bench:
        connection = broker.next()
        connection.connack()
        connection.suback((code, 0))
        eventually(
            lambda: "refused the subscription" in (bench.subscriber.problem or ""), "it is said"
        )
        assert bench.subscriber.connected
        assert not bench.subscriber.subscribed
        assert FILTER in (bench.subscriber.problem or "")
        connection.suback((1, 0), count=2)
        bench.wait_subscribed()
        assert bench.subscriber.problem is None


def test_a_refusal_of_the_brokers_counters_does_no_harm(path: Path, broker: FakeBroker) -> None:
    with subscribing(path, broker) as bench:
        connection = broker.next()
        connection.connack()
        connection.suback((1, 0x87))
        bench.wait_subscribed()


def test_a_former_filter_is_taken_leave_of_and_only_then_forgotten(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker, mqtt_topic="FCTS/FAE/OLD/SolvExtract/+"):
        broker.next().accept().wait_for(SUBSCRIBE)
    with subscribing(path, broker) as bench:
        first = broker.next().accept(present=True)
        assert text("FCTS/FAE/OLD/SolvExtract/+") in first.wait_for(UNSUBSCRIBE).body
        bench.wait_subscribed()
        first.close()  # before it has answered
        second = broker.next().accept(present=True)
        assert text("FCTS/FAE/OLD/SolvExtract/+") in second.wait_for(UNSUBSCRIBE).body
        second.unsuback()
        eventually(lambda: (bench.journal.session or "").endswith(FILTER), "it is forgotten")
        second.close()
        third = broker.next().accept(present=True)
        bench.wait_subscribed()
        third.publish(TOPIC, reading(1), 1)
        third.wait_for(PUBACK)
        assert third.of(UNSUBSCRIBE) == []


# --- the session ----------------------------------------------------------------------------------


def lost(path: Path, broker: FakeBroker, present: bool, **changes: Any) -> tuple[int, list[int]]:
    """How many sessions a new subscriber counts as lost, and what it takes to be confirmed."""
    with subscribing(path, broker, **changes) as bench:
        broker.next().accept(present)
        bench.wait_subscribed()
        return bench.subscriber.sessions_lost, bench.confirmed


def test_a_lost_session_is_counted_and_said_but_not_at_the_very_first_start(
    path: Path, broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    assert lost(path, broker, present=False)[0] == 0
    assert lost(path, broker, present=True)[0] == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert lost(path, broker, present=False)[0] == 1
    (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "lost the session" in line.message


def test_a_session_that_is_lost_while_it_runs_is_counted_each_time(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        for count in range(3):
            connection = broker.next().accept(present=False)
            bench.wait_subscribed()
            assert bench.subscriber.sessions_lost == count
            connection.close()


def test_another_client_id_or_a_session_that_was_not_to_last_is_not_missed(
    path: Path, broker: FakeBroker
) -> None:
    assert lost(path, broker, present=False)[0] == 0
    assert lost(path, broker, present=False, mqtt_client_id="other")[0] == 0
    changes = {"mqtt_client_id": "other", "mqtt_session_expiry_seconds": 0}
    assert lost(path, broker, present=False, **changes)[0] == 0


def test_with_the_session_gone_everything_counts_as_confirmed(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        connection = broker.next().accept()
        connection.publish(TOPIC, reading(1), 1)
        connection.publish(TOPIC, reading(2), 2)
        bench.wait_taken(2)
    assert lost(path, broker, present=True)[1] == []
    assert lost(path, broker, present=False)[1] == [2]


def test_a_disk_that_cannot_note_the_session_does_not_end_the_thread(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        session = bench.subscriber._session
        notes = session._notes

        def fail(_name: str) -> None:
            raise JournalError("database or disk is full")

        session._notes = notes._replace(remember=fail)
        first = broker.next().accept()
        bench.wait_subscribed()
        assert bench.journal.session is None
        session._notes = notes
        first.close()
        broker.next().accept(present=True)
        eventually(lambda: bench.journal.session is not None, "it is noted later")


# --- what comes beside readings -------------------------------------------------------------------


def test_retained_copies_are_counted_acknowledged_in_order_and_not_taken(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        connection = broker.next().accept()
        connection.publish(TOPIC, reading(1), 1, retain=True)
        connection.publish(TOPIC, reading(2), 2)
        connection.publish(TOPIC, reading(3), 3, retain=True)
        connection.publish(TOPIC, reading(4), retain=True)
        connection.publish(TOPIC, reading(5), 5)
        connection.wait_for(PUBACK, 4)
        assert connection.acknowledged == [1, 2, 3, 5]
        assert bench.values == [2.0, 5.0]
        assert bench.subscriber.retained_ignored == 3
        assert bench.subscriber.taken == 2


def test_the_brokers_count_of_dropped_messages_is_read_and_is_no_message(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        connection = broker.next().accept()
        connection.publish(DROPPED, b"12", retain=True)
        eventually(lambda: bench.subscriber.broker_dropped == 12, "the count is read")
        connection.publish(DROPPED, b"lots")
        connection.publish(DROPPED, b"")
        connection.publish(DROPPED, b"13")
        eventually(lambda: bench.subscriber.broker_dropped == 13, "the count is read anew")
        connection.publish(TOPIC, reading(1), 1)
        connection.wait_for(PUBACK)
        assert bench.subscriber.taken == 1
        assert bench.subscriber.retained_ignored == 0
        assert letters(path) == []


def test_a_message_on_another_topic_of_the_brokers_is_acknowledged_as_any_other(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        connection = broker.next().accept()
        connection.publish("$SYS/broker/uptime", b"12", 1)
        connection.wait_for(PUBACK)
        assert bench.subscriber.broker_dropped is None
        assert [(reason, topic) for reason, topic, _ in letters(path)] == [
            ("topic_malformed", "$SYS/broker/uptime")
        ]


def test_a_topic_that_is_no_utf_8_is_a_malformed_topic_and_harms_nobody(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker) as bench:
        connection = broker.next().accept()
        connection.publish(b"FCTS/FAE/M\xffR/SolvExtract/SX1-FLOW", reading(1), 1)
        connection.publish(TOPIC, reading(2), 2)
        connection.wait_for(PUBACK, 2)
        assert bench.values == [2.0]
        ((reason, topic, payload),) = letters(path)
        assert reason == "topic_malformed"
        assert topic == "FCTS/FAE/M\\udcffR/SolvExtract/SX1-FLOW"
        assert payload == reading(1)


def test_empty_and_large_payloads_are_judged_and_acknowledged(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker, max_payload_bytes=10_000) as bench:
        connection = broker.next().accept()
        at_limit = reading(1)[:-1] + b" " * (10_000 - len(reading(1))) + b"}"
        connection.publish(TOPIC, b"", 1)
        connection.publish(TOPIC, at_limit, 2)
        connection.publish(TOPIC, at_limit + b" ", 3)
        connection.publish(TOPIC, b"x" * 3_000_000, 4)
        connection.wait_for(PUBACK, 4)
        assert bench.values == [1.0]
        reasons = [reason for reason, _, _ in letters(path)]
        assert reasons == ["payload_not_json", "payload_too_large", "payload_too_large"]
        assert all(len(payload) <= 10_000 for *_, payload in letters(path) if payload)  # type: ignore[arg-type]


# --- no room for dead letters ---------------------------------------------------------------------

BAD = b"not a reading, but it has a certain length" * 10
LETTER_BYTES = 256 + len(BAD) + 200
ONE_LETTER = Limits(dead_letter_max_bytes=int(1.5 * LETTER_BYTES))


def purge(bench: Subscribing, count: int = 1) -> None:
    """As a command beside the daemon does it."""
    import sqlite3

    db = sqlite3.connect(bench.journal.path, isolation_level=None)
    db.execute(
        "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters ORDER BY id LIMIT ?)",
        (count,),
    )
    db.close()


def test_refused_messages_without_room_stay_unacknowledged_and_others_go_on(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "UPKEEP_SECONDS", 0.05)
    with subscribing(path, broker, limits=ONE_LETTER) as bench:
        connection = broker.next().accept()
        connection.publish(TOPIC, BAD + b"1", 1)
        connection.publish(TOPIC, BAD + b"2", 2)
        for number in range(3, 30):
            connection.publish(TOPIC, reading(number), number)
            connection.wait_for(PUBACK, number - 1)
        assert connection.acknowledged == [1, *range(3, 30)]
        # Room that is too small for what was left is no reason to have it sent again.
        assert len(broker.connections) == 1
        assert bench.journal.has_room_for_letters()
        assert len(letters(path)) == 1


def test_once_there_is_room_the_broker_is_made_to_send_them_again(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "UPKEEP_SECONDS", 0.05)
    with subscribing(path, broker, limits=ONE_LETTER) as bench:
        first = broker.next().accept()
        first.publish(TOPIC, BAD + b"1", 1)
        first.publish(TOPIC, BAD + b"2", 2)
        first.publish(TOPIC, reading(3), 3)
        first.wait_for(PUBACK, 2)
        purge(bench)
        first.wait_for(DISCONNECT)
        second = broker.next().accept(present=True)
        second.publish(TOPIC, BAD + b"2", 2, duplicate=True)
        second.wait_for(PUBACK)
        assert [payload for *_, payload in letters(path)] == [BAD + b"2"]
        assert bench.subscriber.sessions_lost == 0
        assert bench.subscriber.taken == 3
        ledger = bench.journal.sites()["MOR"]
        assert (ledger.rejected, ledger.accepted, ledger.duplicates) == (2, 1, 0)


def test_a_refused_qos_0_message_without_room_is_counted_as_dropped(
    path: Path, broker: FakeBroker
) -> None:
    with subscribing(path, broker, limits=Limits(dead_letter_max_bytes=0)) as bench:
        connection = broker.next().accept()
        connection.publish(TOPIC, BAD)
        connection.publish(TOPIC, reading(1), 1)
        connection.wait_for(PUBACK)
        assert bench.subscriber.qos0_dropped == 1
        assert bench.subscriber._link.left == 0


def test_when_all_that_the_broker_may_send_is_left_with_it_that_is_said(
    path: Path,
    broker: FakeBroker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(subscriber_module, "RECEIVE_MAXIMUM", 3)
    with subscribing(path, broker, limits=Limits(dead_letter_max_bytes=0)) as bench:
        connection = broker.next().accept()
        for mid in (1, 2):
            connection.publish(TOPIC, BAD, mid)
        eventually(lambda: bench.subscriber._link.left == 2, "two are left")
        assert not bench.subscriber.choked
        connection.publish(TOPIC, BAD, 3)
        eventually(lambda: bench.subscriber.choked, "the subscriber is choked")
        said = [record.levelno for record in caplog.records if "nothing comes in" in record.message]
        assert said == [logging.ERROR]


# --- more than may wait ---------------------------------------------------------------------------


def test_beyond_what_may_wait_the_rest_is_sent_again_on_a_new_connection_in_order(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "KEEP_ALIVE_SECONDS", 1)
    monkeypatch.setattr(link_module, "HAND", 5)
    door = Door(monkeypatch)
    with subscribing(path, broker) as bench:
        refuse_in_3(broker.next())  # MQTT 3.1.1 has no Receive Maximum
        first = broker.next().accept()
        for number in range(1, 9):
            first.publish(TOPIC, reading(number), number)
        first.wait_for(PINGREQ)  # the broker's answers are still read
        assert first.acknowledged == []
        door.full = False
        first.wait_for(DISCONNECT)
        assert first.acknowledged == [1, 2, 3, 4, 5]
        second = broker.next().accept(present=True)
        for number in (6, 7, 8):
            second.publish(TOPIC, reading(number), number, duplicate=True)
        second.wait_for(PUBACK, 3)
        assert bench.values == [float(number) for number in range(1, 9)]
        assert bench.duplicates == 0


def test_a_commit_is_bounded_in_bytes_as_well(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "BATCH_BYTES", 1_000)
    door = Door(monkeypatch)
    sizes: list[int] = []
    with subscribing(path, broker) as bench:
        append = bench.journal.append

        def note(readings: Sequence[Reading], rejections: Sequence[Rejection]) -> Appended:
            sizes.append(sum(rejection.payload_bytes for rejection in rejections))
            return append(readings, rejections)

        bench.journal.append = note  # type: ignore[method-assign]
        connection = broker.next().accept()
        for mid, size in enumerate((400, 400, 400, 5_000, 10), 1):
            connection.publish(TOPIC, b"x" * size, mid)
        eventually(lambda: len(bench.subscriber._link.waiting) == 5, "all are in hand")
        door.full = False
        connection.wait_for(PUBACK, 5)
    assert sizes == [800, 400, 5_000, 10]


# --- what the broker can still send again ---------------------------------------------------------


@pytest.fixture
def barriers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sends barriers from then on."""
    return lambda: monkeypatch.setattr(broker_session, "BARRIER_SECONDS", 0.02)


def test_a_barrier_follows_the_acknowledgements_and_its_answer_confirms_them(
    path: Path, broker: FakeBroker, barriers: Callable[[], None]
) -> None:
    barriers()
    with subscribing(path, broker) as bench:
        connection = broker.next().accept(present=True)
        connection.wait_for(UNSUBSCRIBE)
        connection.unsuback()
        eventually(lambda: bench.confirmed == [0], "nothing is confirmed yet")
        connection.publish(TOPIC, reading(1), 1)
        connection.publish(TOPIC, reading(2), 2)
        connection.wait_for(UNSUBSCRIBE, 2)
        kinds = [packet.kind for packet in connection.packets]
        assert kinds.index(PUBACK) < len(kinds) - 1 - kinds[::-1].index(UNSUBSCRIBE)
        connection.unsuback(2)
        eventually(lambda: bench.confirmed[-1] >= 1, "the first is confirmed")


def test_without_an_answer_nothing_is_confirmed(
    path: Path, broker: FakeBroker, barriers: Callable[[], None]
) -> None:
    with subscribing(path, broker) as bench:
        connection = broker.next().accept(present=True)
        connection.publish(TOPIC, reading(1), 1)
        connection.wait_for(PUBACK)
        barriers()
        connection.wait_for(UNSUBSCRIBE)
        connection.publish(TOPIC, reading(2), 2)
        connection.wait_for(PUBACK, 2)
        assert bench.confirmed == []
        assert len(connection.of(UNSUBSCRIBE)) == 1


def test_an_answer_behind_further_messages_confirms_nothing_for_they_may_be_older_ones(
    path: Path, broker: FakeBroker, barriers: Callable[[], None]
) -> None:
    with subscribing(path, broker) as bench:
        connection = broker.next().accept(present=True)
        connection.publish(TOPIC, reading(1), 1)
        connection.wait_for(PUBACK)
        barriers()
        connection.wait_for(UNSUBSCRIBE)
        connection.publish(TOPIC, reading(2), 2)
        connection.unsuback()
        connection.wait_for(UNSUBSCRIBE, 2)
        assert bench.confirmed == []
        connection.unsuback(2)
        eventually(lambda: bench.confirmed == [2], "both are confirmed")


def test_an_answer_behind_messages_confirms_once_receive_maximum_is_acknowledged(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, barriers: Callable[[], None]
) -> None:
    monkeypatch.setattr(subscriber_module, "RECEIVE_MAXIMUM", 3)
    with subscribing(path, broker) as bench:
        connection = broker.next().accept(present=True)
        for number in (1, 2, 3):
            connection.publish(TOPIC, reading(number), number)
        connection.wait_for(PUBACK, 3)
        barriers()
        connection.wait_for(UNSUBSCRIBE)
        connection.publish(TOPIC, reading(4), 4)
        connection.unsuback()
        eventually(lambda: bench.confirmed[:1] == [3], "the first three are confirmed")


def test_qos_0_messages_do_not_count_towards_receive_maximum(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, barriers: Callable[[], None]
) -> None:
    monkeypatch.setattr(subscriber_module, "RECEIVE_MAXIMUM", 3)
    with subscribing(path, broker) as bench:
        connection = broker.next().accept(present=True)
        for number in range(10):
            connection.publish(TOPIC, reading(number))
        connection.publish(TOPIC, reading(10), 1)
        connection.wait_for(PUBACK)
        barriers()
        connection.wait_for(UNSUBSCRIBE)
        connection.publish(TOPIC, reading(11), 2)
        connection.unsuback()
        connection.wait_for(UNSUBSCRIBE, 2)
        assert bench.confirmed == []


def test_refused_messages_without_room_do_not_hold_the_confirmation_up(
    path: Path, broker: FakeBroker, barriers: Callable[[], None]
) -> None:
    with subscribing(path, broker, limits=Limits(dead_letter_max_bytes=0)) as bench:
        connection = broker.next().accept(present=True)
        connection.publish(TOPIC, BAD, 1)
        connection.publish(TOPIC, reading(2), 2)
        connection.wait_for(PUBACK)
        barriers()
        connection.unsuback()
        eventually(lambda: bench.confirmed == [1], "the reading is confirmed")


def test_without_retention_a_reading_whose_puback_was_not_read_is_still_recognised(
    path: Path, broker: FakeBroker, barriers: Callable[[], None]
) -> None:
    limits = Limits(retention_us=0)
    with subscribing(path, broker, limits=limits) as bench:
        connection = broker.next().accept()
        connection.publish(TOPIC, reading(1), 1)
        connection.wait_for(PUBACK)
        settle_everything(bench.journal, ["log"])
    barriers()
    with subscribing(path, broker, limits=limits) as bench:
        connection = broker.next().accept(present=True)
        # Its payload is not needed any more, and is pruned at once; its id is kept.
        eventually(lambda: rows(path, "SELECT count(*) FROM entries") == [(0,)], "it is pruned")
        connection.publish(TOPIC, reading(1), 1, duplicate=True)
        connection.wait_for(PUBACK)
        assert bench.duplicates == 1
        answer_barriers(connection, lambda: bench.confirmed != [], "it will not be sent again")
        eventually(lambda: rows(path, "SELECT count(*) FROM ids") == [(0,)], "its id is pruned")
        connection.publish(TOPIC, reading(1), 2)
        connection.wait_for(PUBACK, 2)
        assert bench.duplicates == 1


def test_what_a_broker_sent_before_it_died_is_taken_to_the_last_message(
    path: Path, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else has it any more: writing to the dead must not end the reading."""
    monkeypatch.setattr(link_module, "BATCH", 20)  # so that there is something to write early
    with subscribing(path, broker) as bridge:
        connection = broker.next().accept()
        eventually(lambda: bridge.subscriber.subscribed, "it is subscribed")
        connection.die(b"".join(connection.packet(TOPIC, reading(n), n + 1) for n in range(300)))
        broker.next()
        assert bridge.subscriber.taken == 300
