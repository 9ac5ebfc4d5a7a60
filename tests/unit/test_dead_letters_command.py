"""`dead-letters`: what hostile letters, slow readers and full disks make of it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.cli.main import cli
from bridge.cli.output import json_text, printable
from bridge.clock import SystemClock
from bridge.journal import Journal
from bridge.journal.journal import Limits
from bridge.reading import Limits as ReadingLimits
from bridge.reading import Message, Rejection, parse

ROOT = Path(__file__).resolve().parents[2]
TOPIC = "FCTS/FAE/MOR/SolvExtract/T1"
RECEIVED_US = 1_795_000_000_000_000
# CSI in one character, DEL, a turn of the writing direction, and a tag beyond 16 bits.
HOSTILE = "\x9b31m\x7f\u202e\U000e0041"


def rejected(payload: bytes, topic: str = TOPIC, limit: int = 65_536) -> Rejection:
    message = Message(topic, payload, RECEIVED_US)
    result = parse(message, ReadingLimits(max_payload_bytes=limit))
    assert isinstance(result, Rejection)
    return result


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.db", Limits(), SystemClock())
    opened.open()
    opened.activate({"log": "log"})
    yield opened
    opened.close()


def environment(journal: Journal) -> dict[str, str]:
    return {"JOURNAL_PATH": str(journal.path), "APP_ENV": "LOCAL"}


def run(journal: Journal, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["dead-letters", *arguments], env=environment(journal))


def log_can_be_cut(path: Path) -> bool:
    """Whether nobody's reading holds on to the log of the journal."""
    with closing(sqlite3.connect(path, timeout=5)) as db:
        return bool(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("list", "--format", "json"),
        ("show", "1"),
        ("show", "1", "--format", "json"),
        ("export",),
    ],
    ids=" ".join,
)
def test_no_character_that_moves_a_terminal_gets_out(
    journal: Journal, arguments: tuple[str, ...]
) -> None:
    topic = f"FCTS/FAE/M{HOSTILE}R/SolvExtract/T"
    journal.append([], [rejected(f'{{"a": "{HOSTILE}"}}'.encode(), topic)])
    done = run(journal, *arguments)
    assert done.exit_code == 0
    assert "T" in done.stdout
    assert not set(done.stdout) & set(HOSTILE.replace("31m", ""))


def test_what_is_escaped_in_json_is_the_same_value_when_it_is_read() -> None:
    document = {"topic": f"Ü{HOSTILE}\n", "other": ["Caserones ☃"]}
    assert json.loads(json_text(document)) == document
    assert "Ü" in json_text(document)
    assert json_text(document).isprintable()


def test_printable_leaves_letters_of_all_languages_alone() -> None:
    assert printable("Ñuñoa 北 ☃") == "Ñuñoa 北 ☃"
    assert printable("a\r\n\tb\x1b") == "a\\r\\n\\tb\\x1b"


def test_a_payload_of_text_keeps_its_lines_and_shows_every_other_control(journal: Journal) -> None:
    journal.append([], [rejected("one\r\ntwo\x0bthree\x85four".encode())])
    assert run(journal, "show", "1").stdout.endswith("payload:\none\\r\ntwo\\x0bthree\\x85four\n")


def test_a_payload_that_was_cut_is_said_to_be(journal: Journal) -> None:
    journal.append([], [rejected(b"x" * 100, limit=64), rejected(b"whole")])
    assert "the first 64 bytes, more are not kept" in run(journal, "show", "1").stdout
    assert "payload:\nwhole" in run(journal, "show", "2").stdout


@pytest.mark.parametrize("arguments", [("show", "9" * 20), ("list", "--limit", "9" * 20)])
def test_a_number_beyond_all_ids_is_wrong_usage(
    journal: Journal, arguments: tuple[str, ...]
) -> None:
    assert run(journal, *arguments).exit_code == 2


def test_an_export_that_stands_still_does_not_hold_the_journals_log(journal: Journal) -> None:
    # Many times what a pipe takes, so that the export waits in the middle.
    journal.append([], [rejected(b"Bad Input %d " % n + b"x" * 600) for n in range(500)])
    command = [sys.executable, str(ROOT / "mqtt_subscriber.py"), "dead-letters", "export"]
    with subprocess.Popen(
        command, env={**os.environ, **environment(journal)}, stdout=subprocess.PIPE, text=True
    ) as export:
        assert export.stdout is not None
        first = export.stdout.readline()
        journal.append([], [rejected(b"came meanwhile")])
        assert log_can_be_cut(journal.path)
        numbers = [json.loads(line)["id"] for line in (first, *export.stdout)]
    assert export.returncode == 0
    assert numbers == list(range(500, 0, -1))


def test_a_letter_that_goes_while_the_export_waits_is_left_out(journal: Journal) -> None:
    journal.append([], [rejected(b"Bad Input %d " % n + b"x" * 600) for n in range(500)])
    command = [sys.executable, str(ROOT / "mqtt_subscriber.py"), "dead-letters", "export"]
    with subprocess.Popen(
        command,
        env={**os.environ, **environment(journal)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        first = export.stdout.readline()
        with closing(sqlite3.connect(journal.path, timeout=5)) as db, db:
            db.execute("DELETE FROM dead_letters WHERE id = 1")
        numbers = [json.loads(line)["id"] for line in (first, *export.stdout)]
        said = export.stderr.read()
    assert numbers == list(range(500, 1, -1))
    assert "499 dead letters exported" in said


def test_a_disk_that_is_full_ends_the_export_in_words(journal: Journal) -> None:
    journal.append([], [rejected(b"Bad Input")])
    done = run(journal, "export", "--output", "/dev/full")
    assert done.exit_code == 70
    assert "/dev/full could not be written" in done.stderr
    assert "not whole" in done.stderr
    assert "exported" not in done.stderr


def test_an_export_of_nothing_leaves_nothing_of_an_older_one(
    journal: Journal, tmp_path: Path
) -> None:
    older = tmp_path / "letters.jsonl"
    older.write_text("an older export\n")
    done = run(journal, "export", "--site", "NONE", "--output", str(older))
    assert done.exit_code == 0
    assert older.read_text() == ""


def test_without_a_journal_an_older_export_stays(tmp_path: Path) -> None:
    older = tmp_path / "letters.jsonl"
    older.write_text("an older export\n")
    done = CliRunner().invoke(
        cli,
        ["dead-letters", "export", "--output", str(older)],
        env={"JOURNAL_PATH": str(tmp_path / "none.db"), "APP_ENV": "LOCAL"},
    )
    assert done.exit_code == 70
    assert older.read_text() == "an older export\n"
    assert [file.name for file in tmp_path.iterdir()] == ["letters.jsonl"]


def test_a_reader_who_has_seen_enough_is_no_error_of_the_disk(journal: Journal) -> None:
    journal.append([], [rejected(b"Bad Input %d " % n + b"x" * 600) for n in range(500)])
    command = [sys.executable, str(ROOT / "mqtt_subscriber.py"), "dead-letters", "export"]
    with subprocess.Popen(
        command,
        env={**os.environ, **environment(journal)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        export.stdout.readline()
        export.stdout.close()
        said = export.stderr.read()
    assert export.returncode == 1
    assert "Traceback" not in said
    assert "could not be written" not in said
