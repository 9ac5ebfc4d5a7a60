"""What a process has used, as Linux counts it. Raises OSError when there is no such process."""

from __future__ import annotations

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MEGABYTE = 1e6


def cpu_seconds(pid: int) -> float:
    """User and system time of all its threads, living and dead."""
    # The name, in brackets, may hold anything; what follows it are numbers.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid: int) -> float:
    """Memory in use now."""
    return _status(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """The most memory that was in use at once, since the start."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        field, _, value = line.partition(":")
        if field == name:
            return int(value.split()[0]) * 1024 / MEGABYTE
    raise ProcessLookupError(f"process {pid} has ended")
