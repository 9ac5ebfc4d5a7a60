"""The bridge's entrance: `python mqtt_subscriber.py [COMMAND]`, `run` without one.

    settings ──▶ wire ──▶ run ──▶ exit code

The daemon is wired together here and nowhere else; the commands are in `bridge/cli`.
"""

from __future__ import annotations

from random import Random

from bridge.cli.main import main
from bridge.clock import SystemClock
from bridge.settings import Settings


def run_daemon(settings: Settings, accept_destination_change: bool) -> int:
    """Run one daemon until it is stopped; answers the exit code. Blocks; main thread only.
    Raises FatalError for what keeps it from starting."""
    from bridge import announcement, wiring
    from bridge.journal import Journal
    from bridge.secrets import http_token
    from bridge.service import Service, Stopping
    from bridge.web.api import Source
    from bridge.web.app import create_app
    from bridge.web.server import HttpServer

    announcement.announce(settings, wiring.destinations(settings))
    clock, random, token = SystemClock(), Random(), http_token(settings)
    journal = Journal(settings.journal_path, wiring.journal_limits(settings), clock)
    journal.open()
    journal.activate(wiring.destinations(settings), accept_destination_change)
    handoff = wiring.handoff(settings, journal, clock)
    service = Service(
        journal,
        wiring.subscriber(settings, journal, clock, random),
        wiring.deliveries(settings, journal, handoff, clock, random),
        wiring.forwarder(settings, journal, random),
        Stopping(settings.drain_seconds, settings.drain_broker),
        clock,
        handoff,
    )
    source = Source(service, service.statistics, settings.app_env, clock)
    app = create_app(service, token=token, local=settings.local, source=source)
    return service.run(HttpServer(app, settings.listen_host, settings.port, service.beat))


if __name__ == "__main__":
    main(run_daemon)
