"""Logging: the two forms of a line, repetitions, and outputs that are slow, stuck or gone."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

import pytest

from bridge.intake import Intake
from bridge.log_output import MAX_CHARACTERS, Output
from bridge.logs import THIRD_PARTY, LogHandler, RateLimit, setup
from bridge.reading import Limits, Message
from tests.support.clock import ManualClock
from tests.support.journals import new_journal

ROOT = Path(__file__).parents[2]
log = logging.getLogger("bridge.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Stuck(io.StringIO):
    """A reader that has stopped reading, until `release`."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()
        self.reached = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.release.wait(30)
        return super().write(text)


class Failing(io.StringIO):
    """A disk that is full, until `room` is true."""

    room = False

    def write(self, text: str) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(text)


class NoText:
    """Whatever is asked of it goes wrong."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    names = ("", "bridge.test", "waitress.queue", *THIRD_PARTY)
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for handler in [handler for handler in root.handlers if isinstance(handler, LogHandler)]:
        root.removeHandler(handler)
        handler.close()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)


GARBAGE = Message("FCTS/FAE/MOR/SolvExtract/SX1-FLOW", b"garbage", 1_790_000_000_000_000)
OFF_TOPIC = GARBAGE._replace(topic="FCTS/FAE")


def begin(
    level: str,
    fmt: Literal["auto", "json", "text"],
    stream: TextIO,
    clock: ManualClock | None = None,
) -> LogHandler:
    """Set up, and without pytest's own handlers, which fail where ours must not."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if not isinstance(handler, LogHandler)]:
        root.removeHandler(handler)
    return setup(level, fmt, stream, clock or ManualClock())


def written(stream: io.StringIO, handler: LogHandler) -> list[str]:
    handler.flush()
    return stream.getvalue().splitlines()


def json_lines(act: Callable[[], None], level: str = "INFO") -> list[dict[str, Any]]:
    stream = io.StringIO()
    handler = begin(level, "json", stream)
    act()
    return [json.loads(line) for line in written(stream, handler)]


def json_line(act: Callable[[], None]) -> dict[str, Any]:
    (line,) = json_lines(act)
    return line


def text(act: Callable[[], None]) -> str:
    stream = io.StringIO()
    handler = begin("INFO", "text", stream)
    act()
    handler.flush()
    return stream.getvalue()


# The form of a line


def test_a_json_line_has_severity_message_time_and_fields() -> None:
    line = json_line(lambda: log.info("settled %d", 7, extra={"fields": {"sink": "pubsub"}}))
    assert line["severity"] == "INFO"
    assert line["message"] == "settled 7"
    assert line["sink"] == "pubsub"
    assert line["logger"] == "bridge.test"
    assert len(line["time"]) == len("2026-11-21T03:00:00.123456Z")
    assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (20, "INFO"),
        (25, "INFO"),
        (30, "WARNING"),
        (40, "ERROR"),
        (50, "CRITICAL"),
        (60, "CRITICAL"),
    ],
)
def test_every_level_has_a_severity_that_google_knows(level: int, severity: str) -> None:
    assert json_line(lambda: log.log(level, "x"))["severity"] == severity


def test_a_warning_says_where_it_came_from() -> None:
    place = json_line(lambda: log.warning("x"))["logging.googleapis.com/sourceLocation"]
    assert place["file"] == __file__
    assert place["line"].isdigit()


def test_fields_never_overwrite_the_lines_own_members() -> None:
    fields = {"message": "mine", "severity": "mine", "time": 1, "message_": "also"}
    line = json_line(lambda: log.info("hers", extra={"fields": fields}))
    assert line["message"] == "hers"
    assert line["severity"] == "INFO"
    assert line["message_"] == "mine"
    assert line["message__"] == "also"
    assert line["severity_"] == "mine"
    assert line["time_"] == 1


