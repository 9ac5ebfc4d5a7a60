"""Under which name the bridge connects to the broker of its container.

It is the bridge's user name and its client id, and nobody else may know it: who connects with
another's client id takes over its session, with all that the broker holds for it, and a client
certificate with the bridge's name would read what the bridge reads. So it is random. It has to
stay the same as long as the broker keeps the session: after a restart the broker asks for the
user's right before it queues anything for a session whose client has not come back yet. So it
lies beside the session, in the broker's own directory.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from bridge.errors import ConfigurationError
from container.files import write_private

RESERVED = "fcts-bridge"
FILE = "bridge-identity"


def identity(data: Path) -> str:
    """The name, made and written down when there is none yet. Creates `data` if it is missing.
    Raises ConfigurationError."""
    path = data / FILE
    try:
        data.mkdir(parents=True, exist_ok=True)
        known = path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
        if re.fullmatch(rf"{RESERVED}-[0-9a-f]{{32}}", known):
            return known
        made = f"{RESERVED}-{secrets.token_hex(16)}"
        write_private(path, made)
        return made
    except OSError as error:
        raise ConfigurationError(
            f"MOSQUITTO_DATA='{data}': cannot be used: {error}. "
            "Remedy: name a directory that the container's user may write."
        ) from None
