"""What an attempt's end means: for the breaker, for the next attempt, and in words for people."""

from __future__ import annotations

import socket
from unittest.mock import MagicMock

import pytest
import requests
import urllib3

from seawall import errors
from seawall.actors.reasons import judge_error, judge_status, plain_words

FAILURE_AND_RETRY = (True, True)
FAILURE_NO_RETRY = (True, False)
NEUTRAL_AND_RETRY = (False, True)
NEUTRAL_NO_RETRY = (False, False)


@pytest.mark.parametrize("status", [100, 200, 204, 301, 400, 401, 404, 409, 422, 499])
def test_whatever_is_no_5xx_is_an_answer(status: int) -> None:
    assert judge_status(status, None).ok


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_a_5xx_is_a_failure_of_the_service(status: int) -> None:
    verdict = judge_status(status, 4.0)
    assert (verdict.ok, verdict.failure, verdict.retry, verdict.retry_after) == (False, True, True, 4.0)
    assert verdict.text == f"Server error {status}"


@pytest.mark.parametrize("status", [408, 429])
def test_an_overloaded_caller_says_nothing_about_the_service(status: int) -> None:
    verdict = judge_status(status, None)
    assert (verdict.ok, verdict.failure, verdict.retry) == (False, False, True)


def test_a_mock_of_a_response_is_a_success() -> None:
    assert judge_status(MagicMock().status_code, None).ok


@pytest.mark.parametrize(
    ("error", "words", "meaning"),
    [
        (requests.ConnectTimeout(), "Timeout", FAILURE_AND_RETRY),
        (requests.ReadTimeout(), "Timeout", FAILURE_AND_RETRY),
        (TimeoutError(), "Timeout", FAILURE_AND_RETRY),
        (requests.ConnectionError(), "Connection failed", FAILURE_AND_RETRY),
        (ConnectionRefusedError(), "Connection failed", FAILURE_AND_RETRY),
        (socket.gaierror(), "Connection failed", FAILURE_AND_RETRY),
        (requests.exceptions.ChunkedEncodingError(), "Connection failed", FAILURE_AND_RETRY),
        (requests.exceptions.ContentDecodingError(), "Unreadable response", FAILURE_AND_RETRY),
        (requests.exceptions.SSLError(), "TLS failure", FAILURE_NO_RETRY),
        (requests.TooManyRedirects(), "Too many redirects", FAILURE_NO_RETRY),
        (errors.OutcomeUnknown("x"), "Outcome unknown", FAILURE_NO_RETRY),
        (errors.TokenUnavailable("x"), "Secret unavailable", NEUTRAL_NO_RETRY),
        (errors.ResponseTooLarge("x"), "Response too large", NEUTRAL_NO_RETRY),
        (errors.RequestTooLarge("x"), "Request too large", NEUTRAL_NO_RETRY),
        (errors.LocalResourceError("x"), "No local resources", NEUTRAL_AND_RETRY),
        (requests.exceptions.InvalidURL("x"), "Invalid URL", NEUTRAL_NO_RETRY),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors(error: Exception, words: str, meaning: tuple[bool, bool]) -> None:
    verdict = judge_error(error)
    assert verdict is not None
    assert (verdict.text, (verdict.failure, verdict.retry), verdict.ok) == (words, meaning, False)


def test_a_bug_is_no_outage() -> None:
    assert judge_error(KeyError("x")) is None
    assert judge_error(AssertionError()) is None


class TestPlainWords:
    def test_the_innermost_reason_is_told(self) -> None:
        refused = ConnectionRefusedError(111, "Connection refused")
        retries = urllib3.exceptions.MaxRetryError(None, "/a?token=s", refused)  # type: ignore[arg-type]
        assert plain_words(requests.ConnectionError(retries)) == "Connection refused"

    def test_a_cause_counts_as_inner(self) -> None:
        error = requests.ConnectionError("outer")
        error.__cause__ = ConnectionResetError(104, "whatever it says")
        assert plain_words(error) == "Connection reset by peer"

    @pytest.mark.parametrize(
        "text",
        [
            "Failed to parse: http://host/path?token=canary",
            "Failed to parse: 'http://host/path?token=canary'",
            "Failed to parse: http://user:canary@host/path",
            "Failed to parse: http://canary@host",
            "GET http://host/x#canary failed",
        ],
    )
    def test_neither_queries_nor_credentials_are_told(self, text: str) -> None:
        words = plain_words(requests.exceptions.InvalidURL(text))
        assert "canary" not in words
        assert "host" in words

    def test_an_error_without_words_has_its_name(self) -> None:
        assert plain_words(requests.ConnectionError()) == "ConnectionError"

    def test_the_words_are_one_short_line(self) -> None:
        words = plain_words(requests.RequestException("first\r\nsecond " * 100))
        assert "\n" not in words
        assert "\r" not in words
        assert len(words) <= 200

    def test_a_token_or_a_key_that_cannot_be_had_is_called_by_its_name(self) -> None:
        error = errors.TokenUnavailable("the alerts' signing key's file '/k' cannot be read: No such file or directory")
        error.__cause__ = FileNotFoundError(2, "No such file or directory")
        assert plain_words(error) == str(error)

    def test_errors_in_a_ring_come_to_an_end(self) -> None:
        one, two = requests.RequestException("one"), requests.RequestException("two")
        one.__cause__, two.__cause__ = two, one
        assert plain_words(one) == "one"
