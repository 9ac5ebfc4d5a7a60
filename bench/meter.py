"""A relay before a service, which counts the bytes that pass."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Self

CHUNK = 1 << 18


class Meter:
    """A context manager. `port` is where it listens; sent and answered: bytes so far. Whoever is
    connected stays so for as long as both ends want it."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = self.answered = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, name="meter", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would leave the thread in its accept for ever.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # closed: the end
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._there, args=(near, far), daemon=True).start()
                threading.Thread(target=self._back, args=(near, far), daemon=True).start()

    def _there(self, near: socket.socket, far: socket.socket) -> None:
        with _closing(near, far):
            while chunk := near.recv(CHUNK):
                self.sent += len(chunk)
                far.sendall(chunk)

    def _back(self, near: socket.socket, far: socket.socket) -> None:
        with _closing(near, far):
            while chunk := far.recv(CHUNK):
                self.answered += len(chunk)
                near.sendall(chunk)


@contextlib.contextmanager
def _closing(*ends: socket.socket) -> Iterator[None]:
    with contextlib.suppress(OSError):
        yield
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
