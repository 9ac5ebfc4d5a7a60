"""The HTTP server: waitress in threads of its own, bounded in every direction.

One connection carries one answer and lives for at most `CONNECTION_SECONDS`; there are at most
`MAX_CONNECTIONS`, and when they are all taken the oldest that has not sent a whole request yet
makes room for the next. So clients that send or read slowly, or not at all, hold up nobody, and
cannot use up the process' file descriptors or its memory.

The sign of life for the watchdog goes the way of a request: the loop puts it into the queue, and a
worker thread takes it out and calls `beat`. It stops when the loop, the listening socket or all
workers hang, and it needs no connection, so that no flood of clients can talk the watchdog into a
restart.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import Task, ThreadedTaskDispatcher, WSGITask

from bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)
# That requests wait for a moment is nothing to report: a browser sends those of a page all at once.
logging.getLogger("waitress.queue").setLevel(logging.ERROR)

THREADS = 4
MAX_CONNECTIONS = 200
CONNECTION_SECONDS = 30.0
BEAT_SECONDS = 5.0
LOOP_SECONDS = 1.0
STOP_SECONDS = 3
MAX_HEADER_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_BUFFERED_BYTES = 64 * 1024**2

_REMEDIES = {
    errno.EADDRINUSE: "another process listens there: stop it, or set PORT to a free port",
    errno.EACCES: "set PORT to 1024 or more, or give the process the right to lower ports",
}
_OTHER_REMEDY = "set HTTP_HOST to an address of this machine, such as 127.0.0.1 or 0.0.0.0"


class HttpServer:
    """Serves one WSGI application on one address (all addresses of a name such as localhost)."""

    def __init__(
        self, app: WSGIApplication, host: str, port: int, beat: Callable[[], None]
    ) -> None:
        """port: 0 for any free one. beat: called every few seconds from a worker thread while
        requests are answered."""
        self._app = app
        self._host = host
        self._port = port
        self._pulse = _Pulse(beat)
        self._map: dict[int, Any] = {}
        self._listeners: list[_Listener] = []
        self._workers = ThreadedTaskDispatcher()
        self._loop = threading.Thread(target=self._run, name="http", daemon=True)
        self._stopping = threading.Event()

    @property
    def port(self) -> int:
        """The TCP port; once started, the one that is bound."""
        return self._port

    def start(self) -> None:
        """Listen and answer, from now on and in threads of its own. Once.

        Raises ConfigurationError when the address cannot be listened on.
        """
        sockets = _bound(self._host, self._port)
        self._port = sockets[0].getsockname()[1]
        self._workers.set_thread_count(THREADS)
        self._listeners = [self._listen(sock) for sock in sockets]
        self._loop.start()

    def stop(self) -> None:
        """Stop listening and close every connection. Blocks for seconds at most; idempotent."""
        self._stopping.set()
        if not self._listeners:
            return
        self._listeners[0].pull_trigger()
        self._listeners = []
        self._loop.join(STOP_SECONDS)
        self._workers.shutdown(cancel_pending=True, timeout=STOP_SECONDS)
        for open_end in list(self._map.values()):
            if isinstance(open_end, (_Listener, _Channel)):
                open_end.close()
        if not self._workers.threads:
            wasyncore.close_all(self._map)

    def _listen(self, sock: socket.socket) -> _Listener:
        settings = Adjustments(
            sockets=[sock],
            connection_limit=MAX_CONNECTIONS,
            channel_timeout=int(CONNECTION_SECONDS),
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=MAX_BODY_BYTES,
            # No temporary files: the disk may be full, and a descriptor each would be needed.
            outbuf_overflow=MAX_BUFFERED_BYTES,
            inbuf_overflow=MAX_BUFFERED_BYTES,
            # The access rule has to see the headers of a front end; waitress would take them out.
            clear_untrusted_proxy_headers=False,
            log_socket_errors=False,
            ident="bridge",
        )
        return _Listener(
            self._app,
            self._map,
            _sock=sock,
            dispatcher=self._workers,
            adj=settings,
            sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
            bind_socket=False,
        )

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() and self._listening():
                self._close_overdue()
                self._make_room()
                self._pulse.send(self._workers)
                # With poll: select fails as soon as a descriptor's number reaches 1024.
                wasyncore.loop(LOOP_SECONDS, use_poll=True, map=self._map, count=1)
            if not self._stopping.is_set():
                log.error(
                    "the HTTP server has lost its listening socket: the process ends within a "
                    "minute, to be started again. Report this line, if it comes back"
                )
        except Exception:
            log.error(
                "the HTTP server has failed: the process ends within a minute, to be started "
                "again. Report this line with its trace",
                exc_info=True,
            )

    def _listening(self) -> bool:
        return all(listener.accepting for listener in self._listeners)

    def _channels(self) -> list[_Channel]:
        return [channel for channel in self._map.values() if isinstance(channel, _Channel)]

    def _close_overdue(self) -> None:
        limit = time.monotonic() - CONNECTION_SECONDS
        for channel in self._channels():
            if channel.opened < limit:
                channel.handle_close()

    def _make_room(self) -> None:
        if len(self._map) < MAX_CONNECTIONS:
            return
        waiting = [channel for channel in self._channels() if not channel.requests]
        if waiting:
            min(waiting, key=lambda channel: channel.opened).handle_close()


class _OneAnswer(WSGITask):
    """A request after which the connection is closed: what a client sends ahead cannot pile up,
    and an open connection is never an idle one."""

    def execute(self) -> None:
        headers = cast(dict[str, str], cast(HTTPRequestParser, self.request).headers)
        headers["CONNECTION"] = "close"
        super().execute()


class _Channel(HTTPChannel):
    task_class = _OneAnswer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.opened = time.monotonic()


class _Listener(TcpWSGIServer):
    channel_class = _Channel
    _resting_until = 0.0

    def readable(self) -> bool:
        return bool(super().readable()) and time.monotonic() >= self._resting_until

    def accept(self) -> Any:
        """Accept a connection. Out of descriptors, the socket would stay readable and the loop
        would spin: rest for a moment instead; the kernel keeps the client waiting in line."""
        try:
            return super().accept()
        except OSError:
            self._resting_until = time.monotonic() + LOOP_SECONDS
            raise

    def close(self) -> None:
        """Close the socket, but not the pipe that wakes the loop: a worker may yet write to it,
        and its descriptor's number could by then belong to the journal."""
        wasyncore.dispatcher.close(self)


