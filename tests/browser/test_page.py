"""The operators' page in a real browser, with the documents behind it as each test wants them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import PHONE, Visit
from tests.support.page_api import (
    PageApi,
    finding,
    letter,
    overview,
    serving,
    sink,
    site,
    tag,
)
from tests.support.poll import eventually

VIEWS = ("overview", "sites", "tags", "letters")
DETAILS = ("tags?at=MOR&tag=FLOW", "letters?id=2")
NASTY = "<img src=x onerror=alert(1)><script>alert('x')</script>"
WRONG = finding("wrong", "pubsub needs an operator: no such topic", "Run provision.")
NOTE = finding("attention", "8 readings became dead letters", "They are kept.")
LETTERS = [
    letter(1, "field_missing", b'{"site_code": "MOR"}'),
    letter(2, "payload_not_json", b"\xff\x00junk"),
    letter(3, "field_missing", b"{}", site="BAG"),
]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[PageApi, str]]:
    with serving() as api:
        yield api


@pytest.fixture
def api(served: tuple[PageApi, str]) -> PageApi:
    """A bridge without a care."""
    behind = served[0]
    behind.overview, behind.status, behind.words = overview(), 0, ""
    behind.sites = [site("BAG"), site("MOR")]
    behind.tags = [tag("FLOW"), tag("LEVEL", states=["stale"]), tag("PH", "BAG")]
    behind.letters = LETTERS
    return behind


@pytest.fixture
def visit(browser: Browser, served: tuple[PageApi, str], api: PageApi) -> Iterator[Visit]:
    with Visit(browser, served[1]) as made:
        yield made


@pytest.fixture
def phone(browser: Browser, served: tuple[PageApi, str], api: PageApi) -> Iterator[Visit]:
    with Visit(browser, served[1], viewport=PHONE, has_touch=True) as made:
        yield made


def rows(page: Page, view: str) -> list[str]:
    return [row.inner_text() for row in page.locator(f"#{view}-table tbody tr").all()]


# --- the banner -----------------------------------------------------------------------------------


def test_a_bridge_without_a_care_is_said_to_be_all_right(visit: Visit) -> None:
    page = visit.go("overview")
    expect(page.get_by_role("status")).to_have_text("✓ Everything is all right")
    assert page.title() == "✓ Everything is all right – FCTS bridge DEV"
    assert page.locator("#findings li").count() == 0


def test_what_is_wrong_is_said_with_since_when_and_what_to_do(visit: Visit, api: PageApi) -> None:
    held = sink("pubsub", held="no such topic", pending=42, error_since=WRONG["since"])
    api.overview = overview(verdict="wrong", findings=[WRONG, NOTE], sinks=[held])
    page = visit.go("overview")
    expect(page.get_by_role("status")).to_have_text("✗ 1 thing is wrong")
    first, second = page.locator("#findings li").all()
    expect(first).to_contain_text("no such topic")
    expect(first).to_contain_text("Run provision.")
    assert first.locator("time").get_attribute("title") == f"{WRONG['since']} (UTC)"
    expect(second).to_contain_text("! 8 readings became dead letters")
    expect(page.locator("#cards li.wrong")).to_contain_text("✗ no such topic")


def test_what_only_wants_attention_is_not_called_wrong(visit: Visit, api: PageApi) -> None:
    api.overview = overview(verdict="attention", findings=[NOTE])
    page = visit.go("overview")
    expect(page.get_by_role("status")).to_have_text("! It works; 1 thing needs attention")


def test_a_bridge_that_does_not_answer_is_said_so_until_it_does(visit: Visit, api: PageApi) -> None:
    visit.hurry()
    page = visit.go("overview")
    api.status, api.words = 503, "the disk is full"
    visit.renew()
    expect(page.get_by_role("status")).to_have_text("✗ No answer")
    expect(page.locator("#findings")).to_contain_text("the disk is full")
    expect(page.locator("#findings time")).to_have_count(1)
    api.status = 0
    visit.renew()
    expect(page.get_by_role("status")).to_have_text("✓ Everything is all right")


# --- the lists ------------------------------------------------------------------------------------


def test_a_search_finds_tags_and_can_be_linked(visit: Visit) -> None:
    page = visit.go("tags")
    assert len(rows(page, "tags")) == 3
    search = page.locator("#view-tags").get_by_label("Search")
    search.fill("flow")
    expect(page.locator("#tags-table tbody tr")).to_have_count(1)
    assert page.url.endswith("#tags?search=flow&order=tag")
    page.reload()
    expect(page.locator("#tags-table tbody tr")).to_have_count(1)
    expect(search).to_have_value("flow")


def test_tags_in_a_state_are_one_link_away_from_the_overview(visit: Visit) -> None:
    page = visit.go("overview")
    page.locator("#tag-states a").first.click()
    expect(page.locator("#tags-table tbody tr")).to_have_count(1)
    assert "LEVEL" in rows(page, "tags")[0]
    assert "silent" in rows(page, "tags")[0]


def test_a_tag_is_looked_at_more_closely(visit: Visit) -> None:
    page = visit.go("tags")
    page.get_by_role("link", name="MOR / FLOW").click()
    expect(page.locator("#tag")).to_be_visible()
    expect(page.locator("#tag-facts")).to_contain_text("Usual interval")
    expect(page.locator("#chart-tag canvas")).to_be_visible()
    page.get_by_role("link", name="Close").click()
    expect(page.locator("#tag")).to_be_hidden()


def test_dead_letters_are_filtered_and_read_byte_by_byte(visit: Visit) -> None:
    page = visit.go("letters")
    page.get_by_label("Reason").select_option("payload_not_json")
    expect(page.locator("#letters-table tbody tr")).to_have_count(1)
    download = page.get_by_role("link", name="Download these as JSON lines")
    assert download.get_attribute("href") == "api/dead-letters.jsonl?reason=payload_not_json"
    page.locator("#letters-table a").first.click()
    expect(page.locator("#letter-form")).to_have_text("Byte by byte, because it is no text")
    expect(page.locator("#letter-bytes")).to_contain_text("ff 00 6a 75 6e 6b")
    with page.expect_download() as started:
        page.get_by_role("link", name="Download the bytes").click()
    assert started.value.path().read_bytes() == b"\xff\x00junk"


def test_long_lists_come_in_pages(visit: Visit, api: PageApi) -> None:
    api.tags = [tag(f"T{number:03}") for number in range(120)]
    page = visit.go("tags")
    expect(page.locator("#view-tags .shown")).to_have_text("1 to 50 of 120 tags.")
    page.get_by_role("link", name="More →").click()
    expect(page.locator("#view-tags .shown")).to_have_text("51 to 100 of 120 tags.")
    page.get_by_role("link", name="More →").click()
    expect(page.locator("#tags-table tbody tr")).to_have_count(20)


def test_a_list_that_is_not_to_be_had_says_why(visit: Visit, api: PageApi) -> None:
    api.status, api.words = 503, "the figures of the tags are being made"
    page = visit.page
    page.goto(f"{visit.url}#tags")
    expect(page.locator("#view-tags .shown")).to_contain_text("the figures of the tags")


def test_only_what_is_visible_is_asked_for(visit: Visit, api: PageApi) -> None:
    visit.hurry()
    visit.go("overview")
    api.asked.clear()
    visit.renew()
    eventually(lambda: bool(api.asked), "the overview is renewed")
    assert {path.rstrip("?") for path in api.asked} == {"/api/overview"}


# --- for everybody --------------------------------------------------------------------------------


def test_nothing_is_wider_than_a_phone(phone: Visit) -> None:
    for view in (*VIEWS, *DETAILS):
        phone.go(view)
        assert phone.overflow == 0, view


def test_long_words_are_not_wider_than_a_phone_either(phone: Visit, api: PageApi) -> None:
    word = "W" * 128
    trouble = finding("wrong", word, word)
    api.overview = overview(
        verdict="wrong", findings=[trouble], sinks=[sink("pubsub", last_error=word, remedy=word)]
    )
    api.sites = [site(word, refused={word: 3})]
    api.tags = [tag(word, word)]
    api.letters = [letter(2, word, word.encode(), detail=word, site=word, topic=word)]
    for view in (*VIEWS, f"tags?at={word}&tag={word}", "letters?id=2"):
        phone.go(view)
        assert phone.overflow == 0, view


def serious(page: Page) -> list[Any]:
    found = Axe().run(page).response["violations"]
    return [
        (rule["id"], [node["html"] for node in rule["nodes"]])
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize(
    ("scheme", "views"),
    [("light", ("overview", "sites", *DETAILS)), ("dark", ("overview", DETAILS[1]))],
)
def test_it_can_be_read_by_screen_readers_and_with_weak_eyes(
    browser: Browser, served: tuple[PageApi, str], api: PageApi, scheme: str, views: tuple[str, ...]
) -> None:
    held = sink("pubsub", held="no such topic")
    api.overview = overview(verdict="wrong", findings=[WRONG, NOTE], sinks=[held, sink("bigquery")])
    with Visit(browser, served[1], color_scheme=scheme) as visit:
        for view in views:
            page = visit.go(view)
            assert serious(page) == [], view
        assert visit.complaints == []


def test_everything_is_reached_by_keyboard(visit: Visit) -> None:
    page = visit.go("overview")
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent"))
        width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert int(width.removesuffix("px")) >= 2
    assert reached == ["Skip to the figures", "Overview", "Sites", "Tags", "Dead letters"]
    page.keyboard.press("Enter")
    expect(page.locator("#letters-title")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Reason")).to_be_focused()


def test_the_first_link_skips_to_the_figures(visit: Visit) -> None:
    page = visit.go("overview")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_a_renewal_takes_neither_focus_nor_what_is_typed(visit: Visit, api: PageApi) -> None:
    visit.hurry()
    page = visit.go("tags")
    link = page.get_by_role("link", name="MOR / LEVEL")
    link.focus()
    api.tags = [tag("FLOW"), tag("LEVEL", last_value=99.5), tag("PH", "BAG")]
    visit.renew()
    expect(page.locator("#tags-table")).to_contain_text("99.5")
    expect(link).to_be_focused()


def test_each_chart_says_in_words_and_as_a_table_what_it_shows(visit: Visit) -> None:
    page = visit.go("overview")
    chart = page.locator("#chart-throughput")
    expect(chart.locator("figcaption")).to_contain_text("received: 106/s now, 106/s at most.")
    chart.locator("summary").click()
    expect(chart.locator("details tbody tr")).to_have_count(35)
    assert page.locator("canvas").count() == 3


def test_names_and_payloads_from_outside_stay_text(visit: Visit, api: PageApi) -> None:
    trouble = finding("wrong", NASTY, NASTY)
    held = sink(NASTY, held=NASTY, last_error=NASTY, remedy=NASTY)
    api.overview = overview(verdict="wrong", findings=[trouble], sinks=[held], environment=NASTY)
    api.sites = [site(NASTY, refused={NASTY: 1})]
    api.tags = [tag(NASTY, NASTY, states=[NASTY])]
    api.letters = [letter(2, NASTY, NASTY.encode(), detail=NASTY, site=NASTY, topic=NASTY)]
    for view in ("overview", "sites", "tags", "letters?id=2"):
        page = visit.go(view)
        expect(page.get_by_text(NASTY).first).to_be_attached()
        assert page.locator("img, main script").count() == 0
    page = visit.go("tags")
    page.get_by_role("link", name=NASTY).click()
    expect(page.locator("#tag-title")).to_have_text(f"{NASTY} / {NASTY}")
    assert visit.complaints == []


def test_without_the_charts_library_the_page_says_how_to_get_it(visit: Visit) -> None:
    visit.page.route("**/vendor/*", lambda route: route.fulfill(status=404))
    page = visit.go("overview")
    expect(page.locator("#no-charts")).to_be_visible()
    expect(page.locator("#no-charts")).to_contain_text("make vendor")
    expect(page.locator("#chart-throughput figcaption")).to_contain_text("received: 106/s now")
