"""Where the programs of the container listen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ports:
    """mqtt, mqtts, websockets: for sensors, by HAProxy at `address`; mqtt or mqtts, as the security
    wants. bridge, sensors, sensors_websockets: by Mosquitto, on the loopback alone; HAProxy
    forwards to the last two, and nothing forwards to the bridge's."""

    mqtt: int = 1883
    mqtts: int = 8883
    websockets: int = 9001
    bridge: int = 11883
    sensors: int = 21883
    sensors_websockets: int = 29001
    address: str = "0.0.0.0"
