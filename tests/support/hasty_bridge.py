"""The daemon with a shorter patience for handing over: `python hasty_bridge.py run`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bridge.cli.main import main  # noqa: E402
from bridge.handoff import handoff, others, own  # noqa: E402
from mqtt_subscriber import run_daemon  # noqa: E402

own.AGE_US = 500_000
handoff.TICK_SECONDS = 0.2
handoff.LOOK_SECONDS = 0.5
handoff.START_SECONDS = 8.0
others.STALE_SECONDS = 3.0
others.PRESENT_SECONDS = 1.0

if __name__ == "__main__":
    main(run_daemon)
