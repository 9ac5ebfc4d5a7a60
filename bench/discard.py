"""A broker that does nothing: how fast the generator is when nobody holds it up.

It reads packets, counts their bytes, and answers with as many acknowledgements. A process of its
own: `python -m bench.discard` prints its port and serves until it is stopped.
"""

from __future__ import annotations

import select
import socket

from bench.generator import PACKET_BYTES

CONNACK = b"\x20\x02\x00\x00"
PUBACK = b"\x40\x02\x00\x00"  # the generator only counts them


def serve(listener: socket.socket) -> None:
    """Blocks for ever."""
    rests: dict[socket.socket, int] = {}  # bytes of a packet that has not come to its end
    while True:
        readable, _, _ = select.select([listener, *rests], [], [])
        for ready in readable:
            if ready is listener:
                rests[_accepted(listener)] = 0
            elif (size := len(ready.recv(1 << 18))) == 0:
                del rests[ready]
                ready.close()
            else:
                packets, rests[ready] = divmod(rests[ready] + size, PACKET_BYTES)
                ready.sendall(PUBACK * packets)


def _accepted(listener: socket.socket) -> socket.socket:
    made, _ = listener.accept()
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    length = made.recv(2, socket.MSG_WAITALL)[1]
    made.recv(length, socket.MSG_WAITALL)
    made.sendall(CONNACK)
    return made


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        serve(server)
