"""Look for a message that breaks a promise, guided by which code each one reaches.

    python -m chaos.fuzz [libFuzzer's options] [directory to keep the corpus in]
    python -m chaos.fuzz crash-…           # one input again
    TMPDIR=/dev/shm python -m chaos.fuzz -max_total_time=600

Needs atheris (`pip install atheris`), which nothing else of the project does. An input is the
topic, a zero byte, and the payload; without a topic it goes to a well-formed one. On a broken
promise the input is printed and written to `crash-…`, and the process exits with an error.
"""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import re
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

ABSENT = (
    "atheris is not installed: `pip install atheris` in an environment that has the bridge's "
    "requirements as well, then run this again"
)
TELL_EVERY = 10_000  # inputs
JOURNAL_EVERY = 8  # messages
INSTRUMENTED = [
    "bridge.parsing",
    "bridge.reading",
    "bridge.times",
    "bridge.policy",
    "bridge.journal.letters",
    "chaos.fuzz_oracle",
]
TOPIC = "FCTS/FAE/MOR/SolvExtract/FT-101"
TIME = b'"2026-09-21T14:00:00Z"'
# What is no JSON, or only a part of it.
FRAGMENTS = (
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b" ", b"\n", b"\xc2\xa0", b"\x00", b"\xef\xbb\xbf"),
    *(b"NaN", b"Infinity", b"-Infinity", b"01", b"1.", b"+1", b".5", b"0x1", b"1_0", b"'x'"),
    *(
        b'"\\ud800"',
        b'"\\udc00\\ud83d"',
        b'"\\x"',
        b'"\\u12"',
        b'"\n"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
    ),
    *(b'"\xff"', b"[" * 101, b"]" * 101, b"[" * 150 + b"]" * 150, b"[" * 201 + b"]" * 201),
)
NAMES = (
    *(b'"site_code"', b'"sensor_id"', b'"timestamp"', b'"value"', b'"valu\\u0065"', b'"Value"'),
    *(
        b'"a"',
        b'"b"',
        b'""',
        b'"\xc3\xa9"',
        b'"\\ud83d\\ude00"',
        b'"\xf0\x9f\x98\x80"',
        b'"\\u0000"',
    ),
)
VALUES = (
    *(b"true", b"false", b"null", b"{}", b"[]", b'""', b'"NaN"', b'"\\/"', b'"\x7f"', b'" x"'),
    *(b'"MOR"', b'"S1"', b'"\\u0053\\u0031"', b'"\xe6\x97\xa5"', b'"\xe2\x80\xa8"', b'"\\u0085"'),
    *(b"0", b"-0", b"-0.0", b"1e5", b"1E400", b"1e-400", b"12.50", b"5e-324", b"0.1e1", b"-1"),
    *(b"9007199254740993", b"9223372036854775808", b"18446744073709551616", b"1e18", b"1e22"),
    *(b"1.7976931348623157e308", b"1.7976931348623159e308", b"2.2250738585072011e-308"),
    *(b"9" * 309, b"-" + b"9" * 4300, b"9" * 4301, b"0." + b"1" * 400, b'"' + b"x" * 129 + b'"'),
    *(b"1790000000", b"1790000000.25", b"1790000000123", b"99999999999.5", b"100000000000"),
    *(b"253402300799", b"253402300800", b"-62135596800", b"-62135596801", b"-1e-7"),
    *(TIME, b'"2026-09-21 14:00:00.123456789+05:30"', b'"2026-09-21t14:00:00.1z"'),
    *(b'"0001-01-01T00:00:00+00:01"', b'"9999-12-31T23:59:59.999999-23:59"', b'"2026-09-21"'),
    *(b'"2024-02-29T23:59:60Z"', b'"2026-02-29T00:00:00Z"', b'"2026-09-21T24:00:00Z"'),
)
TOPICS = (
    b"",
    b"FCTS/FAE/MOR/SolvExtract",
    b"FCTS/FAE/M\xc3\xbcr/SolvExtract/T",
    b"FCTS/FAE/MOR /SolvExtract/T",
    b"FCTS/FAE//SolvExtract/T",
    b"FCTS/FAE/\xf0\x9f\x98\x80/SolvExtract/\xe6\x97\xa5\xe6\x9c\xac",
    b"FCTS/FAE/MOR/SolvExtract/\xff",
    b"FCTS/FAE/MOR/SolvExtract/\x01",
    b"fcts/FAE/MOR/SolvExtract/T",
)
_tokens = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s\[\]{}:,"]+|\s+|"', re.DOTALL).findall


def payload(
    site: bytes = b'"MOR"', stamp: bytes = TIME, value: bytes = b"12.5", further: bytes = b""
) -> bytes:
    """A reading as a sensor sends it, with literals exchanged."""
    head = b'{"site_code": ' + site + b', "sensor_id": "S1", "timestamp": ' + stamp
    return head + b', "value": ' + value + further + b"}"


