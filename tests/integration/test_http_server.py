"""Real HTTP against the real server: access as the wire has it, and clients that behave badly."""

from __future__ import annotations

import errno
import http.client
import io
import json
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING, Any

import pytest

from bridge.errors import EXIT_CONFIG, ConfigurationError
from bridge.logs import LogHandler, setup
from bridge.web import server as server_module
from bridge.web.app import create_app
from bridge.web.server import MAX_CONNECTIONS, HttpServer
from tests.support.clock import ManualClock
from tests.support.daemon import FakeDaemon, line
from tests.support.poll import eventually

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

TOKEN = "correct-horse-battery"
PATIENCE = 10.0


@contextmanager
def serving(
    app: WSGIApplication, beat: Callable[[], None] = lambda: None, host: str = "127.0.0.1"
) -> Iterator[HttpServer]:
    server = HttpServer(app, host, 0, beat)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon(sites={"MOR": line(3)}, taken=3)


@pytest.fixture
def server(daemon: FakeDaemon) -> Iterator[HttpServer]:
    """A server outside LOCAL."""
    app = create_app(daemon, token=lambda: TOKEN, local=False)
    with serving(app, daemon.beat) as running:
        yield running


def get(
    server: HttpServer,
    path: str,
    headers: dict[str, str] | None = None,
    method: str = "GET",
    host: str = "127.0.0.1",
    body: bytes | None = None,
) -> tuple[HTTPResponse, bytes]:
    with closing(HTTPConnection(host, server.port, timeout=PATIENCE)) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer, answer.read()


def connect(server: HttpServer, send: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    client.sendall(send)
    return client


def everything_from(client: socket.socket) -> bytes:
    received = b""
    while chunk := client.recv(65_536):
        received += chunk
    return received


# Access, as the wire has it


def test_a_local_caller_reads_the_ledger(server: HttpServer) -> None:
    answer, body = get(server, "/ledger")
    assert answer.status == 200
    assert json.loads(body)["totals"]["received"] == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "localhost"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 google"},
        {"X-AppEngine-Country": "MA"},
        {"x-appengine-user-ip": "127.0.0.1"},
        {"Host": "bridge.example"},
        {"Host": "localhost.example:80"},
        {"X-Forwarded-For": "203.0.113.9", "Authorization": "Bearer wrong-token"},
    ],
)
@pytest.mark.parametrize("path", ["/ledger", "/metrics", "/", "/nothing"])
def test_a_request_that_came_through_a_front_end_gets_401_and_nothing_of_the_plant(
    server: HttpServer, path: str, headers: dict[str, str]
) -> None:
    answer, body = get(server, path, headers)
    assert answer.status == 401
    assert answer.headers.get_all("WWW-Authenticate") is not None
    assert b"MOR" not in body


def test_a_front_ends_health_probe_is_answered_with_one_word(server: HttpServer) -> None:
    answer, body = get(server, "/readyz", {"X-Forwarded-For": "10.0.0.1", "Host": "x.example"})
    assert (answer.status, body) == (200, b'{"status": "ok"}')


def test_the_token_opens_through_a_front_end(server: HttpServer) -> None:
    headers = {"X-Forwarded-For": "203.0.113.9", "Host": "bridge.example"}
    answer, body = get(server, "/ledger", headers | {"Authorization": f"Bearer {TOKEN}"})
    assert answer.status == 200
    assert b"MOR" in body


def test_two_host_headers_are_not_a_local_host(server: HttpServer) -> None:
    request = b"GET /ledger HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"
    with connect(server, request) as client:
        assert everything_from(client).startswith(b"HTTP/1.1 401 ")


def test_a_request_without_a_host_is_not_local(server: HttpServer) -> None:
    with connect(server, b"GET /ledger HTTP/1.0\r\n\r\n") as client:
        assert everything_from(client).startswith(b"HTTP/1.0 401 ")


def test_head_and_wrong_methods_work_on_the_wire(server: HttpServer) -> None:
    answer, body = get(server, "/livez", method="HEAD")
    assert (answer.status, body) == (200, b"")
    answer, _ = get(server, "/livez", method="POST", body=b"hello")
    assert answer.status == 405


