"""The documents of `/api`: what they say of a journal whose content is known."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.cli.main import cli
from bridge.histogram import LATENCY_BOUNDS, Histogram
from bridge.statistics import collector
from bridge.times import iso_us
from bridge.version import VERSION
from tests.support.figures import Figures, figures
from tests.support.journals import rows, settle_everything
from tests.support.readings import reading, rejection

SECOND_US = 1_000_000
PATHS = ["overview", "sites", "tags", "tag", "dead-letters", "dead-letters/1", "dead-letters.jsonl"]


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Figures]:
    with figures(tmp_path) as made:
        yield made


def send(plant: Figures, count: int, site: str = "MOR", **changes: object) -> None:
    """Readings that were made and come now."""
    now = plant.clock.now_us()
    first = plant.journal.last_seq
    plant.journal.append(
        [
            reading(n, site, received_us=now, event_us=now + n, **changes)
            for n in range(first, first + count)
        ],
        [],
    )


# --- overview -------------------------------------------------------------------------------------


def test_a_calm_daemon_is_all_right_and_says_who_it_is(plant: Figures) -> None:
    plant.look()
    shown = plant.get("/api/overview")
    assert (shown["verdict"], shown["findings"]) == ("ok", [])
    assert (shown["version"], shown["environment"]) == (VERSION, "DEV")
    assert shown["now"] == shown["started_at"] == iso_us(plant.clock.now_us())
    assert shown["rates"] == {"received": None, "sinks": {"pubsub": None, "bigquery": None}}
    assert shown["statistics"] == {
        "available": True,
        "problem": None,
        "behind_seconds": 0.0,
        "tags_left_out": 0,
    }
    assert shown["mqtt"] == {
        "connected": True,
        "sessions_lost": 0,
        "broker_dropped": None,
        "qos0_dropped": 0,
        "retained_ignored": 0,
    }
    assert shown["journal"]["seconds_until_full"] is None
    assert shown["journal"]["max_bytes"] == plant.journal.ceiling_bytes


def test_rates_backlog_and_series_are_of_what_came_and_was_settled(plant: Figures) -> None:
    plant.look()
    for _ in range(2):
        send(plant, 100)
        settle_everything(plant.journal, ["pubsub"])
        plant.clock.pass_(10)
        plant.look()
    shown = plant.get("/api/overview")
    assert shown["rates"] == {"received": 10.0, "sinks": {"pubsub": 10.0, "bigquery": 0.0}}
    series = shown["series"]
    assert [at - series["at"][0] for at in series["at"]] == [0, 10, 20]
    assert series["received"] == series["settled"]["pubsub"] == [None, 10.0, 10.0]
    assert series["settled"]["bigquery"] == [None, 0.0, 0.0]
    assert series["pending"] == {"pubsub": [0, 0, 0], "bigquery": [0, 100, 200]}
    assert series["oldest_pending_seconds"]["bigquery"] == [0.0, 10.0, 20.0]
    pubsub, bigquery = shown["sinks"]
    assert (pubsub["name"], pubsub["pending"], pubsub["settled_per_second"]) == ("pubsub", 0, 10.0)
    assert (bigquery["pending"], bigquery["oldest_pending_seconds"]) == (200, 20.0)
    assert shown["ledger"]["balanced"] is True
    assert shown["ledger"]["totals"]["accepted"] == 200
    assert (shown["sites_total"], shown["tags_total"]) == (1, 1)


def test_latencies_are_those_of_the_last_five_minutes(plant: Figures) -> None:
    histogram = Histogram(LATENCY_BOUNDS)

    def observed(*values: float) -> None:
        histogram.observe_ascending(values)
        plant.trouble["pubsub"] = {"settle_latency_seconds": histogram.counts()}

    observed(60.0, 60.0)
    plant.look()
    for _ in range(33):
        plant.clock.pass_(10)
        plant.look()
    observed(0.15, 0.15)
    shown = plant.get("/api/overview")
    assert shown["sinks"][0]["latency_p50_seconds"] == pytest.approx(0.175)
    assert shown["sinks"][0]["latency_p99_seconds"] == pytest.approx(0.2485)
    assert shown["sinks"][1]["latency_p50_seconds"] is None


def test_a_held_sink_is_wrong_with_its_remedy_and_since_when(plant: Figures) -> None:
    plant.look()
    plant.clock.pass_(60)
    held_at = iso_us(plant.clock.now_us())
    plant.trouble["bigquery"] = {"held": "no table: run provision", "last_error": "not_found: x"}
    plant.look()
    plant.clock.pass_(60)
    plant.look()
    shown = plant.get("/api/overview")
    assert shown["verdict"] == "wrong"
    (finding,) = shown["findings"]
    assert finding["level"] == "wrong"
    assert "bigquery needs an operator: no table: run provision" in finding["what"]
    assert finding["since"] == held_at
    assert "Nothing is lost" in finding["remedy"]
    sink = shown["sinks"][1]
    assert (sink["held"], sink["error_since"]) == ("no table: run provision", held_at)
    assert "Nothing is lost" in sink["remedy"]
    plant.trouble.clear()
    plant.look()
    shown = plant.get("/api/overview")
    assert (shown["verdict"], shown["sinks"][1]["error_since"]) == ("ok", None)


def test_what_passes_by_itself_is_for_attention_until_it_lasts(plant: Figures) -> None:
    plant.trouble["pubsub"] = {"last_error": "unavailable", "oldest_pending_seconds": 5.0}
    assert plant.get("/api/overview")["verdict"] == "attention"
    plant.trouble["pubsub"]["oldest_pending_seconds"] = 301.0
    assert plant.get("/api/overview")["verdict"] == "wrong"


def test_a_journal_that_grows_by_settled_readings_alone_is_no_trouble(plant: Figures) -> None:
    plant.changes["journal_seconds_until_full"] = 600.0
    assert plant.get("/api/overview")["verdict"] == "ok"
    plant.trouble["pubsub"] = {"oldest_pending_seconds": 61.0}
    shown = plant.get("/api/overview")
    assert "The journal is full in 10 min" in shown["findings"][0]["what"]


def test_dead_letters_are_a_finding_until_somebody_has_dealt_with_them(plant: Figures) -> None:
    plant.journal.append([], [rejection(), rejection()])
    plant.look()
    shown = plant.get("/api/overview")
    assert shown["dead_letters_total"] == 2
    assert [finding["level"] for finding in shown["findings"]] == ["attention"]
    with closing(sqlite3.connect(plant.journal.path)) as db:
        db.execute("DELETE FROM dead_letters")
        db.commit()
    plant.journal.maintain()
    plant.clock.pass_(collector.RECOUNT_SECONDS)
    plant.look()
    shown = plant.get("/api/overview")
    assert (shown["dead_letters_total"], shown["verdict"]) == (0, "ok")


def test_without_figures_of_tags_everything_else_is_there(
    plant: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(plant, 10)
    monkeypatch.setattr(collector, "MIN_FREE_BYTES", 2**62)
    assert plant.statistics.collector.round() == collector.RETRY_SECONDS
    plant.statistics.samples.look()
    shown = plant.get("/api/overview")
    assert shown["statistics"]["available"] is False
    assert "make room" in shown["statistics"]["problem"]
    assert (shown["tags_total"], shown["tags_by_state"]) == (None, None)
    assert shown["ledger"]["totals"]["accepted"] == 10
    assert plant.get("/api/sites")["sites"][0]["last_reading_seconds"] is None
    for path in ("/api/tags", "/api/tag?site=MOR&pi_tag=FT-101"):
        assert "make room" in plant.get(path, 503)["error"]
    assert plant.get("/api/dead-letters") == {"total": None, "reasons": None, "letters": []}


# --- sites ----------------------------------------------------------------------------------------


def three_sites(plant: Figures) -> None:
    plant.look()
    for site, count in (("MOR", 30), ("BAG", 10), ("SIE", 20)):
        send(plant, count, site)
        plant.clock.pass_(10)
    settle_everything(plant.journal, ["pubsub"])
    plant.journal.append([], [rejection(site="BAG"), rejection(b"\xff", "BAG")])
    plant.look()


def test_a_site_has_its_rate_age_refusals_and_ledger_line(plant: Figures) -> None:
    three_sites(plant)
    shown = plant.get("/api/sites?search=bag")
    assert shown["total"] == 1
    assert shown["sites"][0] == {
        "site": "BAG",
        "rate": 0.4,
        "last_reading_seconds": 20.0,
        "received": 12,
        "accepted": 10,
        "duplicates": 0,
        "rejected": 2,
        "refused": {"payload_not_json": 1, "payload_not_utf8": 1},
        "sinks": {
            "pubsub": {"settled": 10, "pending": 0, "dead_lettered": 0},
            "bigquery": {"settled": 0, "pending": 10, "dead_lettered": 0},
        },
        "balanced": True,
        "key_bytes_per_second": None,
        "key_share": None,
        "key_seconds_until_limit": None,
    }


@pytest.mark.parametrize(
    ("query", "sites"),
    [
        ("", ["BAG", "MOR", "SIE"]),
        ("sort=site&descending=1", ["SIE", "MOR", "BAG"]),
        ("sort=rate&descending=1", ["MOR", "SIE", "BAG"]),
        ("sort=age", ["SIE", "BAG", "MOR"]),
        ("sort=pending", ["BAG", "SIE", "MOR"]),
        ("sort=key&descending=1", ["SIE", "MOR", "BAG"]),
        ("offset=1&limit=1", ["MOR"]),
    ],
)
def test_sites_come_in_the_order_that_is_asked_for(
    plant: Figures, query: str, sites: list[str]
) -> None:
    three_sites(plant)
    shown = plant.get(f"/api/sites?{query}")
    assert shown["total"] == 3
    assert [site["site"] for site in shown["sites"]] == sites


def test_a_sites_ordering_key_has_its_share_and_a_forecast(plant: Figures) -> None:
    three_sites(plant)
    for minute in range(6):
        plant.keys = {"MOR": 400_000.0 + 10_000 * minute, "BAG": 1_100_000.0, "SIE": 5.0}
        plant.look()
        plant.clock.pass_(60)
    sie, mor, bag = plant.get("/api/sites?sort=key")["sites"]
    assert (mor["key_bytes_per_second"], mor["key_share"]) == (450_000.0, 0.45)
    assert mor["key_seconds_until_limit"] == pytest.approx(55 * 60)
    assert (sie["key_share"], sie["key_seconds_until_limit"]) == (0.000005, None)
    assert (bag["key_share"], bag["key_seconds_until_limit"]) == (1.1, 0.0)


# --- tags -----------------------------------------------------------------------------------------


def test_a_tag_has_its_last_reading_its_averages_and_its_habits(plant: Figures) -> None:
    for number in range(6):
        send(plant, 1, value=float(number))
        plant.clock.pass_(60)
    plant.look()
    shown = plant.get("/api/tags")
    assert shown["total"] == 1
    (tag,) = shown["tags"]
    last = plant.clock.now_us() - 60 * SECOND_US
    assert tag == {
        "site": "MOR",
        "pi_tag": "FT-101",
        "last_value": 5.0,
        "last_event_time": iso_us(last + 5),
        "last_received_at": iso_us(last),
        "age_seconds": 60.0,
        "usual_interval_seconds": 60.0,
        "average_1m": 5.0,
        "average_5m": 3.0,
        "average_30m": 2.5,
        "count_30m": 6,
        "clock_offset_seconds": -0.0,
        "out_of_order_30m": 0,
        "unchanged_seconds": 0.0,
        "states": [],
        "spark": [None] * 23 + [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, None],
    }


def test_one_tag_comes_with_its_minutes(plant: Figures) -> None:
    send(plant, 2, value=4.0)
    send(plant, 1, value=10.0)
    plant.look()
    shown = plant.get("/api/tag?site=MOR&pi_tag=FT-101")
    minute = plant.clock.now_us() // SECOND_US // 60 * 60
    assert shown["series"] == {
        "at": [minute],
        "average": [6.0],
        "minimum": [4.0],
        "maximum": [10.0],
        "count": [3],
    }
    assert "MOR" in plant.get("/api/tag?site=MOR&pi_tag=none", 404)["error"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("tags?limit=501", "limit=501: at most 500"),
        ("tags?limit=-1", "limit='-1': not a whole number"),
        ("tags?offset=٣", "not a whole number"),
        ("tags?offset=99999999999999999999", "not a whole number"),
        ("tags?state=sleepy", "state='sleepy': not one of stale, flat"),
        ("tags?sort=colour", "sort='colour': not one of tag, age"),
        ("tags?descending=yes", "descending='yes': not one of 0, 1"),
        ("sites?sort=tag", "sort='tag': not one of site, rate"),
        ("tag?site=MOR", "pi_tag is missing"),
        ("dead-letters?before=x", "before='x'"),
    ],
)
def test_a_bad_parameter_is_refused_in_words(plant: Figures, path: str, words: str) -> None:
    plant.look()
    assert words in plant.get(f"/api/{path}", 400)["error"]


# --- dead letters ---------------------------------------------------------------------------------


def letters(plant: Figures) -> None:
    plant.journal.append([], [rejection(b"one"), rejection(b"\xfftwo", "BAG"), rejection(b"three")])
    plant.look()


def test_letters_come_newest_first_with_how_many_there_are_of_each_reason(plant: Figures) -> None:
    letters(plant)
    shown = plant.get("/api/dead-letters?limit=2")
    assert shown["total"] == 3
    assert shown["reasons"] == {"payload_not_json": 2, "payload_not_utf8": 1}
    assert [letter["id"] for letter in shown["letters"]] == [3, 2]
    assert shown["letters"][1] == {
        "id": 2,
        "sink": None,
        "reason": "payload_not_utf8",
        "detail": "byte 0 of the payload is not UTF-8: invalid start byte",
        "site": "BAG",
        "topic": "FCTS/FAE/BAG/SolvExtract/FT-101",
        "payload_bytes": 4,
        "received_at": iso_us(plant.clock.now_us()),
        "event_id": None,
        "excerpt": "\\xfftwo",
    }
    shown = plant.get("/api/dead-letters?limit=2&before=2")
    assert [letter["id"] for letter in shown["letters"]] == [1]


@pytest.mark.parametrize(
    ("query", "total", "ids"),
    [
        ("reason=payload_not_json", 2, [3, 1]),
        ("site=BAG", 1, [2]),
        ("site=BAG&reason=payload_not_json", 0, []),
        ("sink=entrance", 3, [3, 2, 1]),
        ("sink=pubsub", 0, []),
    ],
)
def test_letters_can_be_chosen(plant: Figures, query: str, total: int, ids: list[int]) -> None:
    letters(plant)
    shown = plant.get(f"/api/dead-letters?{query}")
    assert shown["total"] == total
    assert [letter["id"] for letter in shown["letters"]] == ids


def test_one_letter_is_shown_as_text_or_as_a_dump(plant: Figures) -> None:
    letters(plant)
    text, raw = plant.get("/api/dead-letters/3"), plant.get("/api/dead-letters/2")
    assert (text["payload"]["text"], text["payload"]["hex"]) == ("three", None)
    assert raw["payload"]["text"] is None
    assert raw["payload"]["hex"].startswith("00000000  ff 74 77 6f")
    assert base64.b64decode(raw["payload"]["payload_base64"]) == b"\xfftwo"
    assert "no dead letter 4" in plant.get("/api/dead-letters/4", 404)["error"]
    assert "no dead letter" in plant.get(f"/api/dead-letters/{2**70}", 404)["error"]


def test_the_download_holds_what_the_export_command_writes(plant: Figures) -> None:
    letters(plant)
    many = [rejection(f"bad {number}".encode()) for number in range(50)]
    plant.journal.append([], many)
    answer = plant.client().get("/api/dead-letters.jsonl")
    assert answer.content_type == "application/x-ndjson"
    assert "attachment" in answer.headers["Content-Disposition"]
    downloaded = [json.loads(line) for line in answer.data.splitlines()]
    command = CliRunner().invoke(
        cli,
        ["dead-letters", "export"],
        env={"JOURNAL_PATH": str(plant.journal.path), "APP_ENV": "LOCAL"},
    )
    exported = [json.loads(line) for line in command.stdout.splitlines() if line.startswith("{")]
    assert len(exported) == 53
    assert downloaded == exported
    answer = plant.client().get("/api/dead-letters.jsonl?site=BAG")
    assert len(answer.data.splitlines()) == 1


def test_reading_letters_leaves_no_reading_of_the_journal_open(plant: Figures) -> None:
    letters(plant)
    for path in ("/api/dead-letters", "/api/dead-letters/1", "/api/dead-letters.jsonl"):
        assert plant.client().get(path).data
    assert rows(plant.journal.path, "PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0


# --- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_everything_is_closed_to_strangers_and_to_anything_but_get(
    plant: Figures, path: str
) -> None:
    client = plant.client(local=False)
    outside = {"Host": "bridge.example", "X-Forwarded-For": "203.0.113.9"}
    assert client.get(f"/api/{path}", headers=outside).status_code == 401
    bearer = outside | {"Authorization": "Bearer secret"}
    assert client.get(f"/api/{path}", headers=bearer).status_code in (200, 400, 404, 503)
    assert client.post(f"/api/{path}", headers=bearer).status_code == 405
    assert client.get(f"/api/{path}", headers=bearer).headers["Cache-Control"] == "no-store"
