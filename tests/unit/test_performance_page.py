"""The page's tables are those of the record, and the record is whole."""

from __future__ import annotations

import json

from bench.__main__ import SECTIONS
from bench.page import PAGE, RESULTS, page_with_results


def test_the_page_shows_the_record() -> None:
    page = PAGE.read_text()
    assert page_with_results(page, json.loads(RESULTS.read_text())) == page


def test_the_record_is_of_a_whole_run() -> None:
    document = json.loads(RESULTS.read_text())
    assert not document["quick"]
    assert set(document["sections"]) == set(SECTIONS)
