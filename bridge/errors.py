"""Every error the bridge raises on purpose.

    BridgeError
    ├── FatalError              the process ends; `exit_code` says how
    │   ├── ConfigurationError  78: what an operator has to set right first
    │   ├── JournalNewer        78: written by a newer version of the bridge
    │   ├── DestinationChanged  78: unsettled readings belong to another destination
    │   └── JournalLocked       70: another process runs on this journal
    ├── JournalError            the journal could not be written or read just now
    │   └── JournalDamaged      the file's content is not what was written
    └── SinkError               a whole batch was not written; nothing of it was refused for good
        ├── Transient           try the same batch again, later
        ├── Held                as Transient, and an operator has to act before it can work
        └── ContentRefused      something in this batch is refused, and the service did not say what

A single entry that is refused is no exception but part of an `Outcome`.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FINDING = 1
EXIT_USAGE = 2
EXIT_FATAL = 70
EXIT_UNSETTLED = 75
EXIT_CONFIG = 78


class BridgeError(Exception):
    """The root: catch it to catch everything the bridge raises on purpose."""


class FatalError(BridgeError):
    """The process cannot go on. `str()` is for the operator and says what to do."""

    exit_code = EXIT_FATAL


class ConfigurationError(FatalError):
    exit_code = EXIT_CONFIG


class JournalNewer(FatalError):
    exit_code = EXIT_CONFIG


class DestinationChanged(FatalError):
    exit_code = EXIT_CONFIG


class JournalLocked(FatalError):
    exit_code = EXIT_FATAL


class JournalError(BridgeError):
    """The journal could not be used just now (a full disk, an I/O error); nothing was changed."""


class JournalDamaged(JournalError):
    """The journal's file is not what was written; it has to be set aside and salvaged."""


class SinkError(BridgeError):
    """A whole batch was not confirmed.

    reason: a short, stable word for metrics (`unavailable`, `permission_denied`, …).
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Transient(SinkError):
    """The service may work again by itself. The answer may be lost: the batch may be there."""


class Held(SinkError):
    """Only an operator can mend it (permission, missing table, schema). Retried all the same."""

    def __init__(self, reason: str, detail: str, remedy: str) -> None:
        super().__init__(reason, detail)
        self.remedy = remedy


class ContentRefused(SinkError):
    """Definite: nothing of the batch was applied, because of something in it."""
