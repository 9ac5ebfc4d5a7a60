"""The operators' page: what it says, and that what comes from outside stays text."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import pytest

from bridge.snapshot import SinkCounts, SiteCounts
from bridge.web.app import create_app
from bridge.web.page import MAX_SITES, duration, page, size, when
from tests.support.clock import ManualClock
from tests.support.daemon import FakeDaemon, calm_state, line, sink_state

NASTY = "<script>alert('x')</script>\"&{{7*7}}"


def html(daemon: FakeDaemon, local: bool = True) -> str:
    app = create_app(daemon, token=lambda: None, local=local, clock=ManualClock())
    answer = app.test_client().get("/", headers={"Host": "localhost"})
    assert answer.status_code == 200
    return answer.get_data(as_text=True)


class Text(HTMLParser):
    """The words of a page, and the tags they stand in."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)
        self.all = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def words(daemon: FakeDaemon) -> str:
    return Text(html(daemon)).all


def test_a_calm_bridge_is_all_right() -> None:
    calm = FakeDaemon(sites={"MOR": line(1, pubsub=SinkCounts(1), bigquery=SinkCounts(1))})
    shown = words(calm)
    assert "✓ Everything is all right" in shown
    assert "✗" not in shown
    assert "Worth knowing" not in shown


@pytest.mark.parametrize(
    ("daemon", "what", "remedy"),
    [
        (FakeDaemon(stalled_part="the journal's thread"), "the journal's thread", "restart it"),
        (
            FakeDaemon(calm_state(unready="not connected", mqtt_connected=False)),
            "not connected",
            "MQTT_BROKER",
        ),
        (FakeDaemon(calm_state(unready="the journal is full")), "is full", "wait at the broker"),
        (FakeDaemon(calm_state(loss="12 readings are gone")), "12 readings", "clear-journal-loss"),
        (
            FakeDaemon(calm_state(sinks=(sink_state(held="no table: run provision"),))),
            "pubsub needs an operator: no table: run provision",
            "Nothing is lost",
        ),
        (
            FakeDaemon(calm_state(sinks=(sink_state(last_error="deadline exceeded"),))),
            "pubsub does not take readings just now: deadline exceeded",
            "Nothing to do yet",
        ),
        (
            FakeDaemon(calm_state(sinks=(sink_state(pending=9, oldest_pending_seconds=3700),))),
            "pubsub is 1 h 1 min behind",
            "quota",
        ),
        (
            FakeDaemon(
                calm_state(
                    journal_seconds_until_full=5400.0,
                    sinks=(sink_state(oldest_pending_seconds=90.0),),
                )
            ),
            "full in 1 h 30 min",
            "JOURNAL_MAX_BYTES",
        ),
        (
            FakeDaemon(sites={"MOR": line(2, pubsub=SinkCounts(1))}),
            "does not balance: MOR",
            "report it",
        ),
    ],
)
def test_each_trouble_is_named_with_its_remedy(daemon: FakeDaemon, what: str, remedy: str) -> None:
    shown = words(daemon)
    assert "✗ Something is wrong" in shown
    assert "Everything is all right" not in shown
    assert what in shown
    assert remedy in shown


def test_several_troubles_are_counted_in_the_headline() -> None:
    daemon = FakeDaemon(calm_state(loss="some", unready="not subscribed"))
    assert "2 things are wrong" in words(daemon)


@pytest.mark.parametrize(
    ("daemon", "what", "remedy"),
    [
        (FakeDaemon(calm_state(sessions_lost=1)), "session once", "MQTT_CLIENT_ID"),
        (FakeDaemon(calm_state(sessions_lost=3)), "session 3 times", "persistence"),
        (FakeDaemon(calm_state(broker_dropped=1200)), "dropped 1,200", "max_queued_messages"),
        (FakeDaemon(calm_state(qos0_dropped=4)), "4 messages of QoS 0", "QoS 1"),
        (FakeDaemon(calm_state(rejected_by_reason={"a": 2, "b": 1})), "3 readings", "dead-letters"),
        (
            FakeDaemon(sites={"A": line(2, pubsub=SinkCounts(0, 0, 2))}),
            "2 readings",
            "dead-letters",
        ),
    ],
)
def test_what_is_over_is_worth_knowing_and_does_not_spoil_the_headline(
    daemon: FakeDaemon, what: str, remedy: str
) -> None:
    shown = words(daemon)
    assert "✓ Everything is all right" in shown
    assert "Worth knowing" in shown
    assert what in shown
    assert remedy in shown


