"""What fits into this machine: how much the broker may queue, and how many may connect."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from bridge.errors import ConfigurationError
from container.settings import Settings

# What a queued reading takes of the broker's memory (see mosquitto.conf).
READING_BYTES = 500
# Of the memory, for readings, and as much again for the payloads of messages larger than a
# reading. With 2 GiB these are the numbers of mosquitto.conf; the rest is for the programs.
SHARE = 4
MOST_CONNECTIONS = 10_000
OTHER_FILES = 200  # that a program opens beside its connections


def memory(root: Path = Path("/")) -> int:
    """Bytes that the container may use: the least of the machine's and its cgroup's, v2 or v1."""
    total = re.search(r"MemTotal:\s+(\d+) kB", (root / "proc/meminfo").read_text())
    found = [int(total[1]) * 1024] if total else []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        path = root / "sys/fs/cgroup" / name
        text = path.read_text().strip() if path.exists() else "max"
        # v2 says "max" for none, v1 a number beyond any machine's; neither is below the machine's.
        found += [int(text)] if text.isdigit() else []
    return min(found)


def queue_messages(settings: Settings, available: int) -> int:
    """`available`: bytes of memory. Never 0, which some versions take for "unlimited"."""
    return settings.mqtt_queue_messages or max(1, available // SHARE // READING_BYTES)


def queue_bytes(settings: Settings, available: int) -> int:
    return settings.mqtt_queue_bytes or max(1, available // SHARE)


def connections(settings: Settings, files: tuple[int, int] | None = None) -> int:
    """How many sensors may be connected at a time: as many as are asked for, or 10,000, or as many
    as the limit of open files has room for. Raises ConfigurationError when more are asked for.
    files: the soft and the hard limit, for tests."""
    soft, hard = (_finite(limit) for limit in files or resource.getrlimit(resource.RLIMIT_NOFILE))
    # Mosquitto needs one for each and keeps to the soft limit. HAProxy needs two, and raises its
    # own to the hard one.
    room = max(1, min(soft - OTHER_FILES, (hard - OTHER_FILES) // 2))
    asked = settings.mqtt_max_connections
    if asked is not None and asked > room:
        raise ConfigurationError(
            f"MQTT_MAX_CONNECTIONS='{asked}': the limits of open files (soft {soft}, hard {hard}) "
            f"have room for {room}. Remedy: ask for fewer, or raise both limits of the container "
            f"(ulimit -n) to {2 * asked + OTHER_FILES}."
        )
    return asked or min(MOST_CONNECTIONS, room)


def _finite(limit: int) -> int:
    return 2**31 if limit == resource.RLIM_INFINITY else limit
