"""Which version of MQTT to speak with the broker: 5, unless it knows the older one alone.

Pure state, used from the subscriber's thread alone."""

from __future__ import annotations

import paho.mqtt.client as mqtt

SILENT_ENDS = 3  # connections in a row that ended before the broker said anything


class Version:
    """number: paho's, for the next connection."""

    def __init__(self) -> None:
        self.number = mqtt.MQTTv5
        self._silent_ends = 0
        self._knows_5 = self._refuses_5 = False

    @property
    def is_5(self) -> bool:
        return self.number == mqtt.MQTTv5

    def __str__(self) -> str:
        return "5" if self.is_5 else "3.1.1"

    def accepted(self) -> None:
        """The broker has let the bridge in with this version."""
        self._knows_5 = self._knows_5 or self.is_5

    def ended(self, answered: bool, refused: bool) -> bool:
        """A connection is over. answered: the broker has said something on it. refused: namely,
        that it does not know this version. Answers whether the next one is made with another.

        Some brokers close the connection instead of saying that they do not know MQTT 5. But so
        does a load balancer whose broker is away: an older version that was tried because of
        silence is left again with its connection."""
        self._silent_ends = 0 if answered else self._silent_ends + 1
        silent = self._silent_ends >= SILENT_ENDS
        if self.is_5:
            self._refuses_5 = refused
            change = refused or (silent and not self._knows_5)
        else:
            change = silent or (answered and not self._refuses_5)
        if change:
            self._silent_ends = 0
            self.number = mqtt.MQTTv311 if self.is_5 else mqtt.MQTTv5
        return change
