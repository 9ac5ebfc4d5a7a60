"""What counts as what: every threshold behind a state of a tag, in one place.

Times in microseconds, unless a name says otherwise. `docs/api.md` tells operators the same.
"""

from __future__ import annotations

SECOND_US = 1_000_000

# Averages: of the open half minute and the two before it, and of minutes.
HALF_US = 30 * SECOND_US
MINUTE_US = 60 * SECOND_US
KEPT_MINUTES = 35
SPARK_MINUTES = 30

# The usual interval and the clock's offset are means over about so many readings.
MEMORY_READINGS = 20
# From so many readings on, the usual interval is known.
KNOWN_FROM_READINGS = 5

# Silent for more than so many usual intervals, and at least for so long: stale. A longer gap
# counts as this much in the mean, so that an outage does not become usual.
STALE_INTERVALS = 5
STALE_AT_LEAST_US = 30 * SECOND_US

# Exactly the same value in at least so many readings over at least this time: flat.
FLAT_READINGS = 20
FLAT_US = 10 * MINUTE_US

# Received so much before or after the sensor's own time: its clock is ahead, or behind.
CLOCK_US = 30 * SECOND_US

# A reading out of time order is held against a tag for so long.
DISORDER_US = 30 * MINUTE_US

# Tags are forgotten when nothing came from them for so long, and beyond this many none is added.
FORGET_US = 24 * 60 * MINUTE_US
MAX_TAGS = 100_000

_SILENCE = f"max({STALE_AT_LEAST_US}, {STALE_INTERVALS} * interval_us)"

# Conditions over a row of `tags`; `:now` is the wall clock.
STATES = {
    "stale": f"(readings >= {KNOWN_FROM_READINGS} AND :now - received_us > {_SILENCE})",
    "flat": f"(same >= {FLAT_READINGS} AND received_us - since_us >= {FLAT_US})",
    "ahead": f"(offset_us < -{CLOCK_US})",
    "behind": f"(offset_us > {CLOCK_US})",
    "disorder": f"(late_us > :now - {DISORDER_US})",
}

# How long a gap is counted at most, given a row of `tags` before the gap.
LONGEST_GAP = f"iif(readings < {KNOWN_FROM_READINGS}, 9e18, {_SILENCE})"
