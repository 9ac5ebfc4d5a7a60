"""Faults on the local Pub/Sub, seen with Google's own client."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from google.api_core import exceptions
from google.api_core.exceptions import DeadlineExceeded, ServiceUnavailable, Unknown

from tests.support.poll import eventually
from tests.support.pubsub import LocalPubSub

# Discouraged where one waits for messages; here it is asked whether there is none.
pytestmark = pytest.mark.filterwarnings("ignore:The return_immediately flag")

WEEK = {"seconds": 604_800}


@pytest.fixture
def topic(pubsub_local: LocalPubSub) -> str:
    return pubsub_local.topic(message_retention_duration=WEEK)


def impatient(local: LocalPubSub, topic: str, data: str, seconds: float) -> None:
    request = {"topic": topic, "messages": [{"data": data.encode()}]}
    local.publisher.publish(request=request, retry=None, timeout=seconds)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("", exceptions.ServiceUnavailable),
        ("PERMISSION_DENIED", exceptions.PermissionDenied),
        ("RESOURCE_EXHAUSTED", exceptions.ResourceExhausted),
        ("NOT_FOUND", exceptions.NotFound),
    ],
)
def test_a_status_is_answered_and_nothing_applied(
    pubsub_local: LocalPubSub, topic: str, status: str, expected: type[Exception]
) -> None:
    pubsub_local.fault("pubsub.Publish", status=status, message="out of order")
    with pytest.raises(expected, match="out of order"):
        pubsub_local.publish(topic, "a")
    assert pubsub_local.data(topic) == []
    pubsub_local.publish(topic, "b")
    assert pubsub_local.data(topic) == ["b"]


@pytest.mark.parametrize("kind", ["cut", "close_stream"])
def test_a_call_that_is_cut_is_unavailable_and_not_applied(
    pubsub_local: LocalPubSub, topic: str, kind: str
) -> None:
    pubsub_local.fault("pubsub.Publish", kind=kind)
    with pytest.raises(ServiceUnavailable):
        pubsub_local.publish(topic, "a")
    assert pubsub_local.data(topic) == []


def test_a_lost_answer_is_a_call_applied(pubsub_local: LocalPubSub, topic: str) -> None:
    pubsub_local.fault("pubsub.Publish", kind="answer_lost")
    with pytest.raises(ServiceUnavailable):
        pubsub_local.publish(topic, "a")
    assert pubsub_local.data(topic) == ["a"]


def test_a_delayed_call_is_served_late_even_when_its_caller_has_given_up(
    pubsub_local: LocalPubSub, topic: str
) -> None:
    fault = pubsub_local.fault("pubsub.Publish", kind="delay", seconds=600)
    with pytest.raises(DeadlineExceeded):
        impatient(pubsub_local, topic, "late", 0.2)
    assert pubsub_local.data(topic) == []
    pubsub_local.faults.remove(fault)
    eventually(lambda: pubsub_local.data(topic) == ["late"], "the call is served")


def test_a_delay_is_over_after_its_seconds(pubsub_local: LocalPubSub, topic: str) -> None:
    pubsub_local.fault("pubsub.Publish", kind="delay", seconds=2.0)
    with pytest.raises(DeadlineExceeded):
        impatient(pubsub_local, topic, "late", 0.5)
    eventually(lambda: pubsub_local.data(topic) == ["late"], "the call is served")


def test_a_call_that_hangs_is_never_applied(pubsub_local: LocalPubSub, topic: str) -> None:
    pubsub_local.fault("pubsub.Publish", kind="hang")
    with pytest.raises(DeadlineExceeded):
        impatient(pubsub_local, topic, "never", 0.2)
    pubsub_local.publish(topic, "b")
    assert pubsub_local.data(topic) == ["b"]


def test_a_call_that_hangs_is_released_when_its_fault_is_lifted(
    pubsub_local: LocalPubSub, topic: str
) -> None:
    fault = pubsub_local.fault("pubsub.Publish", kind="hang")
    with ThreadPoolExecutor() as pool:
        publishing = pool.submit(pubsub_local.publish, topic, "never")
        eventually(lambda: pubsub_local.faults.calls().get("pubsub.Publish") == 1, "it hangs")
        pubsub_local.faults.remove(fault)
        with pytest.raises(ServiceUnavailable):
            publishing.result()
    assert pubsub_local.data(topic) == []


def test_calls_that_hang_do_not_hold_up_the_others(pubsub_local: LocalPubSub, topic: str) -> None:
    pubsub_local.fault("pubsub.Publish", kind="hang", subject="MOR", times=None)
    with ThreadPoolExecutor(40) as pool:
        hanging = [pool.submit(pubsub_local.publish, topic, "never", key="MOR") for _ in range(40)]
        eventually(lambda: pubsub_local.faults.calls().get("pubsub.Publish") == 40, "all hang")
        pubsub_local.publish(topic, "b", key="BAG")
        assert not any(one.done() for one in hanging)
        pubsub_local.faults.clear()
    assert pubsub_local.data(topic) == ["b"]


def test_a_fault_names_a_publish_by_its_ordering_key(pubsub_local: LocalPubSub, topic: str) -> None:
    pubsub_local.fault("pubsub.Publish", subject="MOR", times=None)
    pubsub_local.fault("pubsub.Publish", subject="", times=None)
    pubsub_local.publish(topic, "a", key="BAG")
    for key in ("MOR", ""):
        with pytest.raises(ServiceUnavailable):
            pubsub_local.publish(topic, "b", key=key)
    assert pubsub_local.data(topic) == ["a"]


def test_every_call_asks_for_faults_and_is_counted(pubsub_local: LocalPubSub, topic: str) -> None:
    subscription = pubsub_local.subscription(topic)
    pubsub_local.publish(topic, "a")
    pubsub_local.acknowledge(subscription, pubsub_local.pull(subscription))
    assert pubsub_local.faults.calls() == {
        "pubsub.CreateTopic": 1,
        "pubsub.CreateSubscription": 1,
        "pubsub.Publish": 1,
        "pubsub.Pull": 1,
        "pubsub.Acknowledge": 1,
    }
    pubsub_local.fault("pubsub.*", subject=subscription, times=None)
    with pytest.raises(ServiceUnavailable):
        pubsub_local.pull(subscription)
    with pytest.raises(ServiceUnavailable):
        pubsub_local.call("delete_subscription", subscription=subscription)
    assert pubsub_local.call("get_topic", topic=topic).name == topic


def test_a_status_that_grpc_does_not_have_is_told(pubsub_local: LocalPubSub, topic: str) -> None:
    pubsub_local.fault("pubsub.Publish", status="503")
    with pytest.raises(Unknown, match="'503'"):
        pubsub_local.publish(topic, "a")