def seeds() -> list[bytes]:
    """Inputs to begin with: typical ones, and one for each way to be refused."""
    payloads = [
        payload(),
        payload(stamp=b"1790000000"),
        payload(stamp=b"1790000000123.25"),
        payload(stamp=b'"2026-09-21 14:00:00.123456789+05:30"'),
        payload(stamp=b'"0001-01-01T00:00:00Z"', value=b"-0.0"),
        payload(value=b"123456789012345678901234567890"),
        payload(further=b', "unit": "m\xc2\xb3/h", "quality": {"good": true, "code": 192.0}'),
        payload(further=b', "a": [[[1e18, -0, 1e-7, null]]], "a": {"": "\\ud83d\\ude00\\u0000"}'),
        payload(further=b', "deep": ' + b"[" * 99 + b"]" * 99),
        payload(further=b', "v": 1e999'),
        payload(site=b'"NEV"'),
        payload(value=b'"Bad Input"'),
        payload(value=b"NaN"),
        b'{"site_code": "MOR"}',
        b'[12.5, "x"]',
        b'{"a": "\\ud800"}',
        b"\xff\xfe{}",
        b"",
        b"x" * 16_400,
    ]
    strange = [topic + b"\x00" + payload() for topic in TOPICS[1:]]
    return [b"\x00" + content for content in payloads] + strange


def split(data: bytes) -> tuple[str, bytes]:
    """An input's topic, as the subscriber makes it of a broker's bytes, and its payload."""
    topic, _, content = data.partition(b"\x00")
    return topic.decode("utf-8", "surrogateescape") or TOPIC, content


def mutated(data: bytes, random: Random) -> bytes:
    """An input with another topic, or with another payload."""
    topic, _, content = data.partition(b"\x00")
    if random.randrange(16) == 0:
        return random.choice(TOPICS) + b"\x00" + content
    tokens = _tokens(content)
    for _ in range(random.randint(1, 3)):
        kind = random.randrange(12)
        if kind == 0:
            _break(tokens, random)
        elif kind < 5:
            _add_member(tokens, random)
        else:
            _exchange_value(tokens, random)
    return topic + b"\x00" + b"".join(tokens)


def _break(tokens: list[bytes], random: Random) -> None:
    """Put a fragment, or a part of the payload, in the place of up to two tokens."""
    place = random.randint(0, len(tokens))
    start = random.randint(0, len(tokens))
    part = [random.choice(FRAGMENTS)], tokens[start : start + random.randint(0, 8)]
    tokens[place : place + random.randint(0, 2)] = random.choice(part)


def _add_member(tokens: list[bytes], random: Random) -> None:
    """Before one that is there: one added last would win over the first of the same name."""
    places = [place for place, token in enumerate(tokens, 1) if token == b"{"]
    if places:
        member = [random.choice(NAMES), b":", _value(random), b","]
        place = random.choice(places)
        tokens[place:place] = member


def _exchange_value(tokens: list[bytes], random: Random) -> None:
    places = [
        place
        for place, token in enumerate(tokens)
        if token.strip(b"[]{}:, \t\r\n") and tokens[place + 1 : place + 2] != [b":"]
    ]
    if places:
        tokens[random.choice(places)] = _value(random)


def _value(random: Random, depth: int = 3) -> bytes:
    kind = random.randrange(8) if depth else 7
    if kind == 0:
        return b"[" + b",".join(_value(random, depth - 1) for _ in range(3)) + b"]"
    if kind == 1:
        rows = [random.choice(NAMES) + b":" + _value(random, depth - 1) for _ in range(3)]
        return b"{" + b",".join(rows) + b"}"
    return random.choice(VALUES)


def main(arguments: list[str]) -> int:
    """Fuzz until a bound of the options is reached or a promise is broken. Answers the exit code.
    libFuzzer ends the process it runs in: a child, so that its files are removed behind it."""
    if importlib.util.find_spec("atheris") is None:
        print(ABSENT, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        options = _with_seeds(arguments, Path(scratch))
        child = multiprocessing.get_context("fork").Process(
            target=_fuzz, args=(options, Path(scratch))
        )
        child.start()
        child.join()
    return abs(child.exitcode or 0)


def _fuzz(options: list[str], scratch: Path) -> None:
    atheris: Any = importlib.import_module("atheris")
    logging.disable()  # a refused message is a line otherwise
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        target = importlib.import_module("chaos.fuzz_target")

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.randrange(6) == 0:
            return bytes(atheris.Mutate(data, size))
        return mutated(data, random)[:size]

    with target.Chain(scratch, JOURNAL_EVERY) as chain:
        atheris.Setup([sys.argv[0], *options], _one_input(chain), custom_mutator=mutate)
        atheris.Fuzz()


def _one_input(chain: Any) -> Callable[[bytes], None]:
    inputs = count(1)

    def one_input(data: bytes) -> None:
        topic, content = split(data)
        try:
            chain.check(topic, content)
        except BaseException:
            print(f"\ntopic:   {topic!r}\npayload: {content!r}", file=sys.stderr)
            raise
        if next(inputs) % TELL_EVERY == 0:
            print(f"outcomes: {dict(chain.outcomes.most_common())}", file=sys.stderr)

    return one_input


def _with_seeds(arguments: list[str], scratch: Path) -> list[str]:
    """libFuzzer's arguments: with seeds, unless files are named to be run again."""
    if any(Path(argument).is_file() for argument in arguments):
        return arguments
    corpus = scratch / "seeds"
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number:02}").write_bytes(seed)
    kept = [argument for argument in arguments if not argument.startswith("-")]
    options = [argument for argument in arguments if argument.startswith("-")]
    return ["-max_len=17000", "-mutate_depth=1", *options, *kept, str(corpus)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
