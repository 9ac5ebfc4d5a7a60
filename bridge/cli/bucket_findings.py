"""What `check` finds in the handoff bucket."""

from __future__ import annotations

import secrets

from bridge.cli.findings import Finding
from bridge.handoff.bucket import Bucket, BucketError, Conflict
from bridge.handoff.record import HEADS
from bridge.settings import Settings
from bridge.sinks import connect


def bucket_findings(settings: Settings) -> list[Finding]:
    """Whether the journal can be handed over, where it is to be. Raises ConfigurationError."""
    name = settings.journal_handoff_bucket
    if name is None:
        return []
    path = f"check/{secrets.token_hex(8)}"
    try:
        bucket = Bucket(name, connect.storage(settings))
        bucket.delete(path, bucket.put(path, b"", 0))
        bucket.names(HEADS)
    except (BucketError, Conflict) as error:
        problem, _, fix = str(error).partition(" Remedy: ")
        return [Finding("handoff bucket", "failed", problem, fix or "look at the network")]
    return [Finding("handoff bucket", "ok", f"{name} can be listed, written and deleted in")]
