"""Who may log in with a password, in the form of Mosquitto's password file."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from base64 import b64encode

from bridge.errors import ConfigurationError
from container.identity import RESERVED
from container.sources import Secret

LONGEST_NAME = 128  # that the bridge takes for a site's
# What mosquitto_passwd writes: PBKDF2 ($7$, with the number of rounds) or one round ($6$) of
# SHA-512, a salt of 12 or 64 bytes and 64 bytes of hash in base64.
_SALT = r"(?:[A-Za-z0-9+/]{16}|[A-Za-z0-9+/]{86}==)"
_HASH = re.compile(rf"\$(?:6|7\$[1-9][0-9]{{0,6}})\${_SALT}\$[A-Za-z0-9+/]{{86}}==")
_ROUNDS = 101


def parse(secret: Secret) -> dict[str, str]:
    """The hashes by site. Raises ConfigurationError, which shows lines by number alone."""
    users: dict[str, str] = {}
    problems = []
    for number, line in enumerate(secret.text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.rstrip().partition(":")
        problem = _problem(name, hashed, users)
        if problem:
            problems.append(f"line {number} {problem}")
        users[name] = hashed
    if not users:
        problems.append("there is no user in it")
    if problems:
        raise ConfigurationError(
            f"{secret.variable}: {'; '.join(problems)}. Remedy: give each site one line that "
            "`mosquitto_passwd` made: <site>:$7$<rounds>$<salt>$<hash>."
        )
    return users


def _problem(name: str, hashed: str, others: dict[str, str]) -> str | None:
    if not is_site(name):
        return (
            "does not begin with a site's name and a colon (1-128 characters without control "
            "characters, white space at the ends, +, #, / and :)"
        )
    if name.startswith(RESERVED):
        return f"takes a name of the bridge's own ({RESERVED}…)"
    if name in others:
        return "repeats the name of an earlier line"
    if not _HASH.fullmatch(hashed):
        return "has no hash of mosquitto_passwd after the name, or a password in plain text"
    return None


def is_site(name: str) -> bool:
    """Whether it is a site's name that a user of Mosquitto may have."""
    return (
        0 < len(name) <= LONGEST_NAME
        and name == name.strip()
        and not any(char in "+#/:" or unicodedata.category(char) == "Cc" for char in name)
    )


def hashed(password: str) -> str:
    """As mosquitto_passwd would write it, which wants to see the password on its command line or
    a terminal. Few rounds: enough for a password of full entropy."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def password_file(users: dict[str, str]) -> str:
    return "".join(f"{name}:{hashed}\n" for name, hashed in users.items())
