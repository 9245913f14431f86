"""One browser and one house for a module's tests; each test begins with a house that is well, and a fresh page.

No longer than that: Playwright keeps an event loop running in the thread, and other tests have loops of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import chromium
from tests.browser.house import House


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def shared_house(browser: Browser) -> Iterator[House]:
    """Asks for the browser, so that nothing is started where there is none."""
    expect.set_options(timeout=15_000)
    with tempfile.TemporaryDirectory(prefix="seawall-house-") as folder, House(Path(folder)) as running:
        yield running


@pytest.fixture
def house(shared_house: House) -> House:
    shared_house.heal(forget=True)
    return shared_house


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Fails the test for what its script throws, and for what the content policy forbids."""
    context = browser.new_context(reduced_motion="reduce")
    fresh = context.new_page()
    complaints: list[str] = []
    fresh.on("pageerror", lambda error: complaints.append(str(error)))
    fresh.on(
        "console",
        lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None,
    )
    yield fresh
    context.close()
    assert complaints == []
