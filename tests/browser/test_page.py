"""The page in a browser, over a real house: an outage, buttons, a replay, loss of contact, a phone, the keyboard."""

from __future__ import annotations

import re
import signal
import threading

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.chromium import AXE, violations
from tests.browser.house import House
from tests.support import Answer, wait_until
from tests.support.ports import free_port

PHONE: ViewportSize = {"width": 390, "height": 844}


def open_page(page: Page, house: House) -> None:
    page.goto(house.url)
    expect(page.locator("#contact")).to_have_text("live")


def confirm(page: Page, label: str) -> None:
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name=label).click()
    expect(dialog).to_be_hidden()


def assert_fits(page: Page) -> None:
    """Nothing is wider than the screen."""
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def assert_accessible(page: Page) -> None:
    """axe-core has nothing to say, in either colour scheme."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: make setup-browser")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == [], scheme


def test_an_outage_is_seen_live_from_its_beginning_to_its_end(page: Page, house: House) -> None:
    open_page(page, house)
    headline, billing = page.locator("#headline"), page.locator("#service-billing")
    expect(headline.get_by_role("heading")).to_have_text("All 4 services are healthy")
    expect(billing).to_contain_text("Closed healthy")
    gate, seen = threading.Event(), threading.Event()
    house.services["billing"].script("/health", lambda _: Answer(200, hold=gate) if seen.is_set() else Answer(503))
    house.fall_ill("billing")
    house.clients["billing"].enqueue_many(("POST", f"/invoices/{number}") for number in range(12))
    expect(headline.get_by_role("heading")).to_have_text("Billing is down")
    expect(headline).to_contain_text("12 calls wait, next trial in")
    expect(headline).to_contain_text("Server error 503")
    expect(page).to_have_title("Billing is down · Seawall")
    expect(page.locator("#services > li").first).to_have_id("service-billing")
    expect(billing).to_contain_text("12 held")
    house.services["billing"].script("*", Answer())
    seen.set()
    expect(billing).to_contain_text("Half-open")
    expect(headline.get_by_role("heading")).to_have_text("Billing is being tried")
    gate.set()
    # With the next sample of the counts, the calls that failed a moment ago are part of the last minute's.
    expect(billing).to_contain_text(re.compile("Closed (healthy|back for)"))
    expect(headline.get_by_role("heading")).to_have_text("All 4 services are healthy")
    billing.get_by_text("History").click()
    expect(billing.get_by_role("heading", name="Outages")).to_be_visible()
    expect(billing).to_contain_text("MTTR")
    expect(billing.locator("details")).to_have_attribute("open", "")  # updates leave it open


def test_opening_and_closing_by_hand_asks_first_and_is_noted(page: Page, house: House) -> None:
    open_page(page, house)
    search = page.locator("#service-search")
    page.get_by_role("button", name="Open the breaker of Search").click()
    dialog = page.get_by_role("dialog", name="Open the breaker of Search?")
    expect(dialog).to_contain_text("stays open until somebody closes it")
    assert_accessible(page)
    dialog.get_by_role("button", name="Cancel").click()
    assert house.status("search")["state"] == "closed"
    page.get_by_role("button", name="Open the breaker of Search").click()
    confirm(page, "Open")
    expect(search).to_contain_text("held open by hand")
    expect(page.locator("#headline h1")).to_have_text("Search is shut off by hand")
    assert house.status("search")["forced"]
    expect(page.locator("#audit tbody tr").first).to_contain_text("someone at 127.0.0.1open")
    page.get_by_role("button", name="Close the breaker of Search").click()
    confirm(page, "Close")
    expect(search).to_contain_text("Closed healthy")
    expect(page.locator("#audit tbody tr").first).to_contain_text("closesearch")


def test_everything_can_be_done_by_keyboard(page: Page, house: House) -> None:
    open_page(page, house)
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    _tab_to(page, "Pause the background calls of Billing")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    _tab_to(page, "Pause")
    page.keyboard.press("Enter")
    expect(page.locator("#service-billing")).to_contain_text("Paused by hand")
    _tab_to(page, "Resume the background calls of Billing")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert house.status("billing")["paused"]
    assert _focused(page) == "Resume the background calls of Billing"  # where the person was, through all updates


def _tab_to(page: Page, label: str) -> None:
    for _ in range(80):
        if _focused(page) == label:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no Tab leads to {label!r}")


def _focused(page: Page) -> str:
    found: str = page.evaluate("() => document.activeElement.ariaLabel || document.activeElement.textContent.trim()")
    return found


def test_a_replay_shows_how_far_it_is(page: Page, house: House) -> None:
    house.bury("git", 150)
    house.services["git"].clear()
    open_page(page, house)
    expect(page.locator("#dead")).to_contain_text("150 of Git Server")
    page.locator("#filter select").nth(0).select_option("git")
    page.locator("#filter select").nth(1).select_option("rounds used up")
    letters = page.locator("#letters")
    expect(letters).to_contain_text("The first 50 are shown")
    letters.locator("summary").first.click()
    expect(letters.locator("details").first).to_contain_text("attempts")
    expect(letters.locator("details").first).to_contain_text("Server error 500")
    page.get_by_role("button", name="Replay all dead letters of git").click()
    confirm(page, "Replay all")
    bar = page.locator("#replay progress")
    expect(bar).to_have_attribute("max", "150")
    seen = page.wait_for_function(
        "() => { const at = document.querySelector('#replay progress').value; return at > 0 && at }"
    )
    assert seen.json_value() <= 150
    expect(page.locator("#replay")).to_contain_text("150 of 150 queued again")
    expect(page.locator("#dead")).to_contain_text("None: every accepted call was delivered")
    expect(letters).to_contain_text("None of this kind")
    assert_accessible(page)
    # Its schedule may ask for something else meanwhile.
    wait_until(lambda: sum(one.path.startswith("/snapshot/") for one in house.services["git"].requests) == 150, 15)
    expect(page.locator("#audit tbody tr").first).to_contain_text("replay")


def test_one_dead_letter_can_be_purged(page: Page, house: House) -> None:
    house.bury("git", 2)
    open_page(page, house)
    letters = page.locator("#letters")
    expect(letters.locator("li[id]")).to_have_count(2)
    letters.locator("summary").first.click()
    letters.get_by_role("button", name="Purge this dead letter").click()
    confirm(page, "Purge")
    expect(letters.locator("li[id]")).to_have_count(1)
    assert house.status("git")["dead"] == 1


def test_a_letter_that_goes_leaves_the_opened_ones_open(page: Page, house: House) -> None:
    house.bury("search", 3)
    open_page(page, house)
    letters = page.locator("#letters")
    expect(letters.locator("li[id]")).to_have_count(3)
    last = letters.locator("li[id]").last
    opened = page.locator(f"#{last.get_attribute('id')} details")
    opened.locator("summary").click()
    expect(opened).to_have_attribute("open", "")
    first = letters.locator("li[id]").first
    first.locator("summary").click()
    first.get_by_role("button", name="Purge this dead letter").click()
    confirm(page, "Purge")
    expect(letters.locator("li[id]")).to_have_count(2)
    expect(opened).to_have_attribute("open", "")


def test_lost_contact_is_said_and_ends_by_itself(page: Page, house: House) -> None:
    open_page(page, house)
    lost = page.get_by_role("alert").filter(has_text="No contact with the web process since")
    house.send("web", signal.SIGSTOP)
    try:
        expect(lost).to_be_visible()
        assert_accessible(page)
    finally:
        house.send("web", signal.SIGCONT)
    expect(lost).to_be_hidden()
    expect(page.locator("#contact")).to_have_text("live")
    house.end("web")
    expect(lost).to_be_visible()
    house.start("web")
    expect(lost).to_be_hidden()
    expect(page.locator("#contact")).to_have_text("live")


def test_a_broker_that_is_away_is_said_and_its_return_too(page: Page, house: House) -> None:
    open_page(page, house)
    house.broker.kill()
    try:
        expect(page.locator("#headline h1")).to_have_text("No contact with the broker")
        expect(page.locator("#headline")).to_contain_text("Last contact")
        expect(page.locator("#contact")).to_have_text("broker away")
        expect(page.locator("#contact .dot")).to_have_css("background-color", "rgba(0, 0, 0, 0)")
        assert_accessible(page)
    finally:
        house.broker.restart()
    expect(page.locator("#headline h1")).to_have_text("All 4 services are healthy")


def test_an_outage_on_a_phone(page: Page, house: House) -> None:
    page.set_viewport_size(PHONE)
    house.bury("git", 2)
    house.fall_ill("search")
    open_page(page, house)
    expect(page.locator("#headline h1")).to_have_text("Search is down")
    expect(page.locator("#headline")).to_be_in_viewport()
    assert_fits(page)
    for summary in page.locator("summary").all():
        summary.click()
    assert_fits(page)
    assert_accessible(page)


def test_logging_in_and_out(page: Page, house: House) -> None:
    house.start("web", "guarded", "--port", str(port := free_port()), SEAWALL_WEB_TOKEN="w3b-t0ken")
    url = f"http://127.0.0.1:{port}"
    house.wait_web(url)
    page.goto(url)
    expect(page).to_have_url(f"{url}/login")
    assert_accessible(page)
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    page.get_by_label("Token").fill("w3b-t0ken")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#contact")).to_have_text("live")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    page.get_by_role("button", name="Reset the breaker of Mail").click()
    confirm(page, "Reset")
    expect(page.locator("#audit tbody tr").first).to_contain_text("Adaresetmail")
    other = page.context.new_page()
    other.goto(url)
    expect(other.locator("#contact")).to_have_text("live")
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{url}/login")
    expect(other).to_have_url(f"{url}/login", timeout=15_000)  # its stream ended with the session
    page.goto(url)
    expect(page).to_have_url(f"{url}/login")


def test_without_javascript_everything_is_shown(house: House, page: Page) -> None:
    assert page.context.browser is not None
    house.bury("git", 1)
    context = page.context.browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(f"{house.url}/?service=git")
    wait_until(lambda: plain.locator("h1").text_content() == "All 4 services are healthy" or not plain.reload())
    expect(plain.locator(".hint")).to_be_visible()
    expect(plain.locator(".hint")).to_contain_text("shows everything without JavaScript")
    expect(plain.locator("#letters")).to_contain_text("POST /snapshot/0")
    expect(plain.get_by_role("button", name="Open the breaker of Mail")).to_be_hidden()
    context.close()


@pytest.mark.parametrize("width", [390, 1240])
def test_a_house_that_is_well_has_nothing_to_complain_of(page: Page, house: House, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 860})
    open_page(page, house)
    assert_fits(page)
    assert_accessible(page)
