"""Topics, and the names in them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from bridge.parsing.identity import prefixed
from bridge.parsing.refusal import invalid, quoted

MAX_NAME = 128
MAX_TOPIC = len("FCTS/FAE//SolvExtract/") + 2 * MAX_NAME
_surrogate = re.compile("[\ud800-\udfff]")
_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search


def parse_topic(topic: str) -> tuple[str, str, bytes] | None:
    """Site, PI tag and their bytes in the identity; None for a malformed topic."""
    # Only what can be well formed is remembered: a stranger's long texts would fill the memory.
    return _parsed_topic(topic) if len(topic) <= MAX_TOPIC else None


@lru_cache(maxsize=8192)
def _parsed_topic(topic: str) -> tuple[str, str, bytes] | None:
    levels = topic.split("/")
    if len(levels) != 5 or levels[:2] != ["FCTS", "FAE"] or levels[3] != "SolvExtract":
        return None
    site, tag = levels[2], levels[4]
    if name_problem(site) is not None or name_problem(tag) is not None:
        return None
    return site, tag, prefixed(site) + prefixed(tag)


def topic_problem(topic: str) -> str:
    """Why a topic is malformed, in words."""
    levels = topic.split("/")
    if len(levels) != 5:
        return f"the topic has {len(levels)} levels, not the 5 of FCTS/FAE/<site>/SolvExtract/<tag>"
    for index, wanted in ((0, "FCTS"), (1, "FAE"), (3, "SolvExtract")):
        if levels[index] != wanted:
            return f"level {index + 1} of the topic is {quoted(levels[index])}, not {wanted}"
    if problem := name_problem(levels[2]):
        return f"the topic's site {problem}"
    return f"the topic's PI tag {name_problem(levels[4])}"


def name_problem(text: str) -> str | None:
    """What is wrong with a site, PI tag or sensor id; None when nothing is."""
    if len(text) > MAX_NAME:
        return f"has {len(text)} characters, more than {MAX_NAME}"
    return _short_name_problem(text)


@lru_cache(maxsize=8192)
def _short_name_problem(text: str) -> str | None:
    if not text:
        return "is empty"
    if _surrogate.search(text):
        return "has a lone surrogate, which is no character"
    if found := _control(text):
        return f"has a control character (U+{ord(found.group()):04X})"
    return "begins or ends with white space" if text != text.strip() else None


def storable(topic: str) -> str:
    """The topic as text that a file can hold, whatever the client library made of its bytes."""
    return _surrogate.sub(lambda found: f"\\u{ord(found.group()):04x}", topic)


def name_of(members: dict[str, Any], member: str) -> str:
    text = members[member]
    if not isinstance(text, str):
        invalid(member, text, "is not a string")
    if problem := name_problem(text):
        invalid(member, text, problem)
    return text
