"""A journal that is not what was written: set aside, salvaged, and the loss said aloud."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import (
    EXIT_CONFIG,
    EXIT_FATAL,
    ConfigurationError,
    JournalDamaged,
    JournalError,
    JournalLocked,
    JournalNewer,
)
from bridge.journal import AppendIntent, Journal, LaneProgress, Settlement, salvage, store
from bridge.journal.letters import Refused
from bridge.parsing.identity import canonical_json
from bridge.snapshot import SinkCounts
from tests.support.clock import ManualClock
from tests.support.journals import (
    SINKS,
    Limits,
    audit,
    counted,
    new_journal,
    opened,
    pass_time,
    rows,
    settle,
    settle_everything,
)
from tests.support.readings import reading, rejection

COUNT = 400
SITES = ["MOR", "NEV", "OUR"]
NOTE = canonical_json({"note": "x" * 200})
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal in full use, as a kill leaves it: with its log."""
    folder = tmp_path_factory.mktemp("sound")
    path = folder / "live.db"
    journal = new_journal(path)
    for first in range(0, COUNT, 20):
        batch = [reading(n, SITES[n % 3], attributes=NOTE) for n in range(first, first + 20)]
        journal.append(batch, [rejection(b"Bad Input %d" % first)])
    entries = journal.read(0, COUNT)
    settle(journal, "pubsub", entries[:300])
    settle(journal, "bigquery", entries[:199], refused=[Refused(entries[199], "row", "no")])
    journal.record_append("bigquery", AppendIntent("streams/s", 200, (201, 202, 203)))
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    more = [reading(n, attributes=NOTE) for n in range(COUNT, COUNT + 10)]
    journal.append(more, [])
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{folder / 'journal.db'}{suffix}")
    journal.close()
    return folder / "journal.db"


def copied(sound: Path, path: Path, log: bool = True) -> bytearray:
    for suffix in ("", "-wal") if log else ("",):
        shutil.copyfile(f"{sound}{suffix}", f"{path}{suffix}")
    return bytearray(path.read_bytes())


def asides(path: Path) -> list[Path]:
    return sorted(
        file
        for file in path.parent.iterdir()
        if re.fullmatch(r".*\.corrupt-\d{8}T\d{6}\.\d{6}Z", file.name)
    )


def assert_usable(path: Path) -> None:
    """Whatever was done to it: it opens, takes readings, settles and balances."""
    clock = ManualClock()
    with opened(path, clock=clock) as journal:
        assert journal.append([reading(10_000_000)], [rejection()]).accepted == 1
        # Through the file's name, hence through the log of that name: not one that was deleted.
        assert counted(path, "entries") == len(journal.read(0, 10_000))
        settle_everything(journal)
        assert journal.pending("pubsub") == journal.pending("bigquery") == 0
        assert all(site.balanced for site in journal.sites().values())
        if asides(path):
            assert journal.loss is not None
            assert asides(path)[0].name in journal.loss
    files = [file.name for file in path.parent.iterdir() if file.is_file()]
    left = {name for name in files if ".corrupt-" not in name}
    assert left <= {path.name, f"{path.name}.lock", f"{path.name}.reserve"}
    audit(path, salvaged=True)


# --- damage of every kind -------------------------------------------------------------------------


def truncated(share: float) -> Callable[[Path, bytearray], None]:
    def damage(path: Path, content: bytearray) -> None:
        path.write_bytes(content[: int(len(content) * share)])

    return damage


