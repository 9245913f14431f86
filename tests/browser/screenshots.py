"""`python -m tests.browser.screenshots [NAME]...`: pictures of the page in each state, of a real house, into docs/images/."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.chromium import chromium
from tests.browser.house import House
from tests.support import Answer

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
#: Bytes of a picture: the repository keeps them all for ever.
LARGEST = 150_000
WIDE: ViewportSize = {"width": 1240, "height": 860}
LOW: ViewportSize = {"width": 1240, "height": 620}
PHONE: ViewportSize = {"width": 390, "height": 844}
#: Seconds of traffic before the first picture.
WARM_UP = 12.0


def healthy(house: House, page: Page) -> None:
    expect(page.locator("h1")).to_contain_text("healthy", timeout=30_000)


def outage(house: House, page: Page) -> None:
    house.fall_ill("search")
    house.clients["search"].enqueue_many(("POST", f"/index/{index}") for index in range(1204))
    expect(page.locator("h1")).to_have_text("Search is down", timeout=10_000)
    expect(page.locator("#headline")).to_contain_text("open for 12 s", timeout=30_000)


def half_open(house: House, page: Page) -> None:
    gate = threading.Event()
    house.services["billing"].script("/health", Answer(hold=gate))
    house.fall_ill("billing")
    expect(page.locator("#service-billing")).to_contain_text("Half-open", timeout=15_000)


def dead_letters(house: House, page: Page) -> None:
    house.bury("git", 1500)
    page.locator("#filter select").first.select_option("git")
    page.locator("#letters summary").first.click()
    page.get_by_role("button", name="Replay all").click()
    page.get_by_role("dialog").get_by_role("button", name="Replay all").click()
    expect(page.locator("#replay")).to_contain_text("Replaying", timeout=5_000)
    page.wait_for_function("() => document.querySelector('#replay progress')?.value > 400")
    page.locator("#dead-title").scroll_into_view_if_needed()
    page.evaluate("() => scrollTo(0, document.getElementById('dead-title').offsetTop - 20)")


def lost_contact(house: House, page: Page) -> None:
    house.send("web", signal.SIGSTOP)
    expect(page.locator("#lost")).to_be_visible(timeout=15_000)


#: In this order; each begins with a house that is well.
SCENES: dict[str, tuple[Callable[[House, Page], None], ViewportSize, bool]] = {
    "healthy": (healthy, WIDE, False),
    "dark": (healthy, WIDE, True),
    "outage": (outage, WIDE, False),
    "phone": (outage, PHONE, False),
    "half-open": (half_open, WIDE, False),
    "lost-contact": (lost_contact, WIDE, False),
    "dead-letters": (dead_letters, LOW, False),
}


def main(names: list[str]) -> None:
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="seawall-house-") as folder,
        chromium() as browser,
        House(Path(folder)) as house,
    ):
        house.seed_hour()
        with house.traffic():
            time.sleep(WARM_UP)
            for name in names or SCENES:
                _take(house, browser, name)


def _take(house: House, browser: Browser, name: str) -> None:
    play, size, dark = SCENES[name]
    house.heal()
    page = browser.new_page(viewport=size, color_scheme="dark" if dark else "light", reduced_motion="reduce")
    page.goto(house.url)
    expect(page.locator("#contact")).to_have_text("live", timeout=10_000)
    play(house, page)
    file = IMAGES / f"{name}.png"
    page.screenshot(path=file)
    house.send("web", signal.SIGCONT)
    page.close()
    print(f"{file.name}: {file.stat().st_size:,} bytes", flush=True)
    if file.stat().st_size > LARGEST:
        raise SystemExit(f"{file.name} is larger than {LARGEST} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
