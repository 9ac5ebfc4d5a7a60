"""What a service's refusal means for the whole batch: gRPC's codes and REST's.

The table is in docs/errors.md. What is in no list here is transient: it is retried for ever and
shown, which loses nothing.
"""

from __future__ import annotations

from bridge.errors import ContentRefused, Held, SinkError, Transient

REMEDIES = {
    "not_found": "create {what} (`provision` does), or correct its name",
    "permission_denied": "let the service account write {what} (publisher, data editor)",
    "unauthenticated": "check the credentials of the service account",
    "failed_precondition": "check the state of {what}; the message says what it refuses",
    "unimplemented": "the endpoint does not serve this method: check the endpoint variables",
    "schema_mismatch": "make the table's columns fit (`check` names the difference)",
}
_CONTENT = frozenset({"invalid_argument"})
_TRANSIENT_REASONS = frozenset(
    {
        "quotaExceeded",
        "rateLimitExceeded",
        "jobRateLimitExceeded",
        "backendError",
        "jobBackendError",
        "internalError",
        "jobInternalError",
        "tableUnavailable",
        "timeout",
    }
)
_HTTP = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    413: "invalid_argument",
    429: "resource_exhausted",
    500: "internal",
    502: "unavailable",
    503: "unavailable",
    504: "deadline_exceeded",
}


def sink_error(code: str, detail: str, what: str) -> SinkError:
    """The error for a gRPC code's name (any case). `what`: what was written to, for the remedy."""
    reason = code.lower()
    if reason in _CONTENT:
        return ContentRefused(reason, detail)
    if reason in REMEDIES:
        return Held(reason, detail, REMEDIES[reason].format(what=what))
    return Transient(reason, detail)


def http_error(status: int, reasons: list[str], detail: str, what: str) -> SinkError:
    """The error for a REST status with the `reason`s of its errors."""
    for reason in reasons:
        if reason in _TRANSIENT_REASONS:
            return Transient(reason, detail)
    return sink_error(_HTTP.get(status, f"http_{status}"), detail, what)
