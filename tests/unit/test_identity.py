"""The published form of a reading's identity, with the vectors of docs/identity.md."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.reading import Limits, Reading, event_id
from tests.support.readings import accepted

DOCS = Path(__file__).parents[2] / "docs" / "identity.md"
ALL_TIMES = Limits(max_age_us=2**62, max_future_us=2**62)

WORKED = (
    "00000003" "4d4f52"  # MOR
    "00000006" "46542d313031"  # FT-101
    "00000002" "5331"  # S1
    "00065bfeaa76d800"  # 1789999200000000
    "4029000000000000"  # 12.5
    "00000002" "7b7d"  # {}
)  # fmt: skip

VECTORS = [
    (
        "FCTS/FAE/MOR/SolvExtract/FT-101",
        '{"site_code": "MOR", "sensor_id": "S1", "timestamp": "2026-09-21T14:00:00Z",'
        ' "value": 12.5}',
        "a1a58dfb8eb2a07f80834a07c9d440a0",
    ),
    (
        "FCTS/FAE/MOR/SolvExtract/FT-101",
        '{"site_code": "MOR", "sensor_id": "S1", "timestamp": 1789999200.25,'
        ' "value": -0.0, "unit": "m³/h"}',
        "55fcc0c7ac5f94325316b5bd67d23c44",
    ),
    (
        "FCTS/FAE/Tromsø/SolvExtract/日本 7",
        '{"site_code": "Tromsø", "sensor_id": "a/b", "timestamp": "1969-12-31 23:59:59.999999",'
        ' "value": 1e-3, "quality": {"good": true, "code": 192.0}, "note": "line\\nbreak"}',
        "1092113384626a091a750c388a46ac55",
    ),
    (
        "FCTS/FAE/MOR/SolvExtract/FT-101",
        '{"site_code": "MOR", "sensor_id": "S1", "timestamp": 1789999200123,'
        ' "value": 1e300, "b": [1e22, 0.1, 1e-7], "a": null}',
        "315e84029188faf451cac55599d0962e",
    ),
]


@pytest.mark.parametrize(("topic", "payload", "identity"), VECTORS)
def test_a_published_vector_has_its_published_identity(
    topic: str, payload: str, identity: str
) -> None:
    assert accepted(payload, topic, limits=ALL_TIMES).event_id.hex() == identity
    assert identity in DOCS.read_text(encoding="utf-8")


def test_the_worked_example_is_hashed_from_the_published_bytes() -> None:
    content = bytes.fromhex(WORKED)
    topic, payload, identity = VECTORS[0]
    assert hashlib.blake2b(content, digest_size=16).hexdigest() == identity
    assert accepted(payload, topic).event_id.hex() == identity
    lines = re.findall(
        r"^((?:[0-9a-f]{2} +)+)(?=site|PI|sensor|event|value|attr)",
        DOCS.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert bytes.fromhex("".join(lines)) == content


def test_the_documented_program_prints_the_worked_identity(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    exec(compile(found.group(1), str(DOCS), "exec"), {})
    assert capsys.readouterr().out.strip() == VECTORS[0][2]


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        Reading,
        event_id=st.just(b""),
        site=names,
        pi_tag=names,
        sensor_id=names,
        event_us=st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
        value=st.floats(allow_nan=False, allow_infinity=False),
        received_us=st.integers(0, 2**60),
        attributes=st.none() | names,
    )
)
def test_another_implementation_of_the_published_form_agrees(reading: Reading) -> None:
    assert event_id(reading) == _from_the_docs(reading)


def _from_the_docs(reading: Reading) -> bytes:
    """Written from docs/identity.md alone, with none of the bridge's own means."""
    content = bytearray()
    for part in (reading.site, reading.pi_tag, reading.sensor_id):
        content += len(part.encode("utf-8")).to_bytes(4, "big") + part.encode("utf-8")
    content += reading.event_us.to_bytes(8, "big", signed=True)
    content += _double(reading.value)
    attributes = ("{}" if reading.attributes is None else reading.attributes).encode("utf-8")
    content += len(attributes).to_bytes(4, "big") + attributes
    return hashlib.blake2b(bytes(content), digest_size=16).digest()


def _double(value: float) -> bytes:
    """IEEE 754 binary64, by arithmetic on the exact fraction."""
    if value == 0:
        return bytes(8)
    sign = (1 << 63) if value < 0 else 0
    numerator, denominator = abs(value).as_integer_ratio()
    exponent = -denominator.bit_length() + 1
    while numerator.bit_length() > 53:
        numerator >>= 1
        exponent += 1
    while numerator.bit_length() < 53 and exponent > -1074:
        numerator <<= 1
        exponent -= 1
    biased = exponent + 1075 if numerator.bit_length() == 53 else 0
    mantissa = numerator & ((1 << 52) - 1)
    return (sign | biased << 52 | mantissa).to_bytes(8, "big")


def test_zero_and_minus_zero_are_the_same_value() -> None:
    plain = Reading(b"", "A", "B", "C", 0, 0.0, 0, None)
    assert event_id(plain._replace(value=-0.0)) == event_id(plain)


def test_no_attributes_are_the_same_as_empty_ones() -> None:
    plain = Reading(b"", "A", "B", "C", 0, 0.0, 0, None)
    assert event_id(plain._replace(attributes="{}")) == event_id(plain)
