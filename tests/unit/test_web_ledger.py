"""The ledger as `/ledger` shows it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.snapshot import OTHER_SITE, Ledger, SinkCounts, SiteCounts
from bridge.web.ledger import MAX_SITES, folded, ledger_document, summed
from tests.support.daemon import line

counts = st.integers(0, 1000)
sink_counts = st.builds(SinkCounts, counts, counts, counts, counts)
lines = st.builds(
    SiteCounts,
    counts,
    counts,
    counts,
    counts,
    st.dictionaries(st.sampled_from(["pubsub", "bigquery", "log"]), sink_counts),
)
site_names = st.one_of(st.text(max_size=3), st.just(OTHER_SITE))


def test_the_document_has_the_shape_of_the_contract() -> None:
    mor = line(
        9, duplicates=1, rejected=1, pubsub=SinkCounts(settled=7), bigquery=SinkCounts(6, 0, 1)
    )
    assert ledger_document(Ledger({"MOR": mor}, taken=9), ["pubsub", "bigquery"]) == {
        "balanced": True,
        "sites": {
            "MOR": {
                "received": 9,
                "accepted": 7,
                "duplicates": 1,
                "rejected": 1,
                "sinks": {
                    "pubsub": {"settled": 7, "pending": 0, "dead_lettered": 0},
                    "bigquery": {"settled": 6, "pending": 0, "dead_lettered": 1},
                },
            }
        },
        "totals": {
            "received": 9,
            "accepted": 7,
            "duplicates": 1,
            "rejected": 1,
            "sinks": {
                "pubsub": {"settled": 7, "pending": 0, "dead_lettered": 0},
                "bigquery": {"settled": 6, "pending": 0, "dead_lettered": 1},
            },
            "taken": 9,
        },
    }


def test_skipped_readings_appear_where_there_are_any() -> None:
    sites = {"A": line(3, log=SinkCounts(skipped=3)), "B": line(1, log=SinkCounts(settled=1))}
    document = ledger_document(Ledger(sites, 0), [])
    assert document["sites"]["A"]["sinks"]["log"]["skipped"] == 3
    assert "skipped" not in document["sites"]["B"]["sinks"]["log"]
    assert document["totals"]["sinks"]["log"]["skipped"] == 3
    assert document["balanced"] is True


def test_one_site_out_of_balance_unbalances_the_ledger() -> None:
    sites = {"A": line(3, log=SinkCounts(settled=3)), "B": line(3, log=SinkCounts(settled=2))}
    assert ledger_document(Ledger(sites, 6), [])["balanced"] is False


def test_an_empty_ledger_still_names_the_running_sinks_in_its_totals() -> None:
    document = ledger_document(Ledger({}, 0), ["log"])
    nothing = {"settled": 0, "pending": 0, "dead_lettered": 0}
    assert document["sites"] == {}
    assert document["totals"]["sinks"] == {"log": nothing}


def test_past_ten_thousand_sites_the_rest_fold_into_one_line() -> None:
    sites = {f"site {number}": line(1) for number in range(MAX_SITES + 3)}
    document = ledger_document(Ledger(sites, 0), [])
    assert len(document["sites"]) == MAX_SITES + 1
    assert document["sites"][OTHER_SITE]["received"] == 3
    assert document["totals"]["received"] == MAX_SITES + 3


def test_exactly_ten_thousand_sites_are_shown_one_by_one() -> None:
    sites = {f"site {number}": line(1) for number in range(MAX_SITES)}
    assert OTHER_SITE not in ledger_document(Ledger(sites, 0), [])["sites"]


def test_the_first_to_appear_keep_their_line() -> None:
    sites = {"late in the alphabet": line(1), "b": line(50), "a": line(100)}
    assert list(folded(sites, 2)) == ["late in the alphabet", "b", OTHER_SITE]


def test_what_is_folded_already_stays_in_the_folded_line() -> None:
    sites = {OTHER_SITE: line(5), "a": line(1), "b": line(2)}
    assert folded(sites, 1) == {"a": line(1), OTHER_SITE: line(7)}
    assert folded(sites, 2) == sites


@given(st.dictionaries(site_names, lines, max_size=8), st.integers(1, 8))
def test_folding_never_changes_the_sum(sites: dict[str, SiteCounts], limit: int) -> None:
    assert summed(folded(sites, limit).values()) == summed(sites.values())
    assert len([site for site in folded(sites, limit) if site != OTHER_SITE]) <= limit


@given(st.lists(st.tuples(site_names, counts), max_size=12), st.integers(1, 4))
def test_no_line_ever_shrinks_while_sites_are_added(
    arrivals: list[tuple[str, int]], limit: int
) -> None:
    sites: dict[str, SiteCounts] = {}
    before: dict[str, SiteCounts] = {}
    for site, received in arrivals:
        sites[site] = summed([sites.get(site, line(0)), line(received)])
        now = folded(sites, limit)
        assert all(now[name].received >= shown.received for name, shown in before.items())
        before = now