def zeroed(page: int) -> Callable[[Path, bytearray], None]:
    def damage(path: Path, content: bytearray) -> None:
        content[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
        path.write_bytes(content)

    return damage


def garbage_header(path: Path, content: bytearray) -> None:
    content[:100] = os.urandom(100)
    path.write_bytes(content)


def all_garbage(path: Path, content: bytearray) -> None:
    path.write_bytes(random.Random(1).randbytes(len(content)))


def text_file(path: Path, content: bytearray) -> None:
    path.write_text("hello\n" * 1_000)


def no_version(path: Path, content: bytearray) -> None:
    content[60:64] = bytes(4)
    path.write_bytes(content)


def read_only_format(path: Path, content: bytearray) -> None:
    content[18:20] = b"\x07\x02"
    path.write_bytes(content)


def unknown_schema_format(path: Path, content: bytearray) -> None:
    content[44:48] = b"\x00\x00\x00\x63"
    path.write_bytes(content)


def no_tables(path: Path, content: bytearray) -> None:
    path.unlink()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {store.SCHEMA_VERSION}")
    db.execute("CREATE TABLE other (x)")
    db.commit()
    db.close()


def one_table_less(path: Path, content: bytearray) -> None:
    db = sqlite3.connect(path)
    db.execute("DROP TABLE sink_ledger")
    db.commit()
    db.close()


DAMAGES: dict[str, Callable[[Path, bytearray], None]] = {
    **{f"cut to {share}": truncated(share) for share in (0.99, 0.75, 0.5, 0.25, 0.1, 0.03)},
    "cut to 100 bytes": truncated(0.0002),
    **{f"page {page} zeroed": zeroed(page) for page in (*range(24), 30, 40)},
    "garbage header": garbage_header,
    "all garbage": all_garbage,
    "a text file": text_file,
    "no version": no_version,
    "read-only format": read_only_format,
    "unknown schema format": unknown_schema_format,
    "no tables": no_tables,
    "one table less": one_table_less,
}


@pytest.mark.parametrize("log", [True, False], ids=["with log", "without log"])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_journal_opens_and_works(sound: Path, path: Path, name: str, log: bool) -> None:
    content = copied(sound, path, log)
    DAMAGES[name](path, content)
    damaged = path.read_bytes()
    assert_usable(path)
    for aside in asides(path):
        assert aside.read_bytes() == damaged, "set aside as it was"


@pytest.mark.parametrize("seed", range(12))
def test_a_journal_with_flipped_bytes_opens_and_works(sound: Path, path: Path, seed: int) -> None:
    content = copied(sound, path)
    chance = random.Random(seed)
    for _ in range(chance.choice([1, 3, 30, 300])):
        # Not the version: a number from the future is what a newer version would have written.
        place = chance.randrange(100, len(content))
        content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    Path(f"{path}.suspect").touch()  # after a read that failed: every byte that counts is looked at
    assert_usable(path)


@pytest.mark.parametrize("seed", range(6))
def test_a_log_with_flipped_or_missing_bytes_loses_at_most_what_it_held(
    sound: Path, path: Path, seed: int
) -> None:
    copied(sound, path)
    log = bytearray(Path(f"{path}-wal").read_bytes())
    chance = random.Random(seed)
    for _ in range(3):
        log[chance.randrange(len(log))] ^= 0xFF
    Path(f"{path}-wal").write_bytes(log[: chance.randrange(len(log))])
    with opened(path) as journal:
        assert journal.sites()["MOR"].accepted + 266 >= COUNT
        assert len(journal.read(0, 1_000)) >= COUNT
    assert_usable(path)


# --- what is taken over ---------------------------------------------------------------------------


def test_an_empty_file_is_damage_and_not_a_new_journal(path: Path) -> None:
    path.touch()
    with opened(path) as journal:
        assert journal.loss is not None
        assert "its file is empty" in journal.loss
    assert [aside.stat().st_size for aside in asides(path)] == [0]
    assert_usable(path)


def test_a_new_journal_is_no_loss(path: Path) -> None:
    with opened(path) as journal:
        assert journal.loss is None
        assert journal.verify_up_to == 0
    assert asides(path) == []


@pytest.mark.parametrize("state", ["missing", "empty"])
def test_when_only_the_log_is_left_its_readings_are_taken_over(path: Path, state: str) -> None:
    (path.parent / "other").mkdir()
    live = path.parent / "other" / "live.db"
    journal = new_journal(live)
    journal._db.execute("PRAGMA wal_autocheckpoint = 0")
    journal.append([reading(number) for number in range(50)], [rejection()])
    settle(journal, "pubsub", journal.read(0, 20))
    shutil.copyfile(f"{live}-wal", f"{path}-wal")
    journal.close()
    if state == "empty":
        path.touch()
    log = Path(f"{path}-wal").read_bytes()
    with opened(path) as again:
        assert [entry.reading.value for entry in again.read(0, 100)] == list(range(50))
        assert again.resume("pubsub").position == 20
        assert again.loss is not None
        assert "50 readings, 1 dead letters" in again.loss
    kept = next(file for file in path.parent.iterdir() if file.name.endswith("Z-wal"))
    assert kept.read_bytes() == log
    assert_usable(path)


def test_a_damaged_header_costs_no_reading_as_the_log_has_the_first_page(
    sound: Path, path: Path
) -> None:
    content = copied(sound, path)
    garbage_header(path, content)
    with opened(path) as journal:
        assert len(journal.read(0, 1_000)) == COUNT + 10


def test_one_bad_page_costs_only_the_readings_on_it(sound: Path, path: Path) -> None:
    content = copied(sound, path)
    page = _page_of_an_entry(content, b'"note"')
    zeroed(page)(path, content)
    clock = ManualClock()
    with opened(path, clock=clock) as journal:
        entries = journal.read(0, 1_000)
        lost = COUNT + 10 - len(entries)
        assert 1 <= lost <= 40
        assert journal.resume("pubsub").position == 300
        assert journal.resume("bigquery").position == 200
        assert journal.rejected_by_reason() == {"payload_not_json": 20}
        assert len(journal.letters_waiting(100)) == 21
        assert journal.verify_up_to == COUNT + 10
        assert journal.loss is not None
        assert f"taken over: {COUNT + 10 - lost} readings, 21 dead letters" in journal.loss
        assert all(site.balanced for site in journal.sites().values())
        assert all(entry.reading in _originals() for entry in entries)
        before = journal.sites()
    with opened(path, clock=clock) as journal:
        assert journal.sites() == before
        assert journal.loss is not None
        journal.clear_loss()
        assert journal.loss is None
    with opened(path, clock=clock) as journal:
        assert journal.loss is None
        assert journal.verify_up_to == COUNT + 10


def test_after_a_salvage_all_is_verified_until_the_broker_has_sent_what_it_may(
    sound: Path, path: Path
) -> None:
    """The ids by which a redelivery is recognised may be among what was lost."""
    content = copied(sound, path)
    zeroed(_page_of_an_entry(content, b'"note"'))(path, content)
    clock = ManualClock()
    with opened(path, clock=clock) as journal:
        last = journal.append([reading(COUNT + 11)], []).last_seq
        assert journal.verify_up_to == last
    with opened(path, clock=clock) as journal:
        last = journal.append([reading(COUNT + 12)], []).last_seq
        assert journal.verify_up_to == last, "a restart does not end it"
        journal.acknowledged(last)
        journal.append([reading(COUNT + 13)], [])
        assert journal.verify_up_to == last
        pass_time(journal, clock, 20)
    with opened(path, clock=clock) as journal:
        journal.append([reading(COUNT + 14)], [])
        assert journal.verify_up_to == last


def _originals() -> set[object]:
    return {
        reading(n, "MOR" if n >= COUNT else SITES[n % 3], attributes=NOTE)
        for n in range(COUNT + 10)
    }


def _page_of_an_entry(content: bytearray, mark: bytes) -> int:
    pages = [content[at : at + PAGE] for at in range(0, len(content), PAGE)]
    return [page for page, text in enumerate(pages) if mark in text][5]


def test_readings_on_both_sides_of_several_bad_pages_are_taken_over(
    sound: Path, path: Path
) -> None:
    content = copied(sound, path)
    marked = [
        at // PAGE
        for at in range(0, len(content), PAGE)
        if content[at : at + PAGE].count(b'"note"') > 5
    ]
    on_them = 0
    for page in marked[3:-3:4]:
        on_them += content[page * PAGE : (page + 1) * PAGE].count(b'"note"')
        content[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    path.write_bytes(content)
    with opened(path) as journal:
        assert len(journal.read(0, 1_000)) == COUNT + 10 - on_them
    assert_usable(path)


def test_a_reading_whose_content_was_changed_is_never_sent(sound: Path, path: Path) -> None:
    content = copied(sound, path)
    place = content.index(b'"note":"xxx', _page_of_an_entry(content, b'"note"') * PAGE) + 9
    content[place : place + 3] = b"xyx"
    path.write_bytes(content)
    Path(f"{path}.suspect").touch()
    with opened(path) as journal:
        assert journal.loss is not None
        assert "a reading is not what its identity says" in journal.loss
        found = {entry.reading for entry in journal.read(0, 1_000)}
        assert len(found) == COUNT + 9
        assert found <= _originals()
    assert_usable(path)


def test_text_that_is_no_text_any_more_is_found_at_the_next_start(sound: Path, path: Path) -> None:
    content = copied(sound, path)
    place = content.index(b'"note":"xxx', _page_of_an_entry(content, b'"note"') * PAGE) + 9
    content[place] = 0xFF
    path.write_bytes(content)
    journal = new_journal(path)
    with pytest.raises(JournalDamaged):
        journal.read(0, 1_000)
    journal.close()
    with opened(path) as journal:
        assert journal.loss is not None
        assert len(journal.read(0, 1_000)) == COUNT + 9
    assert not Path(f"{path}.suspect").exists()


def test_an_append_that_lost_an_entry_is_forgotten_and_one_that_did_not_is_kept(
    sound: Path, path: Path
) -> None:
    copied(sound, path)
    db = sqlite3.connect(path)
    db.execute("DELETE FROM entries WHERE seq = 202")
    db.execute("INSERT INTO appends VALUES ('pubsub', 's', 1, ?)", (store.packed([301, 303]),))
    db.commit()
    db.close()
    salvage.recover(path, 1_000, ManualClock(), "for the test").close()
    with opened(path) as journal:
        assert journal.append_intent("bigquery") is None
        assert journal.append_intent("pubsub") == AppendIntent("s", 1, (301, 303))
        assert journal.sites()["NEV"].balanced


def test_when_the_sinks_positions_are_lost_everything_is_pending_again(
    sound: Path, path: Path
) -> None:
    copied(sound, path)
    db = sqlite3.connect(path)
    for table in ("sinks", "sink_ledger", "lanes"):
        db.execute(f"DELETE FROM {table}")
    db.commit()
    db.close()
    salvage.recover(path, 1_000, ManualClock(), "for the test").close()
    with opened(path) as journal:
        assert journal.pending("pubsub") == journal.pending("bigquery") == COUNT + 10
        assert journal.verify_up_to == COUNT + 10
        assert all(site.balanced for site in journal.sites().values())
    with opened(path, sinks=SINKS | {"log": "log"}) as journal:
        assert journal.pending("log") == 0


def test_when_the_ledger_is_lost_it_counts_what_is_there(sound: Path, path: Path) -> None:
    copied(sound, path)
    db = sqlite3.connect(path)
    db.execute("DELETE FROM ledger")
    db.execute("DELETE FROM sink_ledger WHERE site = 'NEV'")
    db.commit()
    db.close()
    salvage.recover(path, 1_000, ManualClock(), "for the test").close()
    with opened(path) as journal:
        assert all(site.balanced for site in journal.sites().values())
        mor = journal.sites()["MOR"]
        assert mor.accepted == 144
        assert mor.sinks["pubsub"] == SinkCounts(settled=100, pending=44)
    audit(path, salvaged=True)


def test_numbers_that_only_an_append_or_a_lane_still_names_are_not_used_again(path: Path) -> None:
    with opened(path) as journal:
        journal.append([reading(1), reading(2)], [])
        beyond = LaneProgress(0, (777,))
        journal.settle("pubsub", [Settlement("MOR", beyond, [])], 0)
        journal.record_append("bigquery", AppendIntent("s", 1, (888,)))
    with opened(path) as journal:
        assert journal.last_seq == 888
        journal.acknowledged(999)
    with opened(path) as journal:
        assert journal.last_seq == 999


@pytest.mark.parametrize("moves", range(6))
def test_a_kill_during_the_recovery_loses_nothing(
    sound: Path, path: Path, moves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = copied(sound, path)
    zeroed(_page_of_an_entry(content, b'"note"'))(path, content)
    whole = salvage._move
    done: list[Path] = []

    def move(source: Path, target: Path) -> None:
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(target)
        whole(source, target)

    monkeypatch.setattr(salvage, "_move", move)
    try:
        opened(path).__enter__().close()
    except KeyboardInterrupt:
        monkeypatch.setattr(salvage, "_move", whole)
    with opened(path) as journal:
        assert len(journal.read(0, 1_000)) > COUNT - 40
        assert journal.loss is not None
        assert journal.resume("pubsub").position == 300
    assert_usable(path)
    assert sum(aside.read_bytes() == bytes(content) for aside in asides(path)) == 1


def test_two_damages_at_the_same_moment_are_both_set_aside(path: Path) -> None:
    clock = ManualClock()
    for content in (b"first", b"second"):
        path.write_bytes(content)
        opened(path, clock=clock).__enter__().close()
    assert [aside.read_bytes() for aside in asides(path)] == [b"first", b"second"]


def test_the_recovery_is_logged_as_an_error(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"no database")
    opened(path).__enter__().close()
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "set aside" in record.getMessage()
    fields = record.__dict__["fields"]
    assert fields["aside"] == asides(path)[0].name


def test_damage_found_while_running_makes_the_next_start_look_closely(
    sound: Path, path: Path
) -> None:
    content = copied(sound, path, log=False)
    journal = new_journal(path)
    journal._db.execute("PRAGMA cache_size = 0")
    with open(path, "r+b") as file:
        for page in range(3, len(content) // PAGE):
            file.seek(page * PAGE)
            file.write(bytes(PAGE))
    with pytest.raises(JournalDamaged):
        journal.append([reading(number, "NEV", pi_tag="other") for number in range(500)], [])
    assert Path(f"{path}.suspect").exists()
    journal.close()
    assert_usable(path)
    assert asides(path)


# --- other versions, other processes, other users -------------------------------------------------


def test_a_journal_of_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    opened(path).__enter__().close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {store.SCHEMA_VERSION + 1}")
    db.close()
    before = path.read_bytes()
    for _ in range(2):
        journal = Journal(path, Limits(), ManualClock())
        with pytest.raises(JournalNewer, match="newer version") as caught:
            journal.open()
        assert caught.value.exit_code == EXIT_CONFIG == 78
    with pytest.raises(JournalNewer):
        store.connect_reader(path)
    assert path.read_bytes() == before
    assert asides(path) == []


def test_a_second_run_on_the_same_journal_is_refused_and_names_the_first(path: Path) -> None:
    with opened(path) as first:
        second = Journal(path, Limits(), ManualClock())
        with pytest.raises(JournalLocked) as caught:
            second.open()
        assert caught.value.exit_code == EXIT_FATAL == 70
        assert f"process id {os.getpid()}:" in str(caught.value)
        assert str(path) in str(caught.value)
        second.close()
        assert first.append([reading(1)], []).accepted == 1
    with opened(path) as journal:
        assert len(journal.read(0, 10)) == 1


def test_the_lock_goes_with_a_start_that_failed(path: Path) -> None:
    opened(path).__enter__().close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalNewer):
        Journal(path, Limits(), ManualClock()).open()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {store.SCHEMA_VERSION}")
    db.close()
    assert_usable(path)


def test_a_connection_that_cannot_be_used_is_closed_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Closed later, it would delete the log of the file that has taken its own's place.
    opened(path).__enter__().close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    made: list[sqlite3.Connection] = []
    whole = sqlite3.connect

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        made.append(whole(*args, **options))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", connect)
    for step in (store.connect_reader, store.connect_read_only, store.create):
        with pytest.raises(JournalNewer):
            step(path)
    with pytest.raises(JournalNewer):
        store.connect(path, 1_000)
    assert len(made) == 4
    for connection in made:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def test_the_folder_is_made_and_what_cannot_be_one_is_refused(tmp_path: Path) -> None:
    assert_usable(tmp_path / "a" / "b" / "journal.db")
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file" / "journal.db", tmp_path, Path("/proc/journal.db")):
        with pytest.raises(ConfigurationError, match=r"JOURNAL_PATH=.*Remedy: ") as caught:
            Journal(bad, Limits(), ManualClock()).open()
        assert caught.value.exit_code == EXIT_CONFIG


def test_a_reader_beside_the_daemon_sees_what_is_committed_and_cannot_write(path: Path) -> None:
    with opened(path) as journal:
        reader = store.connect_reader(path)
        journal.append([reading(1)], [])
        assert reader.execute("SELECT count(*) FROM entries").fetchone() == (1,)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM entries").fetchone() == (1,)
        journal.append([reading(2)], [])
        settle_everything(journal)
        assert reader.execute("SELECT count(*) FROM entries").fetchone() == (1,), "its moment"
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM entries").fetchone() == (2,)
        with pytest.raises(sqlite3.OperationalError):
            reader.execute("DELETE FROM entries")
        reader.close()
        assert journal.append([reading(3)], []).accepted == 1
    assert counted(path, "entries") == 3
    assert rows(path, "SELECT value FROM entries ORDER BY seq") == [(1.0,), (2.0,), (3.0,)]


def test_a_reader_of_nothing_or_of_garbage_says_so_and_makes_no_file(path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        store.connect_reader(path)
    assert not path.exists()
    path.write_bytes(b"garbage" * 1_000)
    with pytest.raises(JournalDamaged):
        store.connect_reader(path)
    assert path.read_bytes() == b"garbage" * 1_000
