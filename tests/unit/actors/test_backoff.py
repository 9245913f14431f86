"""How long to wait: between attempts, between rounds, and when the service itself says so."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.actors.backoff import ROUND_LONGEST, parse_retry_after, retry_delay, round_delay


def test_attempts_are_one_two_and_four_seconds_apart() -> None:
    assert [retry_delay(n, base=1.0, jitter=0.1, uniform=lambda: 0.0) for n in (1, 2, 3)] == [1, 2, 4]


@given(st.integers(1, 10_000), st.floats(0.01, 60), st.floats(0, 1, exclude_max=True))
def test_jitter_only_lengthens_and_by_a_tenth_at_most(attempt: int, base: float, draw: float) -> None:
    exact = retry_delay(attempt, base=base, jitter=0.0, uniform=lambda: draw)
    assert exact <= retry_delay(attempt, base=base, jitter=0.1, uniform=lambda: draw) <= exact * 1.1


def test_rounds_are_a_recovery_timeout_apart_doubling_up_to_five_minutes() -> None:
    assert [round_delay(n, 60) for n in range(1, 6)] == [60, 120, 240, 300, 300]


@given(st.integers(1, 10**9), st.floats(0.01, 10_000))
def test_no_round_is_ever_further_away_than_five_minutes(rounds: int, recovery_timeout: float) -> None:
    assert 0 < round_delay(rounds, recovery_timeout) <= ROUND_LONGEST == 300


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 12 ", 12.0),
        ("999999", 300.0),
        ("9" * 500, 300.0),
        ("Sun, 09 Sep 2001 01:46:50 GMT", 10.0),
        ("Sunday, 09-Sep-01 01:46:50 GMT", 10.0),
        ("Sun, 09 Sep 2001 03:46:50 +0200", 10.0),
        ("Sun, 09 Sep 2001 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        (None, None),
        (30, None),
        (b"30", None),
    ],
)
def test_retry_after(header: object, seconds: float | None) -> None:
    assert parse_retry_after(header, cap=300.0, now=lambda: 1_000_000_000.0) == seconds


def test_a_date_without_a_zone_does_not_depend_on_where_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_retry_after("Sun, 09 Sep 2001 01:46:50", cap=300.0, now=lambda: 1_000_000_000.0) == 10.0
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(max_size=60))
def test_no_header_is_too_strange(header: str) -> None:
    found = parse_retry_after(header, cap=300.0)
    assert found is None or 0 <= found <= 300