def test_an_ipv4_caller_of_a_dual_stack_socket_counts_as_loopback(daemon: FakeDaemon) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    app = create_app(daemon, token=lambda: None, local=False)
    with serving(app, host="::") as server:
        assert get(server, "/ledger", host="127.0.0.1")[0].status == 200
        assert get(server, "/ledger", host="::1")[0].status == 200


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_localhost_answers_on_all_its_addresses(daemon: FakeDaemon) -> None:
    app = create_app(daemon, token=lambda: None, local=True)
    with serving(app, host="localhost") as server:
        found = socket.getaddrinfo("localhost", server.port, type=socket.SOCK_STREAM)
        for address in {str(entry[4][0]) for entry in found}:
            if address != "::1" or has_ipv6():
                assert get(server, "/livez", host=address)[0].status == 200


# Clients that behave badly


def test_clients_that_never_finish_their_request_keep_nobody_out(server: HttpServer) -> None:
    with ExitStack() as slow:
        for _ in range(MAX_CONNECTIONS + 60):
            slow.enter_context(connect(server, b"GET /livez HTTP/1.1\r\nHost: local"))
        for _ in range(3):
            began = time.monotonic()
            assert get(server, "/livez")[0].status == 200
            assert time.monotonic() - began < 5
        assert len(server._map) <= MAX_CONNECTIONS


def test_clients_that_do_not_read_their_answer_keep_nobody_out(daemon: FakeDaemon) -> None:
    daemon.sites = {f"{number} {'x' * 120}": line(number) for number in range(5_000)}
    app = create_app(daemon, token=lambda: None, local=True)
    request = b"GET /ledger HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(app) as server, ExitStack() as greedy:
        for _ in range(12):
            greedy.enter_context(connect(server, request * 20))
        assert get(server, "/livez")[0].status == 200


def test_a_connection_carries_one_answer_however_much_is_sent_ahead(server: HttpServer) -> None:
    with connect(server, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50) as client:
        received = everything_from(client)
    assert received.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in received


def test_a_client_that_wants_to_keep_the_connection_is_told_that_it_closes(
    server: HttpServer,
) -> None:
    request = b"GET /livez HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
    with connect(server, request) as client:
        received = everything_from(client).lower()
    assert received.count(b"\r\nconnection: close\r\n") == 1
    assert b"keep-alive" not in received


def test_a_connection_has_a_limited_life(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "CONNECTION_SECONDS", 0.1)
    with connect(server, b"GET /livez") as idle:
        assert everything_from(idle) == b""


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000, b"431"),
        (b"POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
    ],
)
def test_what_is_too_large_or_no_http_is_refused(
    server: HttpServer, request_bytes: bytes, status: bytes
) -> None:
    with connect(server, request_bytes) as client:
        assert client.recv(65_536).split(b" ")[1] == status
    assert get(server, "/livez")[0].status == 200


def all_free_descriptors() -> list[int]:
    taken = []
    while True:
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno == errno.EMFILE:
                return taken
            raise


