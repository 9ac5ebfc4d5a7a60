"""`dead-letters replay` and `purge` as they are typed: usage, selection, what they print."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.cli.main import cli
from bridge.times import from_us
from tests.support.clock import START_US
from tests.support.journals import audit, counted, opened, rows
from tests.support.orders import refuse
from tests.support.readings import TOPIC, reading, refused, rejection, text

LOG = {"log": "log"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal that nobody runs on, with letters: 1 and 2 of MOR, 3 of NEV, 4 of the sink."""
    path = tmp_path / "journal.db"
    with opened(path, sinks=LOG) as journal:
        later = refused("later", "FCTS/FAE/NEV/SolvExtract/T", received_us=START_US + 60_000_000)
        journal.append([reading(1)], [rejection(), rejection(b"[]"), later])
        refuse(journal, "log", journal.read(0, 1)[0])
    return path


def run(path: Path, *arguments: str, stdin: str | bytes = "", **environment: str) -> Result:
    given = {"JOURNAL_PATH": str(path), "APP_ENV": "LOCAL", **environment}
    return CliRunner().invoke(cli, ["dead-letters", *arguments], input=stdin, env=given)


def numbers(path: Path, *arguments: str) -> list[int]:
    done = run(path, "list", "--format", "json", *arguments)
    assert done.exit_code == 0, done.output
    return [letter["id"] for letter in json.loads(done.stdout)]


