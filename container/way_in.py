"""HAProxy's configuration as text: the sensors' way in, which a stop closes first."""

from __future__ import annotations

from container.ports import Ports

_TEMPLATE = """\
# Made at the start from the environment. Do not edit.

global
    # The user is the container's, and all of it is made for one purpose: neither user nor chroot.
    log stdout format raw local0
    # Above the sensors' limit, so that it is the rule below that refuses, at once, and not the
    # kernel that lets a sensor wait.
    maxconn {maxconn}

defaults
    mode tcp
    log global
    # At the end of each connection. {{%bi:%bp}} is what Mosquitto's log calls the sensor.
    log-format "%ci:%cp as %bi:%bp to %b: %B bytes out, %U in, %Tt ms, ended %ts"
    # Not those who came and went without a word, such as health checks.
    option dontlognull
    # A sensor may be silent for as long as its keep-alive says, up to 18 hours, and it is the
    # broker that knows how long. Only who is gone without a word is found here, and TCP does that
    # within two minutes. It also keeps the connection known to firewalls on the way, which forget
    # silent ones after some minutes.
    timeout tunnel 7d
    option clitcpka
    clitcpka-idle 60s
    clitcpka-intvl 15s
    clitcpka-cnt 4
    # Until the connection to the broker stands; that is on this machine, and comes at once or not
    # at all. A sensor is told so instead of being held.
    timeout connect 2s
    timeout client 10s
    timeout server 10s
    retries 0

frontend sensors
{binds}
    tcp-request content reject if {{ fe_conn gt {connections} }}
{choice}    default_backend mqtt

backend mqtt
    server mosquitto 127.0.0.1:{sensors}
"""
_WEBSOCKETS = """
backend websockets
    server mosquitto 127.0.0.1:{port}
"""
SPARE = 50  # connections beyond the limit that are being refused at a time


def configuration(ports: Ports, tls: bool, websockets: bool, connections: int) -> str:
    """connections: how many sensors may be connected at a time."""
    public = [ports.mqtts if tls else ports.mqtt, *([ports.websockets] if websockets else [])]
    choice = f"    use_backend websockets if {{ dst_port {ports.websockets} }}\n"
    text = _TEMPLATE.format(
        maxconn=connections + SPARE,
        binds="\n".join(f"    bind {ports.address}:{port}" for port in public),
        connections=connections,
        choice=choice if websockets else "",
        sensors=ports.sensors,
    )
    return text + (_WEBSOCKETS.format(port=ports.sensors_websockets) if websockets else "")
