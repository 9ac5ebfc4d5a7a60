"""How Pub/Sub delivers, held against the local server and, where it is, Google's own emulator.

Those that take `pubsub_local` run on the local server only: they need its clock, or the emulator
is laxer or out of order there (see test_pubsub_service.py).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.api_core.exceptions import InvalidArgument

from tests.support.poll import eventually
from tests.support.pubsub import LocalPubSub, PubSub

# Discouraged where one waits for messages; here it is asked whether there is none.
pytestmark = pytest.mark.filterwarnings("ignore:The return_immediately flag")


def data(received: Sequence[Any]) -> list[str]:
    return [one.message.data.decode() for one in received]


# --- delivery -------------------------------------------------------------------------------------


def test_each_subscription_gets_each_message_published_since_it_was_made(
    pubsub_service: PubSub,
) -> None:
    topic = pubsub_service.topic()
    first = pubsub_service.subscription(topic)
    pubsub_service.publish(topic, "a")
    second = pubsub_service.subscription(topic)
    pubsub_service.publish(topic, "b")
    assert sorted(data(pubsub_service.pull_all(first, 2))) == ["a", "b"]
    assert data(pubsub_service.pull_all(second, 1)) == ["b"]


def test_a_new_subscription_gets_nothing_that_the_topic_retains(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic(message_retention_duration={"seconds": 604_800})
    pubsub_local.publish(topic, "before")
    subscription = pubsub_local.subscription(topic)
    pubsub_local.publish(topic, "after")
    assert data(pubsub_local.pull(subscription)) == ["after"]


def test_a_pull_waits_for_a_message(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic)
    with ThreadPoolExecutor() as pool:
        pulling = pool.submit(pubsub_local.call, "pull", subscription=subscription, max_messages=1)
        eventually(lambda: pubsub_local.faults.calls().get("pubsub.Pull") == 1, "it is there")
        pubsub_local.publish(topic, "a")
        assert data(pulling.result().received_messages) == ["a"]


def test_a_message_given_back_is_delivered_again_at_once(pubsub_service: PubSub) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic)
    pubsub_service.publish(topic, "a")
    received = pubsub_service.pull_all(subscription, 1, acknowledge=False)
    assert pubsub_service.pull(subscription) == []
    pubsub_service.deadline(subscription, received, 0)
    assert data(pubsub_service.pull_all(subscription, 1)) == ["a"]


def test_a_message_whose_deadline_passes_is_delivered_again(pubsub_service: PubSub) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic)
    (id_,) = pubsub_service.publish(topic, "a")
    received = pubsub_service.pull_all(subscription, 1, acknowledge=False)
    start = time.monotonic()
    pubsub_service.deadline(subscription, received, 1)
    (again,) = pubsub_service.pull_all(subscription, 1)
    assert again.message.message_id == id_
    assert time.monotonic() - start > 0.9


def test_a_deadline_is_that_of_the_subscription_until_it_is_changed(
    pubsub_local: LocalPubSub,
) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic, ack_deadline_seconds=60)
    pubsub_local.publish(topic, "a", "b")
    first, second = pubsub_local.pull(subscription)
    pubsub_local.deadline(subscription, [second], 600)
    pubsub_local.seconds = 59.9
    assert pubsub_local.pull(subscription) == []
    pubsub_local.seconds = 60
    assert data(pubsub_local.pull(subscription)) == data([first])
    pubsub_local.seconds = 600
    assert sorted(data(pubsub_local.pull(subscription))) == ["a", "b"]


def test_an_acknowledged_message_never_comes_again(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic)
    pubsub_local.publish(topic, "a")
    received = pubsub_local.pull(subscription)
    pubsub_local.acknowledge(subscription, received)
    pubsub_local.acknowledge(subscription, received)
    pubsub_local.deadline(subscription, received, 0)
    pubsub_local.seconds = 1_000
    assert pubsub_local.pull(subscription) == []


def test_an_acknowledgement_after_the_deadline_does_not_count(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic)
    pubsub_local.publish(topic, "a")
    late = pubsub_local.pull(subscription)
    pubsub_local.seconds = 10
    assert data(pubsub_local.pull(subscription)) == ["a"]
    pubsub_local.acknowledge(subscription, late)
    pubsub_local.seconds = 20
    assert data(pubsub_local.pull(subscription)) == ["a"]


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("acknowledge", {"ack_ids": []}),
        ("acknowledge", {"ack_ids": ["nonsense"]}),
        ("acknowledge", {"ack_ids": ["0123abcd-1"] * 50_000}),
        ("modify_ack_deadline", {"ack_ids": ["nonsense"], "ack_deadline_seconds": 10}),
        ("modify_ack_deadline", {"ack_ids": ["0123abcd-1"], "ack_deadline_seconds": 601}),
        ("pull", {"max_messages": 0}),
    ],
)
def test_a_malformed_request_of_a_subscriber_is_refused(
    pubsub_local: LocalPubSub, method: str, fields: dict[str, Any]
) -> None:
    subscription = pubsub_local.subscription(pubsub_local.topic())
    with pytest.raises(InvalidArgument):
        pubsub_local.call(method, subscription=subscription, **fields)


# --- ordering -------------------------------------------------------------------------------------


def test_the_messages_of_a_key_come_in_the_order_of_publishing(pubsub_service: PubSub) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic, enable_message_ordering=True)
    for number in range(60):
        for key in ("MOR", "BAG"):
            pubsub_service.publish(topic, f"{number}", key=key)
    came = defaultdict(list)
    for one in pubsub_service.pull_all(subscription, 120):
        came[one.message.ordering_key].append(int(one.message.data))
    assert came == {"MOR": list(range(60)), "BAG": list(range(60))}


def test_the_next_of_a_key_waits_for_those_before_and_other_keys_do_not(
    pubsub_service: PubSub,
) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic, enable_message_ordering=True)
    pubsub_service.publish(topic, "1", "2", key="MOR")
    first = pubsub_service.pull(subscription, most=1)
    assert data(first) == ["1"]
    pubsub_service.publish(topic, "other", key="BAG")
    assert data(pubsub_service.pull_all(subscription, 1)) == ["other"]
    assert pubsub_service.pull(subscription) == []
    pubsub_service.acknowledge(subscription, first)
    assert data(pubsub_service.pull_all(subscription, 1)) == ["2"]


def test_a_message_given_back_brings_back_all_behind_it_in_order(
    pubsub_local: LocalPubSub,
) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic, enable_message_ordering=True)
    pubsub_local.publish(topic, *"abcde", key="MOR")
    a, b, c, d = pubsub_local.pull(subscription, most=4)
    pubsub_local.acknowledge(subscription, [a, c])
    pubsub_local.deadline(subscription, [b], 0)
    # c is acknowledged, d is still out: both come again behind b, and e has never been out.
    assert data(pubsub_local.pull(subscription)) == ["b", "c", "d", "e"]
    pubsub_local.acknowledge(subscription, [d])
    assert pubsub_local.pull(subscription) == []


def test_a_deadline_that_passes_brings_back_all_behind_it_in_order(
    pubsub_local: LocalPubSub,
) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic, enable_message_ordering=True)
    pubsub_local.publish(topic, *"abc", key="MOR")
    received = pubsub_local.pull(subscription)
    pubsub_local.deadline(subscription, received[2:], 600)
    pubsub_local.seconds = 10
    assert data(pubsub_local.pull(subscription)) == ["a", "b", "c"]


def test_an_ordered_subscription_keeps_no_order_among_messages_without_a_key(
    pubsub_local: LocalPubSub,
) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic, enable_message_ordering=True)
    pubsub_local.publish(topic, "a", "b")
    first = pubsub_local.pull(subscription, most=1)
    assert data(first) == ["a"]
    assert data(pubsub_local.pull(subscription)) == ["b"]
    pubsub_local.deadline(subscription, first, 0)
    assert data(pubsub_local.pull(subscription)) == ["a"]


def test_a_busy_key_does_not_keep_the_others_waiting(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic, enable_message_ordering=True)
    pubsub_local.publish(topic, *"abc", key="MOR")
    pubsub_local.publish(topic, "other", key="BAG")
    came = []
    for _ in range(2):
        received = pubsub_local.pull(subscription, most=1)
        pubsub_local.acknowledge(subscription, received)
        came += data(received)
    assert came == ["a", "other"]
