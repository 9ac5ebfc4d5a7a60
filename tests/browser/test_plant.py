"""The operators' page on a real bridge, between a real broker and the local Google services."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, expect

from chaos.bridge_process import Bridge
from localgcp.faults import Fault
from tests.browser.chromium import Visit
from tests.support.plant import Plant, numbered, plant, settle

READINGS = 500
JUNK = [
    ("FCTS/FAE/MOR/SolvExtract/SX1-FLOW-1", b"\xff\xfe"),
    ("FCTS/FAE/MOR/SolvExtract/SX1-FLOW-1", b"Bad Input"),
    ("FCTS/FAE/BAG/SolvExtract/SX1-FLOW-1", b"Bad Input"),
    ("FCTS/FAE/MOR/SolvExtract/SX1-FLOW-1", b""),
]


class Running(NamedTuple):
    plant: Plant
    bridge: Bridge
    url: str


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A plant whose bridge has settled some readings and refused four."""
    with plant(tmp_path_factory.mktemp("plant")) as made:
        bridge = made.bridge()
        bridge.start()
        made.publish([*numbered(READINGS), *JUNK])
        settle(bridge, READINGS)
        yield Running(made, bridge, f"http://127.0.0.1:{bridge.port}/")
        bridge.terminate()


@pytest.fixture
def visit(browser: Browser, running: Running) -> Iterator[Visit]:
    with Visit(browser, running.url) as made:
        yield made
        assert made.complaints == []


def test_the_banner_follows_a_sink_that_goes_away_and_comes_back(
    visit: Visit, running: Running
) -> None:
    page = visit.go("overview")
    banner, card = page.get_by_role("status"), page.locator("#cards li", has_text="pubsub")
    expect(banner).not_to_contain_text("wrong")
    expect(card).to_contain_text("✓ takes readings")
    denied = Fault("pubsub.Publish", status="PERMISSION_DENIED", times=None)
    running.plant.services.faults.add(denied)
    running.plant.publish(numbered(50, first=READINGS))
    expect(banner).to_contain_text("wrong")
    expect(page.locator("#findings")).to_contain_text("pubsub")
    expect(card).to_contain_text("✗")
    expect(card.locator("dl > div", has_text="Waiting")).to_contain_text("50")
    running.plant.services.faults.clear()
    settle(running.bridge, READINGS + 50)
    expect(banner).not_to_contain_text("wrong")
    expect(card).to_contain_text("✓ takes readings")


def test_each_site_shows_its_ledger_line_with_a_check_mark(visit: Visit) -> None:
    page = visit.go("sites")
    line = page.locator("#sites-table tr", has_text="MOR")
    expect(line).to_contain_text("✓ yes")
    expect(line).to_contain_text("payload_not_utf8 1")
    expect(page.locator("#sites-table tbody tr")).to_have_count(5)


def test_tags_are_found_and_show_what_the_journal_holds_of_them(visit: Visit) -> None:
    page = visit.go("tags?search=FLOW-7&site=CHI")
    expect(page.locator("#tags-table tbody tr")).to_have_count(0)
    page.locator("#view-tags").get_by_label("Site").fill("SIE")
    row = page.locator("#tags-table tbody tr")
    expect(row).to_have_count(1)
    row.get_by_role("link").click()
    expect(page.locator("#tag-facts")).to_contain_text("Readings in 30 minutes")
    expect(page.locator("#chart-tag canvas")).to_be_visible()


def test_dead_letters_are_filtered_read_and_downloaded(visit: Visit, running: Running) -> None:
    page = visit.go("letters")
    expect(page.locator("#letters-table tbody tr")).to_have_count(4)
    page.get_by_label("Reason").select_option("payload_not_json")
    expect(page.locator("#letters-table tbody tr")).to_have_count(3)
    page.locator("#view-letters").get_by_label("Site").fill("BAG")
    expect(page.locator("#letters-table tbody tr")).to_have_count(1)
    address = page.locator("#letters-download").get_attribute("href")
    with urllib.request.urlopen(f"{running.url}{address}") as answer:
        assert len(answer.read().splitlines()) == 1
    page.locator("#letters-table a").first.click()
    expect(page.locator("#letter-bytes")).to_have_text("Bad Input")
