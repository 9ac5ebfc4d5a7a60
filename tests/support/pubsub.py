"""The implementations of Pub/Sub that the contract is held against, and clients for them."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import grpc
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from bridge.cli.processes import Program, free_port, listens
from localgcp.faults import Fault, Faults
from localgcp.pubsub import PubSubServer
from tests.support.poll import eventually

PROJECT = "projects/plant-project"
SECONDS = 20.0


class PubSub:
    """One implementation, asked with Google's own generated clients; nothing is retried, so that
    each call's own answer is seen. Names are made up, so that tests share a server."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = grpc.insecure_channel(address)
        self.publisher = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        self.subscriber = SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel))
        self._names = (f"{PROJECT}/{{}}/t{uuid.uuid4().hex[:8]}-{n}" for n in itertools.count())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def name(self, kind: str) -> str:
        """kind: topics or subscriptions."""
        return next(self._names).format(kind)

    def call(self, method: str, **request: Any) -> Any:
        owner = self.publisher if hasattr(PublisherClient, method) else self.subscriber
        return getattr(owner, method)(request=request, retry=None, timeout=SECONDS)

    def start(self, method: str) -> Any:
        """A call under way, with an empty request; it is cancelled when nobody holds it."""
        callable_: Any = self._channel.unary_unary(method)
        return callable_.future(b"", timeout=60)

    def topic(self, **settings: Any) -> str:
        return str(self.call("create_topic", name=self.name("topics"), **settings).name)

    def subscription(self, topic: str, **settings: Any) -> str:
        name = self.name("subscriptions")
        return str(self.call("create_subscription", name=name, topic=topic, **settings).name)

    def publish(self, topic: str, *data: str, key: str = "") -> list[str]:
        messages = [{"data": one.encode(), "ordering_key": key} for one in data]
        return list(self.call("publish", topic=topic, messages=messages).message_ids)

    def pull(self, subscription: str, most: int = 100) -> list[Any]:
        """What can be delivered now."""
        request = {"subscription": subscription, "max_messages": most, "return_immediately": True}
        return list(self.call("pull", **request).received_messages)

    def pull_all(self, subscription: str, count: int, acknowledge: bool = True) -> list[Any]:
        """Pull until `count` messages have come, acknowledging each pull's before the next."""
        came: list[Any] = []

        def arrived() -> bool:
            more = self.pull(subscription)
            came.extend(more)
            if more and acknowledge:
                self.acknowledge(subscription, more)
            return len(came) >= count

        eventually(arrived, f"{count} messages are delivered")
        return came

    def acknowledge(self, subscription: str, received: list[Any]) -> None:
        ids = [one.ack_id for one in received]
        self.call("acknowledge", subscription=subscription, ack_ids=ids)

    def deadline(self, subscription: str, received: list[Any], seconds: int) -> None:
        ids = [one.ack_id for one in received]
        request = {"subscription": subscription, "ack_ids": ids, "ack_deadline_seconds": seconds}
        self.call("modify_ack_deadline", **request)


class LocalPubSub(PubSub):
    """The local server, with its faults, its clock and what it holds."""

    def __init__(self, data_dir: Path | None = None) -> None:
        self.faults = Faults()
        self.seconds = 0.0
        self.server = PubSubServer(self.faults, data_dir=data_dir, clock=lambda: self.seconds)
        self.server.start()
        super().__init__(f"127.0.0.1:{self.server.port}")

    def close(self) -> None:
        super().close()
        self.faults.clear()
        self.server.stop()

    def fault(self, call: str, **fields: Any) -> int:
        return self.faults.add(Fault(call=call, **fields))

    def data(self, topic: str) -> list[str]:
        """The data of everything that was published and kept."""
        return [message.data.decode() for message in self.server.messages(topic)]


@contextmanager
def emulator(directory: Path) -> Iterator[str | None]:
    """Runs Google's own emulator: its address, or None where this machine does not have it."""
    java, jar = shutil.which("java"), _emulator_jar()
    if java is None or jar is None:
        yield None
        return
    port = free_port()
    command: list[str | Path] = [java, "-jar", jar, "--host=127.0.0.1", f"--port={port}"]
    with Program("emulator", command, directory) as program:
        program.wait_until(lambda: listens(port), 60)
        yield f"127.0.0.1:{port}"


def _emulator_jar() -> Path | None:
    for root in _sdk_roots():
        found = sorted(root.glob("platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"))
        if found:
            return found[-1]
    return None


def _sdk_roots() -> Iterator[Path]:
    """Where the gcloud CLI may be installed: the cheap guess first, then what it says itself."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        return
    yield Path(gcloud).resolve().parent.parent
    command = [gcloud, "info", "--format=value(installation.sdk_root)"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if said.stdout.strip():
        yield Path(said.stdout.strip())
