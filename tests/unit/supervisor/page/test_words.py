"""What an operator reads first."""

from __future__ import annotations

from typing import Any

import pytest

from seawall import alert_hook
from seawall.supervisor.page.words import ALERTS_KEY, UNBROKEN, Headline, headline, judge

WELL: dict[str, Any] = {
    "service": "Billing",
    "key": "billing",
    "state": "closed",
    "consecutive_failures": 0,
    "failure_threshold": 5,
    "opened_at": None,
    "retry_after": 0.0,
    "last_error": None,
    "as_of": 1000.0,
    "forced": False,
    "paused": False,
    "queued": 0,
    "held": 0,
    "due_later": 0,
    "dead": 0,
    "workers": 1,
    "oldest_waiting": 0.0,
    "rate": 2.0,
    "error_share": 0.0,
}
OPEN = {"state": "open", "opened_at": 958.0, "retry_after": 18.0, "last_error": "Server error 503", "held": 1204}
BACK = {"service": "billing", "began": 946.0, "ended": 988.0, "seconds": 42.0, "why": "Server error 503"}


def fleet(*services: dict[str, Any], **more: Any) -> dict[str, Any]:
    named = {f"s{index}": WELL | service for index, service in enumerate(services)}
    return {"services": named, "workers": [{}], "supervisors": [{}], "leader": "a", **more}


def said(found: Headline) -> tuple[str, str, str]:
    return found.level, found.title, found.text.replace(UNBROKEN, " ")


def test_an_outage_is_told_with_its_length_what_waits_and_the_next_trial() -> None:
    assert said(headline(fleet(OPEN, {}))) == (
        "down",
        "Billing is down",
        "Its breaker has been open for 42 s. 1,204 calls wait, next trial in 18 s. Last error: Server error 503.",
    )


def test_all_is_well() -> None:
    level, title, text = said(headline(fleet({}, {}, {}, {"dead": 3})))
    assert (level, title) == ("ok", "All 4 services are healthy")
    assert text == "8.0 calls a second, nothing waits, 3 dead letters."


def test_several_outages_are_counted_and_listed() -> None:
    found = headline(fleet(OPEN, OPEN | {"service": "Search"}, {}))
    assert (found.level, found.title) == ("down", "2 of 3 services are down")
    assert [line.partition(":")[0] for line in found.more] == ["Billing is down", "Search is down"]


def test_the_worst_comes_first_and_the_rest_is_listed() -> None:
    found = headline(fleet({"service": "Mail", "paused": True, "held": 1}, {"state": "half_open"}, leader=None))
    assert (found.level, found.title) == ("trial", "Billing is being tried")
    assert found.more == (
        "Mail is paused by hand: 1 call waits.",
        "No supervisor leads: schedules do not run, and trials wait for callers. Start `seawall supervisor`.",
    )


def test_no_worker_at_all_is_worse_than_a_sick_service() -> None:
    assert headline(fleet(OPEN, workers=[])).title == "No worker runs"


@pytest.mark.parametrize(
    ("service", "level", "word", "meaning"),
    [
        ({}, "ok", "Closed", "healthy"),
        ({"consecutive_failures": 2, "last_error": "Timeout"}, "ok", "Closed", "2 of 5 failures in a row: Timeout"),
        ({"consecutive_failures": 3, "last_error": "Timeout"}, "warn", "Closed", "3 of 5 failures in a row: Timeout"),
        ({"error_share": 0.25}, "warn", "Closed", "25 % of the last minute's calls failed"),
        ({"error_share": 0.25, "last_outage": BACK}, "ok", "Closed", "back for 12 s, after an outage of 42 s"),
        (
            {"error_share": 0.25, "last_outage": BACK | {"ended": 929.0}},
            "warn",
            "Closed",
            "25 % of the last minute's calls failed",
        ),
        ({"error_share": 0.0, "last_outage": BACK}, "ok", "Closed", "healthy"),
        (
            {"error_share": 0.25, "last_outage": BACK, "consecutive_failures": 3},
            "warn",
            "Closed",
            "3 of 5 failures in a row",
        ),
        ({"error_share": 0.5, "rate": 0.03}, "ok", "Closed", "1 of 2 calls failed in the last minute"),
        ({"error_share": 0.6, "rate": 0.083}, "warn", "Closed", "60 % of the last minute's calls failed"),
        ({"workers": 0}, "warn", "No worker", "no worker serves it"),
        ({"workers": 0, "paused": True}, "warn", "No worker", "no worker serves it, and it is paused by hand"),
        ({"error_share": None}, "ok", "Closed", "healthy"),
        ({"queued": 2, "workers": 0}, "down", "No worker", "2 calls wait, and no worker serves them"),
        (
            {"queued": 9, "oldest_waiting": 75.0},
            "warn",
            "Closed",
            "behind: the oldest of 9 calls has waited 75 s",
        ),
        (OPEN, "down", "Open", "for 42 s, next trial in 18 s. Server error 503"),
        (OPEN | {"retry_after": 0.0}, "down", "Open", "for 42 s, a trial is due. Server error 503"),
        (OPEN | {"forced": True}, "down", "Open", "held open by hand for 42 s"),
        ({"paused": True}, "paused", "Paused", "by hand; no call waits"),
    ],
)
def test_what_a_state_means(service: dict[str, Any], level: str, word: str, meaning: str) -> None:
    judged = judge(WELL | service)
    assert (judged.level, judged.word, judged.meaning.replace(UNBROKEN, " ")) == (level, word, meaning)


def test_a_service_without_a_worker_is_a_warning_and_said_once_where_none_runs() -> None:
    found = headline(fleet({}, {"workers": 0, "service": "Mail"}))
    assert (found.level, found.title) == ("warn", "Mail has no worker")
    assert "gets NoWorker, background calls wait" in found.text
    none = headline(fleet({"workers": 0}, {"workers": 0}, workers=[]))
    assert (none.title, none.more) == ("No worker runs", ())
    assert "gets NoWorker, background calls wait" in none.text


def test_the_webhook_of_alerts_is_none_of_the_services() -> None:
    assert ALERTS_KEY == alert_hook.ALERTS_KEY
    found = fleet({}, {})
    found["services"][ALERTS_KEY] = WELL
    assert headline(found).title == "All 2 services are healthy"
