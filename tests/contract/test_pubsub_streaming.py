"""StreamingPull, held against the local server and, where it is, Google's own emulator."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from types import TracebackType
from typing import Any, Self

import google.cloud.pubsub_v1 as pubsub_v1
import grpc
import pytest
from google.pubsub_v1 import types

from tests.support.poll import eventually
from tests.support.pubsub import LocalPubSub, PubSub

# Discouraged where one waits for messages; here it is asked whether there is none.
pytestmark = pytest.mark.filterwarnings("ignore:The return_immediately flag")

_Request, _Response = types.StreamingPullRequest.pb(), types.StreamingPullResponse.pb()


class Stream:
    """A streaming pull by hand: `say` requests, look at what has `come`, and how it `ended`."""

    def __init__(self, address: str, **first: Any) -> None:
        self._channel = grpc.insecure_channel(address)
        self._requests: queue.Queue[Any] = queue.Queue()
        self.come: list[Any] = []
        self.ended = ""
        self.say(**{"stream_ack_deadline_seconds": 10, **first})
        open_stream = self._channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            _Request.SerializeToString,
            _Response.FromString,
        )
        self._call: Any = open_stream(iter(self._requests.get, None))
        self._thread = threading.Thread(target=self._hear)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._requests.put(None)
        self._call.cancel()
        self._thread.join()
        self._channel.close()

    def say(self, **request: Any) -> None:
        self._requests.put(_Request(**request))

    def data(self) -> list[str]:
        return [one.message.data.decode() for one in self.come]

    def wait(self, *expected: str) -> None:
        eventually(lambda: len(self.come) >= len(expected), f"{len(expected)} messages come")
        assert self.data() == list(expected)

    def wait_for_end(self, code: str) -> None:
        eventually(lambda: bool(self.ended), "the stream ends")
        assert self.ended == code

    def _hear(self) -> None:
        try:
            for answer in self._call:
                self.come.extend(answer.received_messages)
            self.ended = "OK"
        except grpc.RpcError:
            self.ended = self._call.code().name


def test_googles_subscriber_gets_every_message_of_each_key_in_order(
    pubsub_service: PubSub, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic, enable_message_ordering=True)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_service.address)
    options = pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
    publisher: Any = pubsub_v1.PublisherClient(publisher_options=options)
    keys = ("MOR", "BAG", "SIE")
    came: dict[str, list[int]] = defaultdict(list)

    def take(message: Any) -> None:
        came[message.ordering_key].append(int(message.data))
        message.ack()

    with pubsub_v1.SubscriberClient() as subscriber:
        pulling = subscriber.subscribe(subscription, callback=take)
        published = [
            publisher.publish(topic, str(number).encode(), ordering_key=key)
            for number in range(100)
            for key in keys
        ]
        ids = {future.result(timeout=20) for future in published}
        assert len(ids) == 300
        eventually(lambda: sum(map(len, came.values())) >= 300, "all messages come", 60)
        pulling.cancel()
        pulling.result(timeout=20)
    assert came == {key: list(range(100)) for key in keys}


def test_a_stream_delivers_what_is_there_and_what_comes(pubsub_service: PubSub) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic)
    pubsub_service.publish(topic, "a")
    with Stream(pubsub_service.address, subscription=subscription) as stream:
        stream.wait("a")
        pubsub_service.publish(topic, "b")
        stream.wait("a", "b")


def test_a_stream_takes_acknowledgements_and_messages_given_back(pubsub_service: PubSub) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic)
    pubsub_service.publish(topic, "a")
    with Stream(pubsub_service.address, subscription=subscription) as stream:
        stream.wait("a")
        back = [stream.come[0].ack_id]
        stream.say(modify_deadline_ack_ids=back, modify_deadline_seconds=[0])
        stream.wait("a", "a")
        stream.say(ack_ids=[stream.come[1].ack_id])
        pubsub_service.publish(topic, "b")
        stream.wait("a", "a", "b")


def test_a_stream_holds_no_more_messages_than_it_said(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic)
    pubsub_local.publish(topic, *"abcde")
    first = {"subscription": subscription, "max_outstanding_messages": 2}
    with Stream(pubsub_local.address, **first) as stream:
        stream.wait("a", "b")
        assert [one.message.data for one in pubsub_local.pull(subscription, most=1)] == [b"c"]
        stream.say(ack_ids=[stream.come[0].ack_id])
        stream.wait("a", "b", "d")


def test_a_stream_holds_no_more_bytes_than_it_said(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic)
    pubsub_local.publish(topic, "a" * 600, "b" * 600, "c" * 600)
    first = {"subscription": subscription, "max_outstanding_bytes": 1_000}
    with Stream(pubsub_local.address, **first) as stream:
        stream.wait("a" * 600, "b" * 600)
        assert [one.message.data for one in pubsub_local.pull(subscription)] == [b"c" * 600]


def test_a_streams_deadline_goes_before_the_subscriptions(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic, ack_deadline_seconds=600)
    pubsub_local.publish(topic, "a")
    first = {"subscription": subscription, "stream_ack_deadline_seconds": 20}
    with Stream(pubsub_local.address, **first) as stream:
        stream.wait("a")
    pubsub_local.seconds = 19.9
    assert pubsub_local.pull(subscription) == []
    pubsub_local.seconds = 20
    assert len(pubsub_local.pull(subscription)) == 1


def test_the_stream_that_holds_a_key_gets_more_of_it_and_no_other_does(
    pubsub_local: LocalPubSub,
) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic, enable_message_ordering=True)
    with (
        Stream(pubsub_local.address, subscription=subscription) as one,
        Stream(pubsub_local.address, subscription=subscription) as two,
    ):
        pubsub_local.publish(topic, "0", key="MOR")
        eventually(lambda: bool(one.come or two.come), "the first message comes")
        holder, other = (one, two) if one.come else (two, one)
        for number in range(1, 20):
            pubsub_local.publish(topic, f"{number}", key="MOR")
        holder.wait(*map(str, range(20)))
        assert other.data() == []


@pytest.mark.parametrize(
    "first",
    [
        {"subscription": "nonsense"},
        {"stream_ack_deadline_seconds": 0},
        {"stream_ack_deadline_seconds": 9},
        {"stream_ack_deadline_seconds": 601},
        {"ack_ids": ["nonsense"]},
    ],
)
def test_a_stream_that_begins_wrong_is_refused(
    pubsub_local: LocalPubSub, first: dict[str, Any]
) -> None:
    subscription = pubsub_local.subscription(pubsub_local.topic())
    with Stream(pubsub_local.address, **{"subscription": subscription, **first}) as stream:
        stream.wait_for_end("INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "later",
    [
        {"subscription": "projects/plant-project/subscriptions/other"},
        {"max_outstanding_messages": 1},
        {"ack_ids": ["nonsense"]},
        {"modify_deadline_ack_ids": ["0123abcd-1"]},
        {"modify_deadline_ack_ids": ["0123abcd-1"], "modify_deadline_seconds": [-1]},
        {"stream_ack_deadline_seconds": 601},
    ],
)
def test_a_stream_that_goes_on_wrong_is_ended(
    pubsub_local: LocalPubSub, later: dict[str, Any]
) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic)
    pubsub_local.publish(topic, "a")
    with Stream(pubsub_local.address, subscription=subscription) as stream:
        stream.wait("a")
        stream.say(**later)
        stream.wait_for_end("INVALID_ARGUMENT")


def test_a_stream_ends_when_there_is_no_subscription_any_more(pubsub_service: PubSub) -> None:
    topic = pubsub_service.topic()
    subscription = pubsub_service.subscription(topic)
    pubsub_service.publish(topic, "a")
    with Stream(pubsub_service.address, subscription=subscription) as stream:
        stream.wait("a")
        pubsub_service.call("delete_subscription", subscription=subscription)
        stream.wait_for_end("NOT_FOUND")
    with Stream(pubsub_service.address, subscription=subscription) as stream:
        stream.wait_for_end("NOT_FOUND")


def test_a_fault_can_refuse_a_stream_or_end_it_without_an_error(pubsub_local: LocalPubSub) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic)
    pubsub_local.publish(topic, "a")
    pubsub_local.fault("pubsub.StreamingPull", status="RESOURCE_EXHAUSTED")
    pubsub_local.fault("pubsub.StreamingPull", kind="cut")
    pubsub_local.fault("pubsub.StreamingPull", kind="close_stream", subject=subscription)
    for code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "OK"):
        with Stream(pubsub_local.address, subscription=subscription) as stream:
            stream.wait_for_end(code)
            assert stream.come == []
    with Stream(pubsub_local.address, subscription=subscription) as stream:
        stream.wait("a")


def test_a_stream_that_hangs_delivers_nothing_until_the_fault_is_lifted(
    pubsub_local: LocalPubSub,
) -> None:
    topic = pubsub_local.topic()
    subscription = pubsub_local.subscription(topic)
    pubsub_local.publish(topic, "a")
    fault = pubsub_local.fault("pubsub.StreamingPull", kind="hang")
    with Stream(pubsub_local.address, subscription=subscription) as stream:
        calls = pubsub_local.faults.calls
        eventually(lambda: calls().get("pubsub.StreamingPull") == 1, "the stream hangs")
        assert len(pubsub_local.pull(subscription)) == 1
        pubsub_local.faults.remove(fault)
        stream.wait_for_end("UNAVAILABLE")
        assert stream.come == []