def good() -> str:
    """A payload whose time the machine's clock does not refuse."""
    return text(timestamp=time.time())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replay"], "at least one of --reason, --site, --sink, --from and --to"),
        (["purge"], "at least one of"),
        (["replay", "1", "--site", "MOR"], "either IDs or"),
        (["replay", "1", "2", "--payload-text", "{}"], "for exactly one ID"),
        (["replay", "--site", "MOR", "--topic", TOPIC], "for exactly one ID"),
        (["replay", "1", "--payload", "-", "--payload-text", "{}"], "either --payload or"),
        (["replay", "1", "--topic", "FCTS/FAE/MOR"], "has 3 levels"),
        (["replay", "1", "--topic", "FCTS/FAE/\udcff/SolvExtract/T"], "lone surrogate"),
        (["replay", "1", "--payload-text", "x" * 70_000], "MAX_PAYLOAD_BYTES=65536"),
        (["list", "--from", "yesterday"], "no time such as 2026-11-21T03:00:00Z"),
        (["replay", "0"], "0 is not in the range"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(
    path: Path, arguments: list[str], words: str
) -> None:
    before = path.read_bytes()
    done = run(path, *arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.replace("│", " ").split())
    assert path.read_bytes() == before


def test_letters_are_selected_by_who_refused_them_and_when(path: Path) -> None:
    assert numbers(path) == [4, 3, 2, 1]
    assert numbers(path, "--sink", "entrance") == [3, 2, 1]
    assert numbers(path, "--sink", "log") == [4]
    assert numbers(path, "--reason", "payload_not_object", "--site", "MOR") == [2]
    minute = from_us(START_US + 60_000_000)
    assert numbers(path, "--from", minute.isoformat()) == [3]
    assert numbers(path, "--from", f"{minute:%Y-%m-%dT%H:%M:%S}") == [3]  # UTC without an offset
    assert numbers(path, "--to", minute.isoformat(), "--sink", "entrance") == [2, 1]


def test_a_dry_run_tells_of_each_letter_and_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    done = run(path, "replay", "1", "4", "9", "--dry-run", "--format", "json")
    assert done.exit_code == 0
    first, second, third = (letter["would"] for letter in json.loads(done.stdout)["letters"])
    assert first.startswith("be refused: it is refused again: payload_not_json")
    assert second == "wait for log again"
    assert "no such dead letter" in third
    assert (
        "3 dead letters; nothing was done" in run(path, "replay", "1", "4", "9", "--dry-run").stdout
    )
    assert path.read_bytes() == before


def test_what_became_of_each_letter_is_printed_and_decides_the_exit_code(path: Path) -> None:
    done = run(path, "replay", "1", "--payload", "-", stdin=good())
    assert done.exit_code == 0, done.output
    assert "1 accepted, 0 duplicate, 0 pending, 0 refused" in done.stdout
    done = run(path, "replay", "--site", "MOR")
    assert done.exit_code == 1
    assert (
        "0 accepted, 0 duplicate, 1 pending, 1 refused; 1 more were replayed before" in done.stdout
    )
    assert "payload_not_object" in done.stdout
    with opened(path, sinks=LOG) as journal:
        line = journal.sites()["MOR"]
        assert (line.accepted, line.sinks["log"].pending) == (2, 2)
        assert line.balanced
    audit(path)
    listed = run(path, "list").stdout
    assert listed.count("replayed") == 2


def test_a_payload_of_any_bytes_can_be_given(path: Path) -> None:
    done = run(path, "replay", "1", "--payload", "-", "--format", "json", stdin=b"\xff\x00")
    assert done.exit_code == 1
    assert "payload_not_utf8" in json.loads(done.stdout)["letters"][0]["detail"]


def test_many_letters_are_summed_up_and_only_the_refused_are_told_of(tmp_path: Path) -> None:
    path = tmp_path / "many.db"
    with opened(path, sinks=LOG) as journal:
        junk = [rejection(b"Bad Input %d" % number) for number in range(1_100)]
        journal.append([], junk)
    done = run(path, "replay", "--site", "MOR", "--format", "json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["refused"] == 1_100
    assert counted(path, "orders") == 1_100


def test_with_an_environment_that_is_not_the_bridges_nothing_is_ordered(path: Path) -> None:
    done = run(
        path,
        *("replay", "4"),
        APP_ENV="DEV",
        GCP_PROJECT_ID="some-project",
        PUBSUB_TOPIC="topic",
        BIGQUERY_DATASET="d",
        BIGQUERY_TABLE="t",
    )
    assert done.exit_code == 78
    assert "writes to log" in done.stderr
    assert counted(path, "orders") == 0
    assert rows(path, "SELECT name, active FROM sinks") == [("log", 1)]


# --- purging --------------------------------------------------------------------------------------


def test_only_exported_letters_are_purged(path: Path, tmp_path: Path) -> None:
    assert "0 dead letters purged" in run(path, "purge", "--all").stdout
    assert run(path, "export", "--site", "MOR", "--output", str(tmp_path / "out")).exit_code == 0
    assert "4 stay" not in run(path, "purge", "--all", "--dry-run").stdout
    done = run(path, "purge", "--all")
    assert done.exit_code == 0
    assert "3 dead letters purged" in done.stdout
    assert "1 stay" in done.stdout
    assert numbers(path) == [3]


def test_an_export_that_was_not_written_allows_no_purge(path: Path) -> None:
    assert run(path, "export", "--output", "/dev/full").exit_code == 70
    assert rows(path, "SELECT count(*) FROM dead_letters WHERE exported_us IS NOT NULL") == [(0,)]


def test_what_waits_for_the_dead_letter_topic_is_not_purged(path: Path) -> None:
    run(path, "export")
    outside = {
        "APP_ENV": "DEV",
        "GCP_PROJECT_ID": "some-project",
        "PUBSUB_TOPIC": "topic",
        "BIGQUERY_DATASET": "d",
        "BIGQUERY_TABLE": "t",
        "PUBSUB_DEAD_LETTER_TOPIC": "refused",
    }
    assert "0 dead letters purged" in run(path, "purge", "--all", **outside).stdout
    with opened(path, sinks=LOG) as journal:
        journal.letters_forwarded(journal.letters_waiting(2))
    assert "2 dead letters purged" in run(path, "purge", "--all", **outside).stdout
    assert numbers(path) == [4, 3]


def test_the_room_of_purged_letters_is_there_again_in_a_running_daemon(path: Path) -> None:
    with opened(path, sinks=LOG) as journal:
        before = journal._letter_bytes
        assert before > 0
        run(path, "export")
        run(path, "purge", "--all")
        journal.maintain()
        assert journal._letter_bytes == 0
