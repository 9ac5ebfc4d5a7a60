"""Logging: one line a record, for Google Cloud's log agent or for people.

    logger ──▶ RateLimit ──▶ formatter ──▶ Output ──▶ stdout
               repeated       JSON or       bounded queue and
               warnings       text          a thread of its own

Fields go with a record as `log.info("…", extra={"fields": {…}})`. A record with
`extra={"every": True}` is never held back as a repetition; one with `extra={"apart": "…"}` is held
back only for those with the same word, and at any level. Logging never raises, never blocks a
thread for longer than a few seconds, and what it cannot write it counts and says later.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TextIO

import orjson

from bridge.clock import Clock, SystemClock
from bridge.log_output import Output
from bridge.times import iso_us

THIRD_PARTY = ("google", "grpc", "urllib3", "werkzeug", "waitress")
REPEAT_SECONDS = 30.0
MAX_KEYS = 512
MAX_MESSAGE_CHARACTERS = 100_000
FLUSH_SECONDS = 2.0

_SEVERITIES = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"), (0, "DEBUG"))
_traces = logging.Formatter()


def setup(
    level: str,
    fmt: Literal["auto", "json", "text"],
    stream: TextIO | None = None,
    clock: Clock | None = None,
) -> LogHandler:
    """Send all logging to `stream` (standard output). Once more replaces the earlier set-up.

    `logging.shutdown()`, which Python calls at a regular exit, writes what is still queued; who
    ends the process with `os._exit` calls it first.
    """
    stream = sys.stdout if stream is None else stream
    as_json = fmt == "json" or (fmt == "auto" and not stream.isatty())
    formatter = JsonFormatter() if as_json else TextFormatter()
    output = Output(stream, lambda lines: formatter.format(_loss(lines)))
    handler = LogHandler(formatter, output, RateLimit(clock or SystemClock()))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, LogHandler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    for name in THIRD_PARTY:
        library = logging.getLogger(name)
        # Always a level of its own: Google's clients cut an unconfigured logger off from the root.
        library.setLevel(level if level == "DEBUG" else max(root.level, logging.WARNING))
        library.propagate = True
    # It warns of each request that has to wait for a moment: nobody can do anything about it.
    logging.getLogger("waitress.queue").setLevel("DEBUG" if level == "DEBUG" else "ERROR")
    logging.captureWarnings(True)
    return handler


class JsonFormatter(logging.Formatter):
    """Google Cloud's structured form: `severity`, `message`, `time` and the fields beside them.

    A stack trace ends the message, where Error Reporting finds it. A field that has one of the
    line's own names gets an underscore behind it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "severity": _severity(record.levelno),
            "message": _cut("\n".join((_text(record), *_trace(record)))),
            "time": _time(record),
            "logger": record.name,
        }
        if record.levelno >= logging.WARNING and record.pathname:
            line["logging.googleapis.com/sourceLocation"] = {
                "file": record.pathname,
                "line": str(record.lineno),
                "function": record.funcName,
            }
        for name, value in _fields(record).items():
            line[_free(name, line)] = value
        return _dumps(line)