class _Pulse:
    """The sign of life, as a task among the requests; never more than one at a time."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._due = 0.0
        self._on_its_way = False

    def send(self, workers: ThreadedTaskDispatcher) -> None:
        now = time.monotonic()
        if now >= self._due and not self._on_its_way:
            self._due = now + BEAT_SECONDS
            self._on_its_way = True
            workers.add_task(cast(Task, self))

    def service(self) -> None:
        self._on_its_way = False
        self._beat()

    def cancel(self) -> None:
        self._on_its_way = False


def _bound(host: str, port: int) -> list[socket.socket]:
    try:
        return _listen_on_each(host.strip("[]"), port)
    except (OSError, UnicodeError) as error:
        remedy = _REMEDIES.get(getattr(error, "errno", None) or 0, _OTHER_REMEDY)
        raise ConfigurationError(
            f"HTTP_HOST={host!r}, PORT={port}: cannot listen there ({error}). Remedy: {remedy}."
        ) from error


def _listen_on_each(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    unavailable: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(found):
        # With PORT=0 all addresses of a name share the port that the first one was given.
        same_port = bound[0].getsockname()[1] if bound else port
        try:
            bound.append(_bind(family, (address[0], same_port, *address[2:])))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                _close(bound)
                raise
            # localhost may have an IPv6 address where the machine has no IPv6.
            unavailable = error
    if unavailable and not bound:
        raise unavailable
    return bound


def _bind(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address[0] != "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        # Listening at once: with SO_REUSEADDR, another process' claim shows only now.
        sock.listen(socket.SOMAXCONN)
    except OSError:
        sock.close()
        raise
    return sock


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