def test_an_exception_ends_the_message_with_its_trace() -> None:
    def fail() -> None:
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("it failed")

    message = json_line(fail)["message"]
    assert message.startswith("it failed\nTraceback (most recent call last):\n")
    assert message.endswith("ValueError: broken")
    assert "  ValueError: broken\n" in text(fail)


def test_a_text_line_reads_time_level_message_fields() -> None:
    fields = {"sink": "pubsub", "count": 3, "why": "not now", "empty": "", "none": None}
    line = text(lambda: log.warning("late", extra={"fields": fields}))
    time_of_day, rest = line.split(" ", 1)
    assert len(time_of_day) == len("2026-11-21T03:00:00.123Z")
    assert rest == 'WARNING late sink=pubsub count=3 why="not now" empty="" none=null\n'


def test_a_text_line_names_the_logger_of_others() -> None:
    line = text(lambda: logging.getLogger("waitress").warning("deep"))
    assert line.endswith("WARNING deep logger=waitress\n")


def test_a_request_that_waits_for_a_moment_is_no_warning() -> None:
    assert text(lambda: logging.getLogger("waitress.queue").warning("depth is 1")) == ""


def test_text_from_outside_cannot_pass_for_a_line_or_steer_a_terminal() -> None:
    line = text(lambda: log.info("site %s", "A\n2026 ERROR forged\r\x1b[2J\u202e\x85"))
    assert line.count("\n") == 2
    assert "\n  2026 ERROR forged" in line
    assert "\\r\\x1b[2J\\u202e\\x85" in line


@pytest.mark.parametrize(
    "value",
    [
        "\udcff lone",
        b"\xff\x00bytes",
        2**70,
        float("nan"),
        float("inf"),
        {1: {2, 3}},
        {("a", 1): object()},
        NoText(),
        [NoText()],
        {NoText(): "\udcff"},
        ValueError("x"),
        Path("x"),
        lambda: None,
    ],
)
def test_no_value_is_too_odd_to_be_logged(value: object) -> None:
    def both() -> None:
        log.info("message %s", value, extra={"fields": {"value": value, "beside": 1}})

    line = json_line(both)
    assert line["message"].startswith("message")
    assert line["beside"] == 1
    assert "value" in line
    assert " message" in text(both)


def test_a_circle_in_a_field_is_logged_as_far_as_it_goes() -> None:
    circle: list[object] = ["in"]
    circle.append(circle)
    assert json_line(lambda: log.info("x", extra={"fields": {"c": circle}}))["c"][0] == "in"


@pytest.mark.parametrize("fields", [5, None, ["a"], "text"])
def test_fields_that_are_no_mapping_are_logged_all_the_same(fields: object) -> None:
    assert json_line(lambda: log.info("x", extra={"fields": fields}))["fields"] == fields


def test_a_field_name_need_not_be_text() -> None:
    assert json_line(lambda: log.info("x", extra={"fields": {7: "seven"}}))["7"] == "seven"


def test_arguments_that_do_not_fit_leave_the_template() -> None:
    message = json_line(lambda: log.info("%d of %d", "one"))["message"]
    assert message == "%d of %d (arguments that do not fit: TypeError)"


def test_a_message_that_is_no_text_and_has_none_is_named_by_its_type() -> None:
    assert json_line(lambda: log.info(NoText()))["message"].startswith("NoText")


def test_an_endless_message_is_cut_and_says_so() -> None:
    message = json_line(lambda: log.info("x" * 300_000))["message"]
    assert len(message) < 101_000
    assert message.endswith("(200000 characters more)")


# Set-up


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    handler = begin("INFO", "auto", terminal)
    log.info("hello")
    assert written(terminal, handler)[0].endswith("INFO    hello")
    handler = begin("INFO", "auto", pipe)
    log.info("hello")
    assert json.loads(written(pipe, handler)[0])["message"] == "hello"


def test_a_second_set_up_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    old = begin("INFO", "text", first)
    handler = begin("INFO", "text", second)
    log.info("once")
    assert len(written(second, handler)) == 1
    assert written(first, old) == []


