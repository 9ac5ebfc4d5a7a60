from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from bridge.cli.readings import Sample
from bridge.cli.recorded import RecordingUnusable, extent, replayed
from bridge.times import iso_us
from tests.support.waiting_clock import WaitingClock

HEADER = "timestamp,site_code,pi_tag,sensor_id,value\n"
MINUTE = (
    "2020-03-09T10:14:00Z,SKAB,Flow,FT-1,0.0265878\n"
    "2020-03-09T10:14:30Z,SKAB,Pressure,PT-1,-1.50\n"
    "2020-03-09T10:15:00Z,SKAB,Flow,FT-1,3E-2\n"
)


def recording(folder: Path, text: str) -> Path:
    path = folder / "recording.csv"
    path.write_text(text, encoding="utf-8")
    return path


def replay(path: Path, speed: float, clock: WaitingClock) -> list[tuple[float, Sample]]:
    """Each sample with the seconds after the start at which it was due."""
    asked: list[float] = []

    def due(seconds: float) -> bool:
        asked.append(seconds)
        return True

    samples = list(replayed(path, extent(path), speed, due, clock))
    return list(zip(asked, samples, strict=True))


def seconds_from_start(sample: Sample, clock: WaitingClock) -> float:
    return datetime.fromisoformat(sample.timestamp).timestamp() - clock.now_us() / 1e6


def values(folder: Path, *texts: str) -> list[str]:
    lines = "".join(f"2020-03-09T10:14:00Z,SKAB,Flow,FT-1,{text}\n" for text in texts)
    replayed_ones = replay(recording(folder, HEADER + lines), 0, WaitingClock())
    return [sample.value for _, sample in replayed_ones]


def test_at_its_own_pace_each_reading_is_timed_at_the_moment_of_sending_it(tmp_path: Path) -> None:
    clock = WaitingClock()
    sent = replay(recording(tmp_path, HEADER + MINUTE), 1, clock)
    assert [due for due, _ in sent] == [0, 30, 60]
    assert [seconds_from_start(sample, clock) for _, sample in sent] == pytest.approx([0, 30, 60])


def test_faster_the_last_reading_is_timed_at_the_moment_of_sending_it(tmp_path: Path) -> None:
    clock = WaitingClock()
    sent = replay(recording(tmp_path, HEADER + MINUTE), 10, clock)
    assert [due for due, _ in sent] == [0, 3, 6]
    times = [seconds_from_start(sample, clock) for _, sample in sent]
    assert times == pytest.approx([-54, -24, 6])


def test_as_fast_as_possible_the_last_reading_is_timed_now(tmp_path: Path) -> None:
    clock = WaitingClock()
    sent = replay(recording(tmp_path, HEADER + MINUTE), 0, clock)
    assert [due for due, _ in sent] == [0, 0, 0]
    times = [seconds_from_start(sample, clock) for _, sample in sent]
    assert times == pytest.approx([-60, -30, 0])


def test_slower_the_first_reading_is_timed_at_the_start_and_none_is_ahead(tmp_path: Path) -> None:
    clock = WaitingClock()
    sent = replay(recording(tmp_path, HEADER + MINUTE), 0.5, clock)
    assert [due for due, _ in sent] == [0, 60, 120]
    times = [seconds_from_start(sample, clock) for _, sample in sent]
    assert times == pytest.approx([0, 30, 60])


def test_a_number_is_sent_with_the_digits_of_the_file(tmp_path: Path) -> None:
    assert values(tmp_path, "0.0265878", "-1.50", "3E-2", "7") == [
        "0.0265878",
        "-1.50",
        "3E-2",
        "7",
    ]


def test_a_text_that_is_no_json_number_is_sent_as_a_string(tmp_path: Path) -> None:
    texts = ("Bad Input", "NaN", "true", "+1", "01", ".5", "", " 1")
    assert [json.loads(value) for value in values(tmp_path, *texts)] == list(texts)


def test_the_payload_is_the_reading_of_the_line(tmp_path: Path) -> None:
    clock = WaitingClock()
    _, sample = replay(recording(tmp_path, HEADER + MINUTE), 1, clock)[0]
    assert sample.topic == "FCTS/FAE/SKAB/SolvExtract/Flow"
    assert json.loads(sample.payload) == {
        "site_code": "SKAB",
        "sensor_id": "FT-1",
        "timestamp": iso_us(clock.now_us()),
        "value": 0.0265878,
    }


def test_the_replay_ends_when_the_run_is_over(tmp_path: Path) -> None:
    path = recording(tmp_path, HEADER + MINUTE)
    sent = list(replayed(path, extent(path), 1, lambda seconds: seconds < 30, WaitingClock()))
    assert len(sent) == 1


def test_the_extent_counts_the_readings_and_finds_the_ends_in_any_order(tmp_path: Path) -> None:
    lines = "".join(reversed(MINUTE.splitlines(keepends=True)))
    whole = extent(recording(tmp_path, "\ufeff" + HEADER + lines))
    assert whole.readings == 3
    assert whole.last_us - whole.first_us == 60_000_000


def test_a_time_without_an_offset_is_utc_and_further_columns_are_left_out(tmp_path: Path) -> None:
    zoned = "timestamp,site_code,pi_tag,sensor_id,value,note\n2020-03-09T12:00:00+02:00,A,T,S,1,x\n"
    plain = HEADER + "2020-03-09 10:00:00,A,T,S,1\n"
    assert extent(recording(tmp_path, zoned)) == extent(recording(tmp_path, plain))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER, "holds no reading"),
        ("", "no column timestamp"),
        ("timestamp,site_code,value\n", "no column pi_tag, sensor_id"),
        (HEADER + MINUTE + "09-Mar-20,SKAB,Flow,FT-1,1\n", "line 5: timestamp '09-Mar-20'"),
        (HEADER + "2020-03-09T10:14:00Z,,Flow,FT-1,1\n", "line 2: site_code is empty"),
        (HEADER + "2020-03-09T10:14:00Z,SKAB,A/B,FT-1,1\n", "cannot be levels of a topic"),
        (HEADER + "2020-03-09T10:14:00Z,SKAB\n", "line 2: pi_tag is empty"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_with_its_line(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(RecordingUnusable, match=r"recording\.csv") as refused:
        extent(recording(tmp_path, text))
    assert words in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(HEADER.encode() + "2020-03-09T10:14:00Z,Mórenci,F,S,1\n".encode("latin-1"))
    with pytest.raises(RecordingUnusable, match="utf-8"):
        extent(path)
