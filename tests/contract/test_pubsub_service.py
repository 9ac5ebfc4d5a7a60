"""What Pub/Sub promises, held against the local server and, where it is, Google's own emulator.

The tests that take `pubsub_service` run on both. Those that take `pubsub_local` run on the local
server only: the emulator takes what the service refuses (mixed ordering keys, oversize messages
and keys, attributes beyond the limits, filters it does not apply, deadlines below ten seconds,
malformed ack ids), reorders after a message is given back, and knows neither permissions nor
labels.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from google.api_core.exceptions import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from google.iam.v1 import iam_policy_pb2
from google.pubsub_v1 import types

from tests.support.pubsub import PROJECT, LocalPubSub, PubSub

# Discouraged where one waits for messages; here it is asked whether there is none.
pytestmark = pytest.mark.filterwarnings("ignore:The return_immediately flag")

WEEK = {"seconds": 604_800}


def data(received: list[Any]) -> list[str]:
    return [one.message.data.decode() for one in received]


# --- topics and subscriptions ---------------------------------------------------------------------


def test_a_topic_is_found_again_with_its_retention(pubsub_service: PubSub) -> None:
    topic = pubsub_service.topic(message_retention_duration=WEEK)
    found = pubsub_service.call("get_topic", topic=topic)
    assert found.name == topic
    assert found.message_retention_duration.total_seconds() == 604_800


def test_a_name_is_given_only_once(pubsub_service: PubSub) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic)
    with pytest.raises(AlreadyExists):
        pubsub_service.call("create_topic", name=topic)
    with pytest.raises(AlreadyExists):
        pubsub_service.call("create_subscription", name=subscription, topic=topic)


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("get_topic", {"topic": "{topic}"}),
        ("delete_topic", {"topic": "{topic}"}),
        ("publish", {"topic": "{topic}", "messages": [{"data": b"x"}]}),
        ("create_subscription", {"name": "{subscription}", "topic": "{topic}"}),
        ("get_subscription", {"subscription": "{subscription}"}),
        ("delete_subscription", {"subscription": "{subscription}"}),
        ("pull", {"subscription": "{subscription}", "max_messages": 1}),
    ],
)
def test_what_does_not_exist_is_not_found(
    pubsub_service: PubSub, method: str, wanted: dict[str, Any]
) -> None:
    names = {
        "{topic}": pubsub_service.name("topics"),
        "{subscription}": pubsub_service.name("subscriptions"),
    }
    filled = {k: names.get(v, v) if isinstance(v, str) else v for k, v in wanted.items()}
    with pytest.raises(NotFound):
        pubsub_service.call(method, **filled)


@pytest.mark.parametrize(
    "name",
    ["nonsense", f"{PROJECT}/topics/9abc", f"{PROJECT}/topics/goog-1", f"{PROJECT}/topics/a"],
)
def test_a_malformed_topic_name_is_refused(pubsub_service: PubSub, name: str) -> None:
    with pytest.raises(InvalidArgument):
        pubsub_service.call("create_topic", name=name)
    with pytest.raises(InvalidArgument):
        pubsub_service.call("publish", topic=name, messages=[{"data": b"x"}])


def test_the_subscriptions_of_no_topic_are_not_found(pubsub_local: LocalPubSub) -> None:
    with pytest.raises(NotFound):
        pubsub_local.call("list_topic_subscriptions", topic=pubsub_local.name("topics"))


def test_subscriptions_are_listed_with_their_topic_until_they_are_deleted(
    pubsub_service: PubSub,
) -> None:
    topic = pubsub_service.topic()
    names = {pubsub_service.subscription(topic), pubsub_service.subscription(topic)}
    assert set(pubsub_service.call("list_topic_subscriptions", topic=topic)) == names
    listed = pubsub_service.call("list_subscriptions", project=PROJECT)
    assert names <= {subscription.name for subscription in listed}
    gone = names.pop()
    pubsub_service.call("delete_subscription", subscription=gone)
    assert set(pubsub_service.call("list_topic_subscriptions", topic=topic)) == names


def test_a_deleted_topic_leaves_its_subscriptions_with_their_messages(
    pubsub_service: PubSub,
) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic)
    pubsub_service.publish(topic, "a")
    pubsub_service.call("delete_topic", topic=topic)
    found = pubsub_service.call("get_subscription", subscription=subscription)
    assert found.topic == "_deleted-topic_"
    assert data(pubsub_service.pull_all(subscription, 1)) == ["a"]
    with pytest.raises(NotFound):
        pubsub_service.call("get_topic", topic=topic)


def test_a_topic_made_again_does_not_feed_the_subscriptions_of_the_old(
    pubsub_service: PubSub,
) -> None:
    topic = pubsub_service.topic()
    old = pubsub_service.subscription(topic)
    pubsub_service.call("delete_topic", topic=topic)
    pubsub_service.call("create_topic", name=topic)
    new = pubsub_service.subscription(topic)
    pubsub_service.publish(topic, "a")
    assert data(pubsub_service.pull_all(new, 1)) == ["a"]
    assert pubsub_service.pull(old) == []


def test_settings_out_of_bounds_are_refused(pubsub_service: PubSub) -> None:
    with pytest.raises(InvalidArgument):
        pubsub_service.topic(message_retention_duration={"seconds": 1})
    topic = pubsub_service.topic()
    with pytest.raises(InvalidArgument):
        pubsub_service.subscription(topic, ack_deadline_seconds=601)


def test_a_subscription_is_answered_with_the_defaults_of_what_was_not_asked_for(
    pubsub_service: PubSub,
) -> None:
    found = pubsub_service.call(
        "get_subscription", subscription=pubsub_service.subscription(pubsub_service.topic())
    )
    assert found.ack_deadline_seconds == 10
    assert found.message_retention_duration.total_seconds() == 604_800
    assert not found.enable_message_ordering


def test_an_update_changes_what_its_mask_names(pubsub_service: PubSub) -> None:
    topic = pubsub_service.topic(message_retention_duration=WEEK)
    changed = {"name": topic, "message_retention_duration": {"seconds": 86_400}}
    with pytest.raises(InvalidArgument):
        pubsub_service.call("update_topic", topic=changed)
    with pytest.raises(InvalidArgument):
        pubsub_service.call("update_topic", topic=changed, update_mask={"paths": ["nonsense"]})
    mask = {"paths": ["message_retention_duration"]}
    pubsub_service.call("update_topic", topic=changed, update_mask=mask)
    found = pubsub_service.call("get_topic", topic=topic)
    assert found.message_retention_duration.total_seconds() == 86_400


def test_an_update_clears_what_its_mask_names_and_it_leaves_out(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic(message_retention_duration=WEEK, labels={"a": "1"})
    mask = {"paths": ["message_retention_duration", "labels"]}
    pubsub_local.call("update_topic", topic={"name": topic, "labels": {"b": "2"}}, update_mask=mask)
    found = pubsub_local.call("get_topic", topic=topic)
    assert "message_retention_duration" not in found
    assert dict(found.labels) == {"b": "2"}


def test_an_update_leaves_alone_what_its_mask_does_not_name(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic(labels={"a": "1"}, message_retention_duration=WEEK)
    changed = {
        "name": topic,
        "labels": {"b": "2"},
        "message_retention_duration": {"seconds": 86_400},
    }
    mask = {"paths": ["message_retention_duration"]}
    pubsub_local.call("update_topic", topic=changed, update_mask=mask)
    found = pubsub_local.call("get_topic", topic=topic)
    assert dict(found.labels) == {"a": "1"}
    assert found.message_retention_duration.total_seconds() == 86_400


def test_long_listings_come_in_pages(pubsub_local: LocalPubSub) -> None:
    names = [pubsub_local.topic() for _ in range(5)]
    pages = pubsub_local.call("list_topics", project=PROJECT, page_size=2).pages
    assert [[topic.name for topic in page.topics] for page in pages] == [
        names[:2],
        names[2:4],
        names[4:],
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"ack_deadline_seconds": 9},
        {"filter": 'attributes.site = "MOR"'},
        {"enable_exactly_once_delivery": True},
        {"dead_letter_policy": {"max_delivery_attempts": 5}},
        {"push_config": {"push_endpoint": "https://example.com/"}},
        {"message_retention_duration": {"seconds": 1}},
        {"expiration_policy": {"ttl": {"seconds": 60}}},
    ],
)
def test_a_subscription_is_refused_what_would_have_no_effect_here(
    pubsub_local: LocalPubSub, settings: dict[str, Any]
) -> None:
    topic = pubsub_local.topic()
    with pytest.raises(InvalidArgument):
        pubsub_local.subscription(topic, **settings)


def test_every_permission_is_granted_on_what_exists_and_none_on_what_does_not(
    pubsub_local: LocalPubSub,
) -> None:
    asked = ["pubsub.topics.publish", "pubsub.topics.get"]

    def granted(resource: str) -> list[str]:
        request = iam_policy_pb2.TestIamPermissionsRequest(resource=resource, permissions=asked)
        answer = pubsub_local.publisher.test_iam_permissions(request=request, retry=None)
        return list(answer.permissions)

    topic = pubsub_local.topic()
    assert granted(topic) == asked
    assert granted(pubsub_local.subscription(topic)) == asked
    assert granted(pubsub_local.name("topics")) == []


# --- publishing -----------------------------------------------------------------------------------


def test_message_ids_are_unique_and_ascend(pubsub_service: PubSub) -> None:
    topic = pubsub_service.topic(message_retention_duration=WEEK)
    first = pubsub_service.publish(topic, "a", "b", "c", key="MOR")
    ids = [int(id_) for id_ in first + pubsub_service.publish(topic, "d", "e", key="MOR")]
    assert len(set(ids)) == 5
    assert ids == sorted(ids)


def test_a_message_arrives_as_it_was_published(pubsub_service: PubSub) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic)
    message = {"data": b"\x00\xff", "attributes": {"site": "Mör"}, "ordering_key": "MOR"}
    before = time.time()
    answer = pubsub_service.call("publish", topic=topic, messages=[message])
    (received,) = pubsub_service.pull_all(subscription, 1)
    assert received.message.data == b"\x00\xff"
    assert dict(received.message.attributes) == {"site": "Mör"}
    assert received.message.ordering_key == "MOR"
    assert [received.message.message_id] == list(answer.message_ids)
    assert before - 1 <= received.message.publish_time.timestamp() <= time.time() + 1
    assert received.delivery_attempt == 0


@pytest.mark.parametrize("messages", [[], [{}], [{"data": b"x"}, {}], [{"data": b"x"}] * 1_001])
def test_a_request_without_content_or_with_too_many_messages_is_refused_whole(
    pubsub_service: PubSub, messages: list[dict[str, Any]]
) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic)
    with pytest.raises(InvalidArgument):
        pubsub_service.call("publish", topic=topic, messages=messages)
    assert pubsub_service.pull(subscription) == []


def test_mixed_ordering_keys_are_refused_whole(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic(message_retention_duration=WEEK)
    messages = [{"data": b"a", "ordering_key": "MOR"}, {"data": b"b", "ordering_key": "BAG"}]
    with pytest.raises(FailedPrecondition):
        pubsub_local.call("publish", topic=topic, messages=messages)
    with pytest.raises(FailedPrecondition):
        pubsub_local.call("publish", topic=topic, messages=[{"data": b"a"}, messages[0]])
    assert pubsub_local.data(topic) == []


@pytest.mark.parametrize(
    "message",
    [
        {"data": b"x", "ordering_key": "é" * 512 + "k"},
        {"data": b"x", "attributes": {"k" * 257: "v"}},
        {"data": b"x", "attributes": {"k": "é" * 512 + "v"}},
        {"data": b"x", "attributes": {str(number): "v" for number in range(101)}},
        {"data": b"x", "attributes": {"": "v"}},
        {"data": b"x", "attributes": {"googclient": "v"}},
        {"data": b"x" * 10_000_001},
    ],
)
def test_a_message_beyond_the_limits_is_refused(
    pubsub_local: LocalPubSub, message: dict[str, Any]
) -> None:
    topic = pubsub_local.topic(message_retention_duration=WEEK)
    with pytest.raises(InvalidArgument):
        pubsub_local.call("publish", topic=topic, messages=[message])
    assert pubsub_local.data(topic) == []


@pytest.mark.parametrize(
    "message",
    [
        {"data": b"x", "ordering_key": "é" * 512},
        {"data": b"x", "attributes": {"k" * 256: "é" * 512}},
        {"data": b"x", "attributes": {str(number): "v" for number in range(100)}},
        {"attributes": {"k": "v"}},
    ],
)
def test_a_message_at_the_limits_is_taken(pubsub_service: PubSub, message: dict[str, Any]) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic)
    pubsub_service.call("publish", topic=topic, messages=[message] * 1_000)
    assert len(pubsub_service.pull_all(subscription, 1_000)) == 1_000


def test_a_request_of_ten_million_bytes_is_taken_and_one_byte_more_is_not(
    pubsub_local: LocalPubSub,
) -> None:
    topic = pubsub_local.topic(message_retention_duration=WEEK)
    empty = types.PublishRequest.pb()(topic=topic, messages=[{"data": b"x" * 9_000_000}])
    room = 10_000_000 - empty.ByteSize() + 9_000_000
    with pytest.raises(InvalidArgument):
        pubsub_local.publish(topic, "x" * (room + 1))
    pubsub_local.publish(topic, "x" * room)
    assert pubsub_local.server.count(topic) == 1


def test_a_topic_without_subscription_and_retention_throws_messages_away(
    pubsub_local: LocalPubSub,
) -> None:
    topic = pubsub_local.topic()
    pubsub_local.publish(topic, "lost")
    assert pubsub_local.data(topic) == []
    subscription = pubsub_local.subscription(topic)
    pubsub_local.publish(topic, "kept")
    assert pubsub_local.data(topic) == ["kept"]
    assert data(pubsub_local.pull(subscription)) == ["kept"]


def test_what_was_published_is_read_back_in_order(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic(message_retention_duration=WEEK)
    message = {"data": b"a", "attributes": {"event_id": "1"}, "ordering_key": "MOR"}
    (first,) = pubsub_local.call("publish", topic=topic, messages=[message]).message_ids
    pubsub_local.publish(topic, "b", "c", key="BAG")
    found = pubsub_local.server.messages(topic)
    assert found[0][:4] == (first, b"a", {"event_id": "1"}, "MOR")
    assert [one.data for one in found] == [b"a", b"b", b"c"]
    assert pubsub_local.server.messages(topic, after=2) == found[2:]
    assert pubsub_local.server.count(topic) == 3
