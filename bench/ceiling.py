"""The ceiling: a bare paho client that receives and acknowledges QoS 1 messages, and nothing else.

    python -m bench.ceiling --port 1883 --count 100000

It asks for the same Receive Maximum as the bridge, has no other thread, and lets acknowledgements
go out together, which costs less than paho's own loop. So it is what a bridge on paho cannot beat.
Prints "subscribed", and "done" once it has acknowledged so many.
"""

from __future__ import annotations

import select
from typing import Any

import click
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.settings import DEFAULT_FILTER
from bridge.subscriber import KEEP_ALIVE_SECONDS, RECEIVE_MAXIMUM


class Ceiling:
    """One client; `run` blocks for as long as the broker is there."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._left = count
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id="ceiling", protocol=mqtt.MQTTv5
        )
        # With this set, paho leaves writing to the loop below.
        self._client.on_socket_register_write = lambda *_: None
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: click.echo("subscribed")
        self._client.on_message = self._on_message

    def run(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        self._client.connect(
            "127.0.0.1", self._port, keepalive=KEEP_ALIVE_SECONDS, properties=properties
        )
        socket: Any = self._client.socket()
        readable = select.poll()
        readable.register(socket, select.POLLIN)
        told = False
        while self._client.socket() is not None:
            if readable.poll(1_000):
                self._read()
            if self._client.want_write():
                self._client.loop_write()
            self._client.loop_misc()
            if self._left <= 0 and not told:
                told = True
                click.echo("done")

    def _read(self) -> None:
        """What is there, up to the number after which the broker waits for acknowledgements."""
        for _ in range(RECEIVE_MAXIMUM):
            before = self._left
            if self._client.loop_read() != mqtt.MQTT_ERR_SUCCESS or self._left == before:
                return

    def _on_connect(self, *_: Any) -> None:
        self._client.subscribe(DEFAULT_FILTER, qos=1)

    def _on_message(self, *_: Any) -> None:
        self._left -= 1


@click.command()
@click.option("--port", type=int, required=True, help="The broker's, on this machine.")
@click.option("--count", type=int, required=True)
def main(port: int, count: int) -> None:
    """Receive and acknowledge."""
    Ceiling(port, count).run()


if __name__ == "__main__":
    main()
