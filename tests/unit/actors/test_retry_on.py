"""`retry_on=`: how it is written, how it travels, and what it makes of an attempt's end."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from seawall.actors.reasons import judge_error, judge_status, retry_rules, ruled


def test_statuses_names_and_classes_become_what_travels() -> None:
    rules = [503, "timeout", requests.ConnectionError, requests.exceptions.SSLError]
    assert retry_rules(rules) == (503, "timeout", "connection", "tls")
    assert retry_rules(retry_rules(rules)) == retry_rules(rules)


@pytest.mark.parametrize("rule", [200, 399, 600, True, "tiemout", ValueError, None, 5.0])
def test_what_names_nothing_is_refused(rule: Any) -> None:
    with pytest.raises(ValueError, match="retry_on"):
        retry_rules([rule])


@pytest.mark.parametrize("rules", ["timeout", 503, requests.Timeout, b"503"])
def test_a_single_one_is_no_list(rules: Any) -> None:
    with pytest.raises(TypeError, match="list"):
        retry_rules(rules)


@pytest.mark.parametrize(
    ("status", "rules", "retry", "failure", "ok"),
    [
        (500, (), True, True, False),
        (500, (500,), True, True, False),
        (500, (503,), False, True, False),
        (429, (503,), False, False, False),
        (409, (409,), True, False, False),
        (409, (503,), False, False, True),
        (200, (503,), False, False, True),
    ],
)
def test_of_an_answer(status: int, rules: tuple[int | str, ...], retry: bool, failure: bool, ok: bool) -> None:
    verdict = ruled(judge_status(status, None), rules, status, None)
    assert (verdict.retry, verdict.failure, verdict.ok) == (retry, failure, ok)


@pytest.mark.parametrize(
    ("error", "rules", "retry"),
    [
        (requests.ReadTimeout(), (), True),
        (requests.ReadTimeout(), ("timeout",), True),
        (requests.ReadTimeout(), ("read-timeout",), True),
        (requests.ReadTimeout(), ("connect-timeout", 503), False),
        (requests.ConnectTimeout(), ("connection",), True),
        (requests.exceptions.SSLError(), ("tls",), True),
        (requests.exceptions.SSLError(), ("any",), True),
        (requests.ConnectionError(), ("of a newer release",), False),
    ],
)
def test_of_an_error(error: Exception, rules: tuple[int | str, ...], retry: bool) -> None:
    judged = judge_error(error)
    assert judged is not None
    verdict = ruled(judged, rules, 0, error)
    assert (verdict.retry, verdict.failure) == (retry, True)
