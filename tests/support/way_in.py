"""The container's Mosquitto and HAProxy on free ports of the loopback, as `render` set them up."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from bridge import settings
from bridge.cli.broker import PLACES, find_mosquitto
from bridge.cli.processes import Program, free_ports, listens
from container.ports import Ports
from container.render import render
from tests.support.sensor import Credentials, Door, Transport

SECONDS = 20.0


def find_haproxy() -> str:
    """Skips the test where there is none."""
    found = shutil.which("haproxy") or next(
        (path for place in PLACES if (path := shutil.which("haproxy", path=place))), None
    )
    if found is None:
        pytest.skip("HAProxy is not installed: apt-get install haproxy")
    return found


class WayIn:
    """Both programs, for as long as the block lasts. `directory` must exist; a second one on the
    same is the container started again. `change`: what a test does to haproxy.cfg."""

    def __init__(
        self,
        directory: Path,
        environ: Mapping[str, str],
        change: Callable[[str], str] | None = None,
    ) -> None:
        self.haproxy = find_haproxy()
        self.directory = directory
        mqtt, mqtts, websockets, bridge, plain, framed = free_ports(6)
        self.ports = Ports(mqtt, mqtts, websockets, bridge, plain, framed, "127.0.0.1")
        self.environ = {"MOSQUITTO_DATA": str(directory / "data"), **environ}
        self.answer = render(self.environ, directory / "run", self.ports)
        if change is not None:
            conf = directory / "run" / "haproxy.cfg"
            conf.write_text(change(conf.read_text()))
        self.broker: Program | None = None
        self.proxy: Program | None = None

    def __enter__(self) -> Self:
        try:
            self.start_broker()
            self.start_proxy()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def start_broker(self) -> None:
        conf = self.directory / "run" / "mosquitto.conf"
        self.broker = Program("mosquitto", (find_mosquitto(), "-c", conf), self.directory)
        self.broker.wait_until(lambda: listens(self.ports.bridge), SECONDS)

    def kill_broker(self) -> None:
        """As a crash would: what it had not written down is gone."""
        assert self.broker is not None
        self.broker.kill()

    def start_proxy(self) -> None:
        conf = self.directory / "run" / "haproxy.cfg"
        self.proxy = Program("haproxy", (self.haproxy, "-db", "-f", conf), self.directory)
        self.proxy.wait_until(lambda: listens(self.port), SECONDS)

    @property
    def port(self) -> int:
        """The sensors' public one, not that of WebSockets."""
        tls = self.environ.get("MQTT_SECURITY") in ("tls", "mtls")
        return self.ports.mqtts if tls else self.ports.mqtt

    def door(self, transport: Transport, authority: str | None = None) -> Door:
        """For sensors. `authority`: PEM of who signed the server's certificate."""
        port = self.ports.websockets if transport == "websockets" else self.port
        return Door(transport, port, authority)

    def bridge_credentials(self) -> Credentials:
        password = Path(self.answer["MQTT_PASSWORD_FILE"]).read_text()
        return Credentials(self.answer["MQTT_USERNAME"], password)

    def bridge_settings(self) -> settings.Settings:
        """What the bridge of this container would run with."""
        return settings.load({**self.environ, **self.answer})

    def log(self) -> str:
        return (self.directory / "mosquitto.log").read_text(errors="replace")

    def _end(self) -> None:
        for program in (self.proxy, self.broker):
            if program is not None:
                program.stop()
