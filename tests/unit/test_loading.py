"""How much of the journal is in memory for a sink."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import loading
from bridge.journal import Journal
from bridge.lanes import Lane
from bridge.loading import Loader
from tests.support.journals import opened
from tests.support.readings import reading

SHARE = 10


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with opened(tmp_path / "journal.db", sinks={"memory": "m"}) as made:
        yield made


def of_ten_sites(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, busy_in_trouble: bool
) -> Loader:
    """Nine of them have one reading, and the tenth a hundred behind those."""
    monkeypatch.setattr(loading, "MAX_BUFFERED", 10 * SHARE)
    monkeypatch.setattr(loading, "LANE_MIN", 3)
    sites = [f"S{number}" for number in range(9)] + ["BUSY"] * 100
    journal.append([reading(number, site) for number, site in enumerate(sites)], [])
    made = Loader(
        journal,
        lambda one: one.site,
        lambda lane: busy_in_trouble and lane.key == "BUSY",
        journal.resume("memory"),
    )
    made.lanes = {site: Lane(site) for site in sites}
    return made


def test_a_lane_that_works_may_hold_more_than_its_share_and_then_stops_the_others(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = of_ten_sites(journal, monkeypatch, busy_in_trouble=False)
    assert not loader.load()
    assert loader.lanes["BUSY"].size == loading.SHARES * SHARE
    assert loader.lanes["BUSY"].spilled is None
    assert loader.cursor == 9 + loading.SHARES * SHARE


def test_a_lane_in_trouble_is_left_behind_when_it_has_its_share(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = of_ten_sites(journal, monkeypatch, busy_in_trouble=True)
    held: list[int] = []
    spill = loader.spill

    def noted(lane: Lane, seq: int) -> None:
        held.append(lane.size)
        spill(lane, seq)

    monkeypatch.setattr(loader, "spill", noted)
    assert loader.load()
    assert held == [SHARE]
    assert loader.cursor == 9 + 100
    assert loader.lanes["BUSY"].size == 3
    assert loader.lanes["BUSY"].spilled == 9 + 3 + 1
