"""`dead-letters` on a journal, with and without a daemon beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.cli.main import cli
from bridge.clock import SystemClock
from bridge.journal import Journal
from bridge.journal.journal import Limits
from bridge.reading import Limits as ReadingLimits
from bridge.reading import Message, Rejection, parse

TOPIC = "FCTS/FAE/MOR/SolvExtract/T1"
PAYLOADS = [b"Bad Input", b"\xff\xfeh\x00i\x00", b'{"a": "\x1b[31mred"}', b'{"esc": "\\u001b"}']


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.db", Limits(), SystemClock())
    opened.open()
    opened.activate({"log": "log"})
    refused = [
        parse(Message(TOPIC, content, 1_795_000_000_000_000), ReadingLimits())
        for content in PAYLOADS
    ]
    other = parse(
        Message("FCTS/FAE/BAG/SolvExtract/T", b"12", 1_795_000_000_000_000), ReadingLimits()
    )
    opened.append([], [letter for letter in [*refused, other] if isinstance(letter, Rejection)])
    yield opened
    opened.close()


def run(journal: Journal, *arguments: str) -> Result:
    environment = {"JOURNAL_PATH": str(journal.path), "APP_ENV": "LOCAL"}
    return CliRunner().invoke(cli, ["dead-letters", *arguments], env=environment)


def test_list_shows_the_newest_first_beside_a_running_writer(journal: Journal) -> None:
    done = run(journal, "list", "--format", "json")
    assert done.exit_code == 0
    letters = json.loads(done.stdout)
    assert [letter["id"] for letter in letters] == [5, 4, 3, 2, 1]
    assert base64.b64decode(letters[-1]["payload_base64"]) == b"Bad Input"
    assert set(letters[0]) == {
        *("id", "reason", "detail", "topic", "payload_base64", "payload_bytes", "received_at"),
        *("sink", "event_id", "site", "sha256"),
    }


def test_list_filters_by_reason_site_and_number(journal: Journal) -> None:
    def ids(*arguments: str) -> list[int]:
        found = json.loads(run(journal, "list", "--format", "json", *arguments).stdout)
        return [letter["id"] for letter in found]

    assert ids("--reason", "payload_not_utf8") == [2]
    assert ids("--site", "BAG") == [5]
    assert ids("--limit", "2") == [5, 4]


def test_nothing_that_moves_a_terminal_gets_out(journal: Journal) -> None:
    for arguments in (("list",), ("show", "3"), ("show", "2"), ("show", "4")):
        done = run(journal, *arguments)
        assert done.exit_code == 0
        assert "\x1b" not in done.stdout


def test_show_prints_text_as_text_and_bytes_as_a_dump(journal: Journal) -> None:
    assert "Bad Input" in run(journal, "show", "1").stdout
    assert "ff fe 68 00 69 00" in run(journal, "show", "2").stdout


def test_an_unknown_id_is_a_finding_in_words(journal: Journal) -> None:
    done = run(journal, "show", "77")
    assert done.exit_code == 1
    assert "no dead letter 77" in done.stderr


def test_export_writes_json_lines_and_says_how_many(journal: Journal, tmp_path: Path) -> None:
    done = run(journal, "export", "--output", str(tmp_path / "letters.jsonl"))
    assert "5 dead letters exported" in done.stderr
    lines = (tmp_path / "letters.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [5, 4, 3, 2, 1]


def test_without_a_journal_it_says_so_and_makes_none(tmp_path: Path) -> None:
    missing = tmp_path / "none" / "journal.db"
    environment = {"JOURNAL_PATH": str(missing), "APP_ENV": "LOCAL"}
    done = CliRunner().invoke(cli, ["dead-letters", "list"], env=environment)
    assert done.exit_code == 70
    assert "no journal" in done.stderr
    assert not missing.parent.exists()


def test_it_reads_a_journal_that_nobody_has_open(journal: Journal) -> None:
    journal.close()
    assert run(journal, "list").exit_code == 0