@pytest.mark.parametrize("name", THIRD_PARTY)
def test_libraries_are_heard_from_warnings_on(name: str) -> None:
    def talk() -> None:
        logging.getLogger(f"{name}.inner").info("chatter")
        logging.getLogger(f"{name}.inner").warning("trouble")

    assert [line["message"] for line in json_lines(talk)] == ["trouble"]
    assert [line["message"] for line in json_lines(talk, "DEBUG")] == ["chatter", "trouble"]
    assert json_lines(talk, "ERROR") == []


def test_the_level_holds_back_what_is_below_it() -> None:
    def talk() -> None:
        log.info("quiet")
        log.warning("loud")

    assert [line["message"] for line in json_lines(talk, "WARNING")] == ["loud"]


def test_pythons_own_warnings_become_log_lines() -> None:
    def warn() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(False)
            logging.captureWarnings(True)
            warnings.warn("old ways", DeprecationWarning, stacklevel=1)

    assert "old ways" in json_line(warn)["message"]


# Repetitions


class Limited:
    """A log with a clock of its own."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.clock = ManualClock()
        self.handler = begin("INFO", "json", self.stream, self.clock)

    def messages(self) -> list[str]:
        self.handler._output.drain(10)
        return [json.loads(line)["message"] for line in self.stream.getvalue().splitlines()]


def test_a_repeated_warning_passes_once_in_thirty_seconds_with_the_count() -> None:
    limited = Limited()
    for number in range(413):
        log.warning("queue depth %d", number)
    assert limited.messages() == ["queue depth 0"]
    limited.clock.pass_(30)
    log.warning("queue depth %d", 999)
    assert limited.messages()[1:] == ["queue depth 999 (repeated 412 times in 30 s)"]


def test_a_sensor_that_sends_a_hundred_bad_messages_a_second_writes_two_lines_a_minute(
    tmp_path: Path,
) -> None:
    limited = Limited()
    journal = new_journal(tmp_path / "journal.db", clock=limited.clock)
    intake = Intake(journal, Limits())
    for _ in range(60):
        intake.take([GARBAGE] * 100)
        limited.clock.pass_(1)
    intake.take([OFF_TOPIC])
    journal.close()
    told = [line for line in limited.messages() if line.startswith("a message was refused")]
    counted = "repeated 2999 times in 30 s)"
    assert [line.partition(" (")[2] for line in told] == ["", counted, counted, ""]


def test_after_the_count_is_told_it_starts_again() -> None:
    limited = Limited()
    for _ in range(3):
        log.error("x")
        log.error("x")
        limited.clock.pass_(31)
    assert limited.messages() == [
        "x",
        "x (repeated 1 times in 31 s)",
        "x (repeated 1 times in 31 s)",
    ]


def test_template_level_and_logger_make_messages_differ() -> None:
    limited = Limited()
    log.warning("a")
    log.error("a")
    log.warning("b")
    logging.getLogger("bridge.other").warning("a")
    assert limited.messages() == ["a", "a", "b", "a"]


def test_information_is_never_held_back() -> None:
    limited = Limited()
    for _ in range(3):
        log.info("x")
    assert limited.messages() == ["x", "x", "x"]


def test_one_kind_of_trouble_does_not_hide_another_behind_the_same_words() -> None:
    limited = Limited()
    for _ in range(3):
        for sink in ("pubsub", "bigquery"):
            log.warning("it fails", extra={"apart": sink, "fields": {"sink": sink}})
    limited.handler.flush()
    lines = [json.loads(line) for line in limited.stream.getvalue().splitlines()]
    assert [(line["sink"], line["message"]) for line in lines] == [
        ("pubsub", "it fails"),
        ("bigquery", "it fails"),
        ("pubsub", "it fails (repeated 2 times in 0 s)"),
        ("bigquery", "it fails (repeated 2 times in 0 s)"),
    ]


def test_information_that_comes_for_each_lane_is_held_back_as_well() -> None:
    limited = Limited()
    for lane in range(200):
        log.info("it works again", extra={"apart": "pubsub", "fields": {"lane": str(lane)}})
    assert limited.messages() == ["it works again"]


def test_a_record_may_ask_to_be_shown_every_time() -> None:
    limited = Limited()
    for _ in range(3):
        log.error("x", extra={"every": True})
    assert limited.messages() == ["x", "x", "x"]


def test_a_flush_tells_the_counts_that_no_next_message_came_for() -> None:
    limited = Limited()
    for _ in range(5):
        log.warning("100 %% of %s", "it")
    limited.clock.pass_(3)
    limited.handler.flush()
    assert limited.messages() == ["100 % of it", "100 % of it (repeated 4 times in 3 s)"]
    limited.handler.flush()
    assert len(limited.messages()) == 2


def test_any_later_record_brings_the_counts_whose_time_is_over() -> None:
    limited = Limited()
    log.warning("x")
    log.warning("x")
    limited.clock.pass_(31)
    log.info("life goes on")
    assert limited.messages() == ["x", "x (repeated 1 times in 31 s)", "life goes on"]


def test_the_number_of_remembered_messages_is_bounded_and_no_count_is_lost() -> None:
    limit = RateLimit(ManualClock(), keys=3)

    def passes(message: str) -> bool:
        return limit.filter(logging.LogRecord("n", 30, "", 0, message, None, None))

    assert [passes("a"), passes("a")] == [True, False]
    for number in range(10):
        assert passes(f"m{number}")
    assert len(limit._seen) == 3
    assert [late.getMessage() for late in limit.overdue()] == ["a (repeated 1 times in 0 s)"]
    assert limit.overdue() == []


# Outputs


def outcome(lost: int) -> str:
    return f"lost {lost}"


def test_a_stuck_output_makes_a_thread_wait_once_and_then_counts() -> None:
    stream = Stuck()
    output = Output(stream, outcome, max_lines=2, patience=0.2)
    output.put("first")
    assert stream.reached.wait(10)
    began = time.monotonic()
    for number in range(50):
        output.put(str(number))
    assert 0.15 < time.monotonic() - began < 5
    assert not output.drain(0.01)
    stream.release.set()
    assert output.drain(10)
    assert stream.getvalue().split("\n") == ["first", "lost 48", "0", "1", ""]


def test_a_slow_output_loses_nothing() -> None:
    class Slow(io.StringIO):
        def write(self, text: str) -> int:
            threading.Event().wait(0.002)
            return super().write(text)

    stream = Slow()
    output = Output(stream, outcome, max_lines=2, patience=10)
    for number in range(100):
        output.put(str(number))
    assert output.drain(10)
    assert stream.getvalue().split() == [str(number) for number in range(100)]


def test_lines_that_a_full_disk_refused_are_counted_and_told_later() -> None:
    stream = Failing()
    output = Output(stream, outcome)
    for _ in range(3):
        output.put("x")
        assert output.drain(10)
    stream.room = True
    output.put("y")
    assert output.drain(10)
    assert stream.getvalue() == "lost 3\ny\n"


def test_a_queue_of_long_lines_is_bounded_by_their_length() -> None:
    stream = Stuck()
    output = Output(stream, outcome, patience=0.01)
    for _ in range(300):
        output.put("x" * 100_000)
    stream.release.set()
    assert output.drain(30)
    output.put("y")  # at the latest, the loss is told before the next line
    assert output.drain(30)
    assert len(stream.getvalue()) < MAX_CHARACTERS + 200_000
    assert "lost " in stream.getvalue()


@pytest.mark.parametrize(("taken", "lost"), [(0, 3), (4, 3), (6, 2), (7, 2), (16, 1)])
def test_of_a_batch_cut_short_the_lines_that_did_not_get_through_whole_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int, lost: int
) -> None:
    real = os.write
    room = [taken]

    def write(descriptor: int, data: memoryview) -> int:
        if not room:
            return real(descriptor, data)
        if room[0] == 0:
            room.pop()
            raise OSError(errno.ENOSPC, "full")
        written = real(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr("bridge.log_output.os.write", write)
    with open(tmp_path / "log", "w", encoding="utf-8") as stream:
        output = Output(stream, outcome)
        with output._changed:
            for line in ("one 1", "two 2", "six 6"):
                output.put(line)
        assert output.drain(10)
        output.put("later")
        assert output.drain(10)
    shown = (tmp_path / "log").read_text().split("\n")
    assert shown[-2] == "later"
    assert (f"lost {lost}" in shown) == (lost > 0)
    assert len([line for line in shown if line in ("one 1", "two 2", "six 6")]) == 3 - lost


def test_a_closed_stream_harms_nobody() -> None:
    stream = io.StringIO()
    handler = begin("INFO", "text", stream)
    stream.close()
    log.info("into the void")
    handler.flush()


def test_a_signal_handler_may_log_while_its_thread_is_logging() -> None:
    stream = io.StringIO()
    output = Output(stream, outcome)
    with output._changed:  # where a signal would interrupt `put`
        output.put("from the handler")
    assert output.drain(10)
    assert stream.getvalue() == "from the handler\n"


def test_the_loss_is_told_in_the_form_of_the_log() -> None:
    stream = Failing()
    handler = begin("INFO", "json", stream)
    log.info("x")
    handler.flush()
    stream.room = True
    log.info("y")
    lines = [json.loads(line) for line in written(stream, handler)]
    assert [line["severity"] for line in lines] == ["ERROR", "INFO"]
    assert lines[0]["message"].startswith("1 log lines are lost: the output did not take them")


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8") as stream:
        yield reading, stream
    os.close(reading)


def test_a_line_longer_than_a_pipe_holds_arrives_whole(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    os.set_blocking(stream.fileno(), False)  # as a shared terminal may be
    output = Output(stream, outcome)
    output.put("x" * 200_000)
    received = b""
    while not received.endswith(b"\n"):
        received += os.read(reading, 65_536)
    assert received == b"x" * 200_000 + b"\n"


def test_an_output_in_another_encoding_spells_out_what_it_lacks(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w", encoding="ascii") as stream:
        output = Output(stream, outcome)
        output.put("Süd")
        assert output.drain(10)
    assert (tmp_path / "log").read_bytes() == b"S\\xfcd\n"


PROGRAM = """
import logging, sys
from bridge.logs import setup
setup("INFO", "json")
for number in range({lines}):
    logging.getLogger("bridge").info("line %d", number)