def test_names_and_errors_from_outside_stay_text() -> None:
    daemon = FakeDaemon(
        calm_state(
            unready=NASTY,
            loss=NASTY,
            sinks=(sink_state(NASTY, held=NASTY, last_error=NASTY, pending=1),),
        ),
        {NASTY: SiteCounts(1, 1, 0, 0, {NASTY: SinkCounts()})},
        stalled_part=NASTY,
    )
    source = html(daemon)
    shown = Text(source)
    assert "script" not in {tag for tag, _ in shown.tags}
    assert NASTY in shown.all
    assert "<script" not in source
    assert "49" not in shown.all


def test_the_page_needs_no_script_and_renews_itself() -> None:
    tags = Text(html(FakeDaemon())).tags
    assert ("meta", {"http-equiv": "refresh", "content": "10"}) in tags
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert not [attributes for _, attributes in tags if "style" in attributes]


def test_every_table_has_a_caption_and_every_heading_a_scope() -> None:
    tags = Text(html(FakeDaemon(sites={"MOR": line(1)}))).tags
    names = [tag for tag, _ in tags]
    assert names.count("table") == names.count("caption") == 2
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")


def test_rows_have_a_cell_for_every_column() -> None:
    sites = {
        "A": line(3, pubsub=SinkCounts(2, 0, 0, 1), bigquery=SinkCounts(3)),
        "B": line(1, rejected=1),
    }
    for source in (html(FakeDaemon(sites=sites)), html(FakeDaemon(sites={"A": line(1)}))):
        body = source.split('id="ledger"')[1].split("<tbody>")[1].split("</table>")[0]
        rows = [row.count("<td") + row.count("<th") for row in body.split("<tr>")[1:]]
        assert len(set(rows)) == 1


def test_the_first_sites_are_shown_and_the_rest_is_mentioned() -> None:
    sites = {f"site {number:04}": line(1) for number in range(MAX_SITES + 50)}
    shown = words(FakeDaemon(sites=sites))
    assert "site 0199" in shown
    assert "site 0200" not in shown
    assert "Only the first 200 sites are shown; 50 more" in shown
    assert "All sites ✓ yes 250" in shown


def test_a_site_out_of_balance_is_named_even_where_its_line_is_not_shown() -> None:
    sites = {f"site {number:04}": line(1) for number in range(MAX_SITES + 1)}
    sites["the last"] = line(1, pubsub=SinkCounts())
    sites[""] = line(1, pubsub=SinkCounts())
    assert "does not balance: the last, (malformed topics)" in words(FakeDaemon(sites=sites))


def test_many_sites_out_of_balance_are_named_in_part() -> None:
    sites = {f"s{number}": line(1, log=SinkCounts()) for number in range(12)}
    finding = page(calm_state(), FakeDaemon(sites=sites).ledger(), None).wrong[-1]
    assert finding.what.endswith("s9 and 2 more")


def test_local_says_that_nothing_is_sent() -> None:
    assert "only logged" in html(FakeDaemon(), local=True)
    assert "only logged" not in html(FakeDaemon(), local=False)


def test_the_page_says_of_what_moment_it_is() -> None:
    assert "2026-09-21T14:13:20" in words(FakeDaemon())


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1.0, "0.0 s"),
        (0.25, "0.2 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3661, "1 h 1 min"),
        (86_400 * 3 + 7200, "3 d 2 h"),
        (math.inf, "for ever"),
    ],
)
def test_durations_read_well(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_what_never_comes_is_not_in_sight() -> None:
    assert when(math.inf) == "not in sight"
    assert when(90) == "in 1 min 30 s"


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 * 1024**2, "5.0 MiB"),
        (4 * 1024**3, "4.0 GiB"),
        (2048 * 1024**3, "2048.0 GiB"),
    ],
)
def test_sizes_read_well(octets: int, shown: str) -> None:
    assert size(octets) == shown
