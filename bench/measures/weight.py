"""What a reading weighs: bytes and requests to the services, and bytes in the journal."""

from __future__ import annotations

from bench.generator import Load
from bench.scale import Scale
from bench.section import Row, Section, Tell
from bench.stage import Stage
from bench.subjects import BRIDGE, INSERT_ALL, TheBridge

CALLS = ("pubsub.Publish", "storage.AppendRows", "bigquery.tabledata.insertAll")
ADDRESSES = ("pubsub", "bigquery", "storage")


def measure(scale: Scale, tell: Tell) -> Section:
    rows = []
    for subject in (BRIDGE, INSERT_ALL):
        for rate in (scale.live_rate, 0):
            rows.append(_weighed(subject, scale, rate))
            tell(f"{subject.name}: {rows[-1]['disk_bytes_per_reading']:,.0f} bytes on disk each")
    return Section(
        "weight",
        "What a reading weighs",
        "Bytes on the wire, both ways, with all that gRPC and HTTP add (without TLS); by way of a "
        "relay that counts them, which makes it slower. At a steady rate, and as fast as it goes.",
        rows,
    )


def _weighed(subject: TheBridge, scale: Scale, rate: int) -> Row:
    with Stage(metered=True) as stage:
        running = subject.start(stage)
        disk, live = _disk_bytes(stage), running.bridge.metric("bridge_journal_bytes")
        calls = {call: stage.services.calls(call) for call in CALLS}
        before = [(meter.sent, meter.answered) for meter in stage.meters]
        stage.send(Load(scale.weighed, rate))
        running.finish(scale.weighed)
        thousands = scale.weighed / 1_000
        pairs = list(zip(stage.meters, before, strict=True))
        sent = {name: m.sent - b[0] for name, (m, b) in zip(ADDRESSES, pairs, strict=True)}
        answered = sum(m.answered - b[1] for m, b in pairs)
        made = {call: stage.services.calls(call) - calls[call] for call in CALLS}
        return {
            "subject": subject.name,
            "load": f"{rate:,} a second" if rate else "at full speed",
            "readings": scale.weighed,
            "pubsub_requests_per_1000": made[CALLS[0]] / thousands,
            "bigquery_requests_per_1000": (made[CALLS[1]] + made[CALLS[2]]) / thousands,
            "pubsub_kb_per_1000": sent["pubsub"] / 1e3 / thousands,
            "bigquery_kb_per_1000": (sent["bigquery"] + sent["storage"]) / 1e3 / thousands,
            "answers_kb_per_1000": answered / 1e3 / thousands,
            "disk_bytes_per_reading": (_disk_bytes(stage) - disk) / scale.weighed,
            "live_bytes_per_reading": (running.bridge.metric("bridge_journal_bytes") - live)
            / scale.weighed,
        }


def _disk_bytes(stage: Stage) -> int:
    """Of the journal and its log."""
    journal = stage.settings.journal_path
    files = (journal, journal.with_name(journal.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