class TextFormatter(logging.Formatter):
    """`time LEVEL message key=value`. Further lines of a message are indented and control
    characters are spelled out, so that nothing from outside can pass for a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if not record.name.startswith("bridge"):
            fields = {"logger": record.name, **fields}
        shown = [f"{_printable(_free(name, {}))}={_value(value)}" for name, value in fields.items()]
        head = f"{_time(record)[:-4]}Z {_severity(record.levelno):<7} {_printable(_text(record))}"
        trace = [f"  {_printable(line)}" for text in _trace(record) for line in text.split("\n")]
        return _cut("\n".join((" ".join((head, *shown)), *trace)))


class RateLimit(logging.Filter):
    """Lets a warning or error pass once in `seconds`, and says how often it came meanwhile.

    Records are the same when logger, level, message template and `apart` are. The count of those
    held back goes with the next one that passes; `overdue` yields the counts that no next one
    came for, with the fields of the one that passed.
    """

    def __init__(self, clock: Clock, seconds: float = REPEAT_SECONDS, keys: int = MAX_KEYS) -> None:
        super().__init__()
        self._clock = clock
        self._seconds = seconds
        self._keys = keys
        self._lock = threading.RLock()
        self._seen: OrderedDict[tuple[str, int, str, str], _Seen] = OrderedDict()
        self._forgotten: list[logging.LogRecord] = []
        self._next_look = clock.monotonic() + seconds

    def filter(self, record: logging.LogRecord) -> bool:
        apart = getattr(record, "apart", None)
        if (record.levelno < logging.WARNING and apart is None) or getattr(record, "every", False):
            return True
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__qualname__
        with self._lock:
            return self._passes(record, (record.name, record.levelno, template, str(apart)))

    def _passes(self, record: logging.LogRecord, key: tuple[str, int, str, str]) -> bool:
        now = self._clock.monotonic()
        seen = self._seen.pop(key, None)
        if seen is not None and now - seen.since < self._seconds:
            seen.held_back += 1
            self._seen[key] = seen
            return False
        text = _text(record)[:1000]
        self._seen[key] = _Seen(now, record.name, record.levelno, text, _fields(record))
        if seen is not None and seen.held_back:
            record.repeated = seen.repeated(now)
        if len(self._seen) > self._keys:
            _, oldest = self._seen.popitem(last=False)
            self._forgotten.extend(oldest.summary(now))
        return True

    def overdue(self, everything: bool = False) -> list[logging.LogRecord]:
        """Records for the repetitions whose time is over (or for all), each of them once."""
        now = self._clock.monotonic()
        with self._lock:
            summaries, self._forgotten = self._forgotten, []
            if everything or now >= self._next_look:
                self._next_look = now + self._seconds
                for key, seen in list(self._seen.items()):
                    if everything or now - seen.since >= self._seconds:
                        summaries.extend(seen.summary(now))
                        del self._seen[key]
            return summaries


@dataclass
class _Seen:
    """One message that has passed at `since`, and how many like it have been held back."""

    since: float
    name: str
    level: int
    text: str
    fields: dict[Any, Any]
    held_back: int = 0

    def repeated(self, now: float) -> str:
        return f" (repeated {self.held_back} times in {now - self.since:.0f} s)"

    def summary(self, now: float) -> Iterator[logging.LogRecord]:
        if self.held_back:
            message = self.text + self.repeated(now)
            record = logging.LogRecord(self.name, self.level, "", 0, message, None, None)
            record.fields = self.fields
            yield record


class LogHandler(logging.Handler):
    """Formats what the rate limit lets pass, and queues it."""

    def __init__(self, formatter: logging.Formatter, output: Output, limit: RateLimit) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.addFilter(limit)
        self._output = output
        self._limit = limit

    def emit(self, record: logging.LogRecord) -> None:
        for line in (*self._limit.overdue(), record):
            self._output.put(self.format(line))

    def flush(self) -> None:
        """Write everything, counts of repetitions included; give up after `FLUSH_SECONDS`."""
        self._put_counts()
        self._output.drain(FLUSH_SECONDS)

    def close(self) -> None:
        """Take no more records. Does not wait: `logging.shutdown` flushes before it closes."""
        self._put_counts()
        self._output.close()
        super().close()

    def _put_counts(self) -> None:
        for line in self._limit.overdue(everything=True):
            self._output.put(self.format(line))


def _loss(lines: int) -> logging.LogRecord:
    message = (
        f"{lines} log lines are lost: the output did not take them, and the bridge works on. Look "
        "at what reads its standard output"
    )
    return logging.LogRecord(__name__, logging.ERROR, "", 0, message, None, None)


def _severity(level: int) -> str:
    return next((name for least, name in _SEVERITIES if level >= least), "DEBUG")


def _time(record: logging.LogRecord) -> str:
    return iso_us(int(record.created * 1_000_000))


def _text(record: logging.LogRecord) -> str:
    repeated: str = getattr(record, "repeated", "")
    try:
        return record.getMessage() + repeated
    except Exception as error:  # noqa: BLE001 – whatever an argument's __str__ raises
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__qualname__
        return f"{template} (arguments that do not fit: {type(error).__qualname__}){repeated}"


def _trace(record: logging.LogRecord) -> list[str]:
    found = []
    if record.exc_info and record.exc_info[0] is not None:
        found.append(_traces.formatException(record.exc_info))
    if record.stack_info:
        found.append(record.stack_info)
    return found


def _fields(record: logging.LogRecord) -> dict[Any, Any]:
    fields = getattr(record, "fields", {})
    return fields if isinstance(fields, dict) else {"fields": fields}


def _free(name: Any, taken: dict[str, Any]) -> str:
    free: str = name if isinstance(name, str) else _dumps(name)
    while free in taken:
        free += "_"
    return free


def _cut(text: str) -> str:
    over = len(text) - MAX_MESSAGE_CHARACTERS
    return text if over <= 0 else f"{text[:MAX_MESSAGE_CHARACTERS]}… ({over} characters more)"


def _dumps(value: Any) -> str:
    """JSON of anything: what has no JSON goes in as text, what has no text as its type's name."""
    try:
        encoded: bytes = orjson.dumps(value, default=_as_text, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # orjson's own error: lone surrogates, circles, huge integers, odd keys
        return json.dumps(_tame(value))
    return encoded.decode()


def _as_text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def _tame(value: Any, depth: int = 3) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if abs(value) < 2**63 else hex(value)
    if isinstance(value, dict) and depth:
        return {_free(name, {}): _tame(inner, depth - 1) for name, inner in value.items()}
    if isinstance(value, (list, tuple)) and depth:
        return [_tame(inner, depth - 1) for inner in value]
    return f"<{type(value).__qualname__}>"


def _value(value: Any) -> str:
    if isinstance(value, str) and value and value.isprintable() and not set(value) & set(' "='):
        return value
    return _printable(_dumps(value))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character == "\n":
        return "\n  "
    if character.isprintable() or character == "\t":
        return character
    return character.encode("unicode_escape").decode()
