"""Any message at all, through the whole bridge: the same `check` that the fuzzer drives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.reading import REASONS, Limits, Message, Reading, parse
from chaos import fuzz, fuzz_forms, fuzz_oracle, fuzz_target
from chaos.fuzz_target import RECEIVED_US, Chain, check

TOPIC = fuzz.TOPIC
RULES = fuzz_oracle.Rules(RECEIVED_US, *fuzz_target.PLANT)


def examples(count: int) -> settings:
    return settings(
        max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Chain() as chain:
        yield chain


# --- topics ---------------------------------------------------------------------------------------

any_text = st.text(st.characters(), max_size=40)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "MOR",
        "x" * 128,
        "x" * 129,
        "😀" * 128,
        " MOR",
        "M\u2003",
        "M\u0085R",
        "\u200b",
        "e\u0301",
        "\udc80",
    ]
)
literal_levels = st.sampled_from(["FCTS"] * 9 + ["fcts", "", "FCTS ", "+"])
near_topics = st.builds(
    lambda first, site, process, tag: f"{first}/FAE/{site}/{process}/{tag}",
    literal_levels,
    names,
    st.sampled_from(["SolvExtract"] * 9 + ["SolvExtract/", "solvextract"]),
    names,
)

# --- payloads -------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = (
    st.integers() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
odd_literals = st.sampled_from(
    [literal.decode("utf-8", "surrogateescape") for literal in (*fuzz.VALUES, *fuzz.FRAGMENTS)]
)
digits = st.text("0123456789", min_size=1, max_size=400)
number_literals = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "-"]),
        st.integers(0, 10**30).map(str) | digits.map(lambda text: text.lstrip("0") or "0"),
        st.just("") | digits.map(lambda text: f".{text}"),
        st.just("") | st.integers(-420, 420).map(lambda power: f"e{power:+}"),
    ),
)
nested = st.builds(
    lambda opening, depth: opening * depth + "1" + {"[": "]", '{"a":': "}"}[opening] * depth,
    st.sampled_from(["[", '{"a":']),
    st.integers(90, 210),
)
escaped = texts.map(lambda text: "".join(f"\\u{unit:04x}" for unit in _units(text)))
literals = (
    odd_literals
    | number_literals
    | nested
    | escaped.map(lambda text: f'"{text}"')
    | json_values.map(lambda value: json.dumps(value, ensure_ascii=False))
)
moments = st.datetimes().map(str)
stamps = st.builds(
    lambda moment, between, places, end: json.dumps(
        moment[:10] + between + moment[11:19] + places + end, ensure_ascii=False
    ),
    moments,
    st.sampled_from(["T", "t", " ", "_", "", "\u2003"]),
    st.just("") | st.text("0123456789", max_size=11).map(lambda text: f".{text}"),
    st.sampled_from(
        ["", "Z", "z", "+00:00", "-00:01", "+23:59", "-23:59", "+24:00", "+0530", "−05:00"]
    ),
)


def _units(text: str) -> list[int]:
    encoded = text.encode("utf-16-be")
    return [
        int.from_bytes(encoded[place : place + 2], "big") for place in range(0, len(encoded), 2)
    ]


@st.composite
def near_readings(draw: st.DrawFn) -> bytes:
    """A reading with odd members, members twice, members missing, in any order."""
    rows = [
        ("site_code", '"MOR"'),
        ("sensor_id", draw(st.just('"S1"') | texts.map(json.dumps))),
        ("timestamp", draw(stamps | number_literals | st.integers(0, 2 * 10**12).map(str))),
        ("value", draw(number_literals)),
    ]
    keys = st.sampled_from(["a", "b", "", "é", "\\u0061", "\\ud83d\\ude00", "valu\\u0065", "value"])
    for _ in range(draw(st.integers(0, 4))):
        row = (draw(keys | escaped), draw(literals))
        rows.insert(draw(st.integers(0, len(rows))), row)
    if draw(st.integers(0, 9)) == 0:
        rows.pop(draw(st.integers(0, len(rows) - 1)))
    space = draw(st.sampled_from(["", " ", "\r\n\t", "\u00a0"]))
    text = "{" + f",{space}".join(f'"{key}":{space}{literal}' for key, literal in rows) + "}"
    return text.encode("utf-8", "surrogateescape")


@examples(100)
@given(topic=any_text | near_topics, payload=st.binary(max_size=60) | near_readings())
@example("FCTS/FAE/MOR/SolvExtract/\udcff", fuzz.payload())  # kept as `\udcff`: no topic to judge
@example("FCTS/FAE/MOR/SolvExtract/T\x00", fuzz.payload())
@example(f"FCTS/FAE/MOR/SolvExtract/{'x' * 65_000}", b"")
def test_any_topic_and_any_bytes_become_a_reading_or_a_dead_letter(
    chain: Chain, topic: str, payload: bytes
) -> None:
    chain.check(topic, payload)


@examples(100)
@given(payload=json_values.map(json.dumps) | literals)
def test_any_json_becomes_a_dead_letter_unless_it_is_a_reading(chain: Chain, payload: str) -> None:
    chain.check(TOPIC, payload.encode("utf-8", "surrogateescape"))


@examples(250)
@given(payload=near_readings())
@example(fuzz.payload(value=b"0." + b"1" * 400))
@example(fuzz.payload(stamp=b"99999999999.99999999"))
@example(fuzz.payload(stamp=b"-1e-400"))
@example(fuzz.payload(further=b', "a": "\\ud800", "a": 1'))
@example(fuzz.payload(further=b', "a": ' + b"9" * 4300))
@example(fuzz.payload(further=b', "a": [' + b",".join([b"1e18"] * 3000) + b"]"))
@example(fuzz.payload(further=b', "a": "' + "😀".encode() * 4000 + b'"'))
@example(fuzz.payload(further=b', "a": "' + b'\\"' * 4000 + b'"'))
@example(fuzz.payload(further=b', "a": "' + b"\x7f\xc2\x85\xe2\x80\xa8" + b'"'))
def test_what_resembles_a_reading_is_judged_as_the_contract_says(
    chain: Chain, payload: bytes
) -> None:
    chain.check(TOPIC, payload)


@examples(100)
@given(site=names, tag=names, sensor=names | texts)
def test_any_names_survive_the_whole_way(chain: Chain, site: str, tag: str, sensor: str) -> None:
    members = {"site_code": site, "sensor_id": sensor, "timestamp": 1_790_000_000, "value": 1}
    chain.check(f"FCTS/FAE/{site}/SolvExtract/{tag}", json.dumps(members).encode())


@examples(150)
@given(stamp=stamps)
def test_timestamps_of_every_form_are_judged_as_the_contract_says(chain: Chain, stamp: str) -> None:
    chain.check(TOPIC, fuzz.payload(stamp=stamp.encode()))


@examples(120)
@given(seed=st.integers(0, 2**32), data=st.sampled_from(fuzz.seeds()))
def test_the_fuzzers_own_mutations_hold(chain: Chain, seed: int, data: bytes) -> None:
    chain.check(*fuzz.split(fuzz.mutated(data, Random(seed))))


def test_the_seeds_are_accepted_and_refused_for_every_reason() -> None:
    with Chain() as chain:
        for seed in fuzz.seeds():
            chain.check(*fuzz.split(seed))
        assert set(chain.outcomes) >= {"accepted", *REASONS}


def test_a_journal_is_begun_anew_before_it_grows_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_target, "MESSAGES_A_JOURNAL", 4)
    with Chain() as chain:
        for _ in range(10):
            chain.check(TOPIC, fuzz.payload())
        assert chain.outcomes["accepted"] == 10


# --- a broken bridge is noticed -------------------------------------------------------------------


def _misjudged(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Have the bridge make a reading that is not what was sent."""

    def wrong(message: Message, limits: Limits) -> Reading:
        found = parse(message, limits)
        assert isinstance(found, Reading)
        return found._replace(**changes)

    monkeypatch.setattr(fuzz_target, "parse", wrong)
    monkeypatch.setattr("bridge.intake.parse", wrong)


