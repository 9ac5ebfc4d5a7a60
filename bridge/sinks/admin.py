"""What the two admin sides have in common."""

from __future__ import annotations

from bridge.errors import BridgeError

_ROLES = {
    "topic": "roles/pubsub.editor (or publisher, and viewer for `check`)",
    "subscription": "roles/pubsub.editor",
    "subscriptions": "roles/pubsub.viewer",
    "dataset": "roles/bigquery.dataEditor on the project, or a dataset made by an administrator",
    "table": "roles/bigquery.dataEditor on the dataset",
}


def member(credentials: object) -> str:
    """Who these credentials belong to, as `gcloud` wants it; a word to fill in where they do not
    tell (a person's own, or those of a machine that were not used yet)."""
    email = getattr(credentials, "service_account_email", None)
    known = isinstance(email, str) and "@" in email
    return f"serviceAccount:{email if known else 'SERVICE_ACCOUNT'}"


class AdminError(BridgeError):
    """A resource could not be looked at or made; the message says why and what to do."""

    @classmethod
    def of(cls, what: str, error: Exception) -> AdminError:
        """what: begins with the kind of resource. error: a Google client's."""
        detail = str(getattr(error, "message", "") or error)
        if getattr(error, "code", None) in (403, 401):
            role = _ROLES.get(what.split()[0], "the right to use it")
            return cls(f"{what}: {detail}. Remedy: grant the service account {role}.")
        return cls(f"{what}: {detail}")
