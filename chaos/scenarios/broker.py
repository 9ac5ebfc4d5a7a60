"""The broker, and the network between it and the bridge."""

from __future__ import annotations

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from chaos.rig import Rig
from chaos.scenario import Scenario

GROUP = "broker"
BEYOND_KEEP_ALIVE = 50.0


def restart(rig: Rig) -> None:
    for _ in range(int(rig.either(1, 4))):
        rig.broker.stop()
        rig.rest(0.3, 5)
        rig.broker.start()
        rig.wait_for_readings(100)


def kill(rig: Rig) -> None:
    for _ in range(int(rig.either(1, 4))):
        rig.rest(0.5, 5)
        rig.broker.kill()
        rig.broker.start()
        rig.wait_for_readings(100)


def cut(rig: Rig) -> None:
    for _ in range(int(rig.either(3, 20))):
        rig.proxy.cut()
        rig.rest(0.4, 2)


def cut_within_a_packet(rig: Rig) -> None:
    for _ in range(int(rig.either(3, 20))):
        rig.proxy.cut_within_a_packet(rig.random.randrange(1, 60))
        rig.rest(0.4, 2)


def vanish(rig: Rig) -> None:
    """Half-open: neither side hears anything of the other, until somebody gives up. In the quick
    form the network tells at last, where else the keep-alive has to notice."""
    rig.proxy.vanish()
    rig.rest(1.0, BEYOND_KEEP_ALIVE)
    rig.proxy.appear()
    if rig.quick:
        rig.proxy.cut()


def take_over(rig: Rig) -> None:
    """Another client connects with the bridge's id, and leaves the session as it was."""
    for _ in range(int(rig.either(1, 5))):
        other = _other(rig)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600  # else its end would be the session's
        other.connect("127.0.0.1", rig.broker.port, clean_start=False, properties=properties)
        for _ in range(10):
            other.loop(0.02)
        other.disconnect()
        rig.wait_until(rig.bridge.ready, "the bridge has its session again")


def forget_session(rig: Rig) -> None:
    """The session is gone, and with it what the broker had queued for it; sensors that cover the
    time send it again. First while the bridge is away, then while it is there."""
    rig.bridge.kill()
    _lose_everything(rig)
    rig.bridge.start()
    _wait_for_lost_sessions(rig, 1)
    rig.wait_for_readings(100)
    _lose_everything(rig)
    _wait_for_lost_sessions(rig, 2)


def _lose_everything(rig: Rig) -> None:
    rig.broker.kill()
    for kept in rig.broker.directory.glob("mosquitto.db*"):
        kept.unlink()
    rig.broker.start()


def _wait_for_lost_sessions(rig: Rig, count: int) -> None:
    metric = "bridge_mqtt_sessions_lost_total"
    rig.wait_until(lambda: rig.bridge.metric(metric) == count, f"{count} lost sessions told", 20)


def refuse_subscription(rig: Rig) -> None:
    """Until somebody lets the bridge's user read again. It says so, and tries by itself."""
    rig.proxy.refuse_subscriptions = True
    rig.proxy.cut()
    rig.wait_until(lambda: "refused the subscription" in rig.bridge.text("/readyz"), "told")
    rig.rest(0.5, 10)
    rig.proxy.refuse_subscriptions = False
    rig.proxy.cut()
    rig.wait_until(rig.bridge.ready, "subscribed again", 40)


def stay_away(rig: Rig) -> None:
    """For less time than the broker's queue lasts."""
    for _ in range(int(rig.either(1, 10))):
        rig.bridge.kill()
        rig.rest(0.5)
        rig.bridge.start()


def _other(rig: Rig) -> mqtt.Client:
    return mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=rig.settings.client_id,
        protocol=mqtt.MQTTv5,
        manual_ack=True,
    )


SCENARIOS = (
    Scenario("broker-restart", GROUP, "the broker is stopped in order and started again", restart),
    Scenario(
        "broker-kill-9",
        GROUP,
        "kill -9; sensors send the last seconds again",
        kill,
        cover_seconds=8,
    ),
    Scenario("connection-cut", GROUP, "the connection is reset, again and again", cut),
    Scenario("cut-in-packet", GROUP, "the connection ends within a packet", cut_within_a_packet),
    Scenario("half-open", GROUP, "packets vanish in both directions", vanish),
    Scenario("session-taken-over", GROUP, "another client takes the bridge's id", take_over),
    Scenario(
        "session-forgotten",
        GROUP,
        "the broker loses the session; sensors send the last seconds again",
        forget_session,
        cover_seconds=8,
    ),
    Scenario(
        "subscription-refused",
        GROUP,
        "the broker refuses the subscription, until it is allowed again",
        refuse_subscription,
    ),
    Scenario(
        "default-limits",
        GROUP,
        "kill -9 of the bridge before a broker with its default queue limits",
        stay_away,
        broker="max_queued_messages 1000\nmax_inflight_messages 20",
        rate=25,
    ),
)