sys.exit(75)
"""


def program(lines: int) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(lines=lines)]


def test_everything_is_written_at_a_regular_exit() -> None:
    done = subprocess.run(program(5000), cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 75
    assert done.stdout.count(b"\n") == 5000


def test_a_reader_that_has_gone_does_not_change_the_exit_code() -> None:
    process = subprocess.Popen(
        program(2000), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 75
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_full_device_does_not_change_the_exit_code() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            program(100), cwd=ROOT, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (75, b"")


def test_a_reader_that_never_reads_does_not_keep_the_process_from_ending() -> None:
    process = subprocess.Popen(program(5000), cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.wait(60) == 75
    finally:
        process.kill()
        process.communicate()


def test_half_a_line_is_ended_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[int | OSError] = [3, OSError(errno.ENOSPC, "full")]
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        answer = answers.pop(0) if answers else len(data)
        if isinstance(answer, OSError):
            raise answer
        return real(descriptor, data[:answer])

    monkeypatch.setattr("bridge.log_output.os.write", write)
    with open(tmp_path / "log", "w", encoding="utf-8") as stream:
        output = Output(stream, outcome)
        output.put("first")
        assert output.drain(10)
        output.put("second")
        assert output.drain(10)
    assert (tmp_path / "log").read_text() == "fir\nlost 1\nsecond\n"
