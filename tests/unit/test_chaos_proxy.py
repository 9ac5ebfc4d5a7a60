"""The bad network between bridge and broker."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from chaos.proxy import Proxy, Refusals, packet_size


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that answers with what it hears; its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(client: socket.socket) -> None:
        try:
            while heard := client.recv(1024):
                client.sendall(heard)
        except OSError:
            return

    def listen() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy(echo) as made:
        yield made


def connected(proxy: Proxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    client.sendall(b"hello")
    assert client.recv(16) == b"hello"
    return client


def ended(client: socket.socket) -> bool:
    try:
        return client.recv(16) == b""
    except ConnectionResetError:
        return True


def test_it_passes_on_what_is_said(proxy: Proxy) -> None:
    with connected(proxy):
        pass


def test_a_cut_ends_every_connection_and_new_ones_work(proxy: Proxy) -> None:
    with connected(proxy) as first, connected(proxy) as second:
        proxy.cut()
        assert ended(first)
        assert ended(second)
    with connected(proxy):
        pass


def test_a_cut_within_a_packet_lets_through_its_beginning(proxy: Proxy) -> None:
    with connected(proxy) as client:
        proxy.cut_within_a_packet(3)
        client.sendall(b"a packet")
        assert client.recv(16) == b"a p"
        assert ended(client)


def test_on_a_vanished_network_nothing_arrives_and_nobody_is_told(proxy: Proxy) -> None:
    with connected(proxy) as client:
        proxy.vanish()
        client.sendall(b"lost")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(16)
        proxy.appear()
        client.sendall(b"still lost")
        with pytest.raises(TimeoutError):
            client.recv(16)
        with connected(proxy):
            pass


def test_nothing_comes_through_behind_what_vanished(echo: int) -> None:
    for _ in range(20):
        with Proxy(echo) as proxy, connected(proxy) as client:
            proxy.vanish()
            talk = threading.Thread(target=talk_on, args=(client,))
            talk.start()
            proxy.appear()
            proxy.cut()
            talk.join()
            assert ended(client)


def talk_on(client: socket.socket) -> None:
    """Send until nobody takes it any more."""
    with contextlib.suppress(OSError):
        while True:
            client.sendall(b"lost")


def test_a_muted_caller_is_not_heard(proxy: Proxy) -> None:
    with connected(proxy) as client:
        proxy.mute()
        client.sendall(b"not heard")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(16)
    with connected(proxy):
        pass


def test_a_target_that_is_away_is_a_reset(echo: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with Proxy(port) as proxy, socket.socket() as client:
        client.settimeout(5)
        # It may come before the caller knows that it is connected, or after.
        assert client.connect_ex(("127.0.0.1", proxy.port)) != 0 or ended(client)


GRANT = b"\x90\x05\x00\x01\x00\x01\x00"  # packet 1, no properties, QoS 1 and QoS 0
PUBLISH = b"\x30\x05\x00\x01ahi"


def test_grants_become_refusals_and_nothing_else_is_touched() -> None:
    refused = b"\x90\x05\x00\x01\x00\x87\x87"
    assert Refusals().edit(PUBLISH + GRANT + PUBLISH) == PUBLISH + refused + PUBLISH


def test_a_packet_in_pieces_is_edited_when_it_is_whole() -> None:
    edit = Refusals().edit
    assert edit(GRANT[:3]) == b""
    assert edit(GRANT[3:]) == b"\x90\x05\x00\x01\x00\x87\x87"


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"", None),
        (b"\x30", None),
        (b"\x30\x80", None),
        (b"\x30\x05", 7),
        (b"\x30\x80\x01", 131),
    ],
)
def test_the_size_of_a_packet_is_in_its_first_bytes(data: bytes, size: int | None) -> None:
    assert packet_size(data) == size