def test_running_out_of_descriptors_delays_an_answer_and_does_not_lose_the_server(
    server: HttpServer,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    with ExitStack() as stack:
        client = stack.enter_context(socket.socket())
        client.settimeout(PATIENCE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 8, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        hoard = all_free_descriptors()
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: server._listeners[0]._resting_until > 0, "the listener rests")
        began, used = time.monotonic(), time.process_time()
        eventually(lambda: time.monotonic() - began > 0.5, "half a second is over")
        assert time.process_time() - used < 0.3, "the loop spins"
        for descriptor in hoard:
            os.close(descriptor)
        assert b"200 OK" in client.recv(65_536)


def test_descriptors_beyond_the_reach_of_select_are_served(server: HttpServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("the machine allows too few descriptors")
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        assert get(server, "/livez")[0].status == 200


# The address


def test_a_port_in_use_is_a_configuration_error_that_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = HttpServer(
            create_app(FakeDaemon(), token=lambda: None, local=True),
            "127.0.0.1",
            port,
            lambda: None,
        )
        with pytest.raises(ConfigurationError) as refusal:
            server.start()
    assert refusal.value.exit_code == EXIT_CONFIG
    assert f"HTTP_HOST='127.0.0.1', PORT={port}: cannot listen there" in str(refusal.value)
    assert "Remedy: another process listens there: stop it, or set PORT" in str(refusal.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a" * 70, "[::ffff:x]"])
def test_an_address_of_no_use_is_a_configuration_error(host: str) -> None:
    app = create_app(FakeDaemon(), token=lambda: None, local=True)
    with pytest.raises(ConfigurationError, match="set HTTP_HOST to an address of this machine"):
        HttpServer(app, host, 0, lambda: None).start()


def test_a_failed_start_leaves_no_threads_and_can_be_stopped() -> None:
    before = threading.active_count()
    app = create_app(FakeDaemon(), token=lambda: None, local=True)
    server = HttpServer(app, "192.0.2.1", 0, lambda: None)
    with pytest.raises(ConfigurationError):
        server.start()
    server.stop()
    assert threading.active_count() == before


def test_after_a_stop_the_port_is_free_at_once(daemon: FakeDaemon) -> None:
    app = create_app(daemon, token=lambda: None, local=True)
    with serving(app) as first:
        get(first, "/livez")
        idle = connect(first)
    with closing(idle), pytest.raises(OSError, match="refused"):
        connect(first)
    again = HttpServer(app, "127.0.0.1", first.port, lambda: None)
    again.start()
    try:
        assert get(again, "/livez")[0].status == 200
    finally:
        again.stop()
        again.stop()


def test_a_stop_leaves_no_threads_and_no_descriptors(daemon: FakeDaemon) -> None:
    app = create_app(daemon, token=lambda: None, local=True)

    def once() -> None:
        with serving(app) as server:
            get(server, "/livez")

    once()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    once()
    eventually(lambda: threading.active_count() <= threads, "the threads have ended")
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_stop_does_not_wait_for_a_request_that_hangs() -> None:
    stuck = Stuck()
    with serving(stuck) as server:
        client = connect(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert stuck.reached.wait(PATIENCE)
        trigger: Any = server._listeners[0].trigger
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 8
        assert os.fstat(trigger.trigger), "the worker that hangs would wake another file"
        stuck.release.set()
        client.close()


class Stuck:
    """An application that never answers."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.release = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        self.reached.set()
        self.release.wait(30)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]


# The sign of life


def test_the_watchdog_hears_of_the_server_without_any_request(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(server_module, "LOOP_SECONDS", 0.05)
    app = create_app(daemon, token=lambda: None, local=True)
    with serving(app, daemon.beat):
        eventually(lambda: daemon.beats >= 3, "three beats")


def test_the_sign_of_life_stays_out_when_no_worker_is_left(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(server_module, "LOOP_SECONDS", 0.05)
    stuck = Stuck()
    with serving(stuck, daemon.beat) as server, ExitStack() as clients:
        eventually(lambda: daemon.beats >= 1, "a beat")
        for _ in range(server_module.THREADS):
            request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
            clients.enter_context(connect(server, request))
        eventually(
            lambda: server._workers.active_count == server_module.THREADS, "all workers hang"
        )
        eventually(lambda: server._pulse._on_its_way, "a beat is on its way")
        heard = daemon.beats
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 0.5, "half a second is over")
        assert daemon.beats == heard
        stuck.release.set()
        eventually(lambda: daemon.beats > heard, "the beat arrives late")


def test_the_sign_of_life_stays_out_when_the_loop_has_failed(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(daemon, token=lambda: None, local=True)
    with serving(app, daemon.beat) as server:

        def fail() -> None:
            raise RuntimeError("unheard of")

        monkeypatch.setattr(server, "_make_room", fail)
        server._loop.join(PATIENCE)
        assert not server._loop.is_alive()
    assert "the HTTP server has failed" in caplog.text
    assert "unheard of" in caplog.text


def test_a_closed_listening_socket_ends_the_loop(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    listener = server._listeners[0]
    trigger: Any = listener.trigger
    trigger.pull_trigger(listener.close)
    server._loop.join(PATIENCE)
    assert not server._loop.is_alive()
    assert "lost its listening socket" in caplog.text


# Logging


def test_a_crowd_of_requests_fills_no_log(daemon: FakeDaemon) -> None:
    stream = io.StringIO()
    handler = setup("INFO", "json", stream, ManualClock())
    stuck = Stuck()
    try:
        with serving(stuck) as server, ExitStack() as crowd:
            for _ in range(40):
                request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
                crowd.enter_context(connect(server, request))
            eventually(lambda: len(server._workers.queue) >= 36, "the queue is deep")
            stuck.release.set()
        assert isinstance(handler, LogHandler)
        handler.flush()
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert "Task queue depth" not in stream.getvalue()


def test_a_broken_answer_breaks_one_connection_only() -> None:
    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        raise RuntimeError("not meant to happen")

    with serving(app) as server:
        for _ in range(8):
            answer, body = get(server, "/")
            assert answer.status == 500
            assert b"not meant" not in body


def test_many_requests_at_once_are_all_answered(server: HttpServer) -> None:
    failures: list[object] = []

    def ask() -> None:
        for _ in range(20):
            try:
                if get(server, "/livez")[0].status != 200:
                    failures.append("status")
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)

    askers = [threading.Thread(target=ask) for _ in range(16)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(60)
    assert failures == []