@pytest.mark.parametrize(
    "changes",
    [
        {"sensor_id": "S2"},
        {"event_us": 0},
        {"value": 12.500000000000002},
        {"attributes": '{"a":1}'},
        {"event_id": bytes(16)},
        {"received_us": 0},
    ],
)
def test_a_reading_that_says_something_else_is_noticed(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    _misjudged(monkeypatch, **changes)
    with pytest.raises(AssertionError):
        check(TOPIC, fuzz.payload())


@pytest.mark.parametrize("error", [ValueError("odd"), RecursionError()])
def test_an_exception_of_the_judge_is_noticed(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def raising(_message: Message, _limits: Limits) -> Reading:
        raise error

    monkeypatch.setattr(fuzz_target, "parse", raising)
    with pytest.raises(AssertionError, match="was raised"):
        check(TOPIC, fuzz.payload())


@pytest.mark.parametrize(
    ("place", "broken"),
    [
        ("json_row", lambda _reading: {}),
        ("serialized_rows", lambda _batch: [b"\x0a\x01x"]),
        ("estimate", lambda _entry: 100),
        ("letter_json", lambda _letter: b"{}"),
    ],
)
def test_a_form_that_says_something_else_is_noticed(
    monkeypatch: pytest.MonkeyPatch, place: str, broken: object
) -> None:
    monkeypatch.setattr(fuzz_forms, place, broken)
    with pytest.raises(AssertionError):
        check(TOPIC, fuzz.payload())


def test_a_refusal_for_another_reason_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.reading.MAX_NESTING", 99)
    monkeypatch.setattr("bridge.parsing.payload.MAX_NESTING", 99)
    with pytest.raises(AssertionError, match="payload_not_json"):
        check(TOPIC, fuzz.payload(further=b', "a": ' + b"[" * 99 + b"]" * 99))


# --- the oracle -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "outcomes"),
    [
        (fuzz.payload(), {"accepted"}),
        (fuzz.payload(value=b"NaN"), {"payload_not_json"}),
        (b"\xef\xbb\xbf" + fuzz.payload(), {"payload_not_json"}),
        (fuzz.payload(further=b', "a": "\\udfff"'), {"payload_not_json"}),
        (fuzz.payload(further=b', "a": "\\udfff", "a": 1'), {"payload_not_json"}),
        (
            fuzz.payload(further=b', "a": ' + b"[" * 100 + b"]" * 100),
            {"payload_not_json", "accepted"},
        ),
        (fuzz.payload(further=b', "a": "' + b"[" * 300 + b'"'), {"accepted"}),
        (b"[" * 16_000, {"payload_not_json"}),
        (b"\xed\xa0\x80", {"payload_not_utf8"}),
        (b"12", {"payload_not_object"}),
        (b"{}", {"field_missing"}),
        (fuzz.payload(value=b"1e309"), {"field_invalid"}),
        (fuzz.payload(value=b"true"), {"field_invalid"}),
        (fuzz.payload(stamp=b'"2026-02-29T00:00:00"'), {"field_invalid"}),
        (fuzz.payload(stamp=b'"2026-09-21T14:00:00.1234567890"'), {"field_invalid"}),
        (fuzz.payload(stamp=b'"2026-09-21T14:00:00+05:60"'), {"field_invalid"}),
        (fuzz.payload(site=b'"NEV"', stamp=b"0"), {"site_mismatch"}),
        (fuzz.payload(stamp=b"1e300"), {"timestamp_out_of_range"}),
        (fuzz.payload(stamp=b'"9999-12-31T23:59:59-00:01"'), {"timestamp_out_of_range"}),
    ],
)
def test_the_oracle_judges_by_itself(payload: bytes, outcomes: set[str]) -> None:
    assert fuzz_oracle.judge(TOPIC, payload, RULES).outcomes == outcomes


@pytest.mark.parametrize(
    ("stamp", "event_us"),
    [
        (b"1790000000", 1_790_000_000_000_000),
        (b"1790000000123", 1_790_000_000_123_000),
        (b'"2026-09-21T14:13:20.1234569+00:01"', 1_789_999_940_123_456),
        (b'"2026-09-21 14:13:20.5z"', 1_790_000_000_500_000),
    ],
)
def test_the_oracle_reads_the_time_by_itself(stamp: bytes, event_us: int) -> None:
    content = fuzz_oracle.judge(TOPIC, fuzz.payload(stamp=stamp), RULES).content
    assert content is not None
    assert (content.event_us, content.slack_us) == (event_us, 0)


# --- the fuzzer -----------------------------------------------------------------------------------


def test_without_atheris_the_fuzzer_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert fuzz.main([]) == 1
    assert "pip install atheris" in capsys.readouterr().err


def test_an_input_is_topic_and_payload() -> None:
    assert fuzz.split(b"a/b\x00c\x00d") == ("a/b", b"c\x00d")
    assert fuzz.split(b"\x00{}") == (TOPIC, b"{}")
    assert fuzz.split(b"a/\xff") == ("a/\udcff", b"")
