"""What came of a call, before and after its journey between two processes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from unittest.mock import MagicMock

import pytest
import requests

from seawall import errors
from seawall.actors.record import Reply, decode_reply, encode
from seawall.actors.replies import LocalWaiter, Outcome, Waiters, from_reply, given_up, to_reply
from seawall.supervisor.breaker import Record, State
from tests.support import Answer, CountingService, wait_until


def crossed(outcome: Outcome, *, request: object = None) -> Outcome:
    """The outcome on the other side of the wire."""
    return from_reply(decode_reply(encode(to_reply("id", outcome))), service="Chroma", request=request)


def error_of(error: Exception) -> BaseException | None:
    return crossed(Outcome(error=error)).error


@pytest.fixture
def original(service: CountingService) -> requests.Response:
    """A response with everything that gets lost easily, as requests itself makes it."""
    service.script(
        "/x",
        Answer(
            203,
            "größe".encode("latin-1"),
            headers={
                "Content-Type": "text/plain; charset=iso-8859-1",
                "Set-Cookie": 'a=1; Path=/; HttpOnly\r\nSet-Cookie: json={"k":[1,2]}; Path=/x\r\n'
                "Set-Cookie: gone=1; Max-Age=0; Path=/\r\nSet-Cookie: foreign=1; Domain=example.org\r\n"
                "Set-Cookie: dated=1; Expires=Wed, 09 Jun 2100 10:18:14 GMT",
                "X-Twice": "one\r\nX-Twice: two",
                "Link": '<http://h/2>; rel="next"',
                "X-Latin": "caf\xe9",
            },
        ),
    )
    return requests.get(f"{service.url}/x", params={"q": "1"}, timeout=5)


class TestResponse:
    def test_it_reads_like_the_one_that_the_worker_got(self, original: requests.Response) -> None:
        copy = crossed(Outcome(response=original, attempts=2), request=original.request).response
        for name in ("status_code", "reason", "url", "headers", "encoding", "apparent_encoding", "content", "text",
                     "ok", "is_redirect", "links", "elapsed", "history", "request", "next"):  # fmt: skip
            assert getattr(copy, name) == getattr(original, name), name
        assert list(copy.headers) == list(original.headers)
        assert copy.headers["x-twice"] == "one, two"

    def test_its_cookies_are_those_that_requests_would_keep(self, original: requests.Response) -> None:
        copy = crossed(Outcome(response=original)).response
        assert copy.cookies.get_dict() == original.cookies.get_dict() == {"a": "1", "json": '{"k":[1,2]}', "dated": "1"}
        assert {(c.name, c.domain, c.path, c.expires) for c in copy.cookies} == {
            (c.name, c.domain, c.path, c.expires) for c in original.cookies
        }

    def test_it_can_be_used_like_one(self, original: requests.Response) -> None:
        copy = crossed(Outcome(response=original)).response
        assert b"".join(copy.iter_content(2)) == original.content
        assert list(copy.iter_lines()) == [original.content]
        copy.raise_for_status()
        with copy:
            assert bool(copy)
        assert copy.elapsed > timedelta(0)

    def test_json(self, service: CountingService) -> None:
        service.script("/j", Answer(body={"a": ["ü", 1]}))
        copy = crossed(Outcome(response=requests.get(f"{service.url}/j", timeout=5))).response
        assert copy.json() == {"a": ["ü", 1]}

    def test_a_body_of_any_bytes(self) -> None:
        response = requests.Response()
        response.status_code, response._content = 200, bytes(range(256))
        copy = crossed(Outcome(response=response)).response
        assert copy.content == bytes(range(256))
        assert copy.cookies.get_dict() == {}

    def test_a_reason_in_bytes_or_none_at_all(self) -> None:
        for reason, told in ((b"Ungl\xfccklich", "Unglücklich"), (None, "")):
            response = requests.Response()
            response.status_code, response._content, response.reason = 500, b"", reason
            assert crossed(Outcome(response=response)).response.reason == told

    def test_the_breaker_and_the_attempts_cross_too(self) -> None:
        record = Record(version=7, state=State.OPEN, failures=5, last_error="refused")
        copy = crossed(Outcome(error=requests.ConnectionError("x"), attempts=3, breaker=record))
        assert (copy.attempts, copy.breaker, copy.response) == (3, record, None)

    def test_what_is_no_response_does_not_cross_but_does_no_harm(self) -> None:
        assert crossed(Outcome(response=MagicMock())).response is None


class TestErrors:
    @pytest.mark.parametrize(
        "kind",
        [
            requests.HTTPError,
            requests.ConnectTimeout,
            requests.ReadTimeout,
            requests.Timeout,
            requests.ConnectionError,
            requests.TooManyRedirects,
            requests.RequestException,
            requests.exceptions.SSLError,
            requests.exceptions.ProxyError,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ContentDecodingError,
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
        ],
    )
    def test_those_of_requests(self, kind: type[requests.RequestException]) -> None:
        error = error_of(kind("what happened"))
        assert type(error) is kind
        assert str(error) == "what happened"

    @pytest.mark.parametrize(
        "kind",
        [
            errors.OutcomeUnknown,
            errors.ResponseTooLarge,
            errors.TokenUnavailable,
            errors.LocalResourceError,
            errors.CallCancelled,
            errors.DeadlineExceeded,
            errors.ResultExpired,
        ],
    )
    def test_our_own_with_the_services_name(self, kind: type[errors.SeawallError]) -> None:
        error = error_of(kind("what happened", service="chroma"))
        assert type(error) is kind
        assert isinstance(error, errors.SeawallError)
        assert (str(error), error.service) == ("what happened", "Chroma")

    def test_an_http_error_has_its_response(self, original: requests.Response) -> None:
        original.status_code = 503
        outcome = crossed(
            Outcome(error=requests.HTTPError("503 Server Error", response=original)), request=original.request
        )
        assert outcome.response is None
        assert isinstance(outcome.error, requests.HTTPError)
        assert outcome.error.response is not None
        assert (outcome.error.response.status_code, outcome.error.response.text) == (503, original.text)
        assert outcome.error.request is original.request

    def test_an_open_breaker_says_when_and_why(self) -> None:
        unavailable = errors.ServiceUnavailable("[Chroma] OPEN", service="Chroma", retry_after=12.5)
        unavailable.__cause__ = requests.ReadTimeout("too slow")
        error = error_of(unavailable)
        assert isinstance(error, errors.ServiceUnavailable)
        assert (str(error), error.service, error.retry_after) == ("[Chroma] OPEN", "Chroma", 12.5)
        assert isinstance(error.__cause__, requests.ReadTimeout)
        assert str(error.__cause__) == "too slow"

    def test_and_the_cause_has_its_response(self, original: requests.Response) -> None:
        unavailable = errors.ServiceUnavailable("x")
        unavailable.__cause__ = requests.HTTPError("503", response=original)
        error = error_of(unavailable)
        assert error is not None
        assert isinstance(error.__cause__, requests.HTTPError)
        assert error.__cause__.response is not None
        assert error.__cause__.response.content == original.content

    def test_a_dead_letter_says_its_reason(self) -> None:
        error = error_of(errors.CallFailed("given up", reason="expired"))
        assert isinstance(error, errors.CallFailed)
        assert (str(error), error.reason, error.service) == ("given up", "expired", "Chroma")

    def test_and_finds_words_for_itself(self) -> None:
        error = error_of(errors.CallFailed("", reason="poison"))
        assert str(error) == str(given_up("Chroma", "poison"))
        assert "poison" in str(error)

    def test_a_verdict_of_the_queue_itself(self) -> None:
        error = from_reply(Reply(id="1", error="cancelled", detail="replaced"), service="Chroma").error
        assert isinstance(error, errors.CallCancelled)
        assert "replaced" in str(error)

    def test_one_without_a_name_of_its_own_crosses_as_its_nearest_ancestor(self) -> None:
        class Special(requests.ReadTimeout):
            pass

        assert type(error_of(Special("x"))) is requests.ReadTimeout
        assert type(error_of(errors.NoWorker("x"))) is errors.DeadlineExceeded

    def test_a_strange_one_is_a_request_exception_that_names_it(self) -> None:
        error = error_of(ConnectionRefusedError(111, "refused"))
        assert type(error) is requests.RequestException
        assert "ConnectionRefusedError" in str(error)

    def test_a_name_from_a_newer_release_is_a_request_exception(self) -> None:
        error = from_reply(Reply(id="1", error="quantum", message="what happened"), service="Chroma").error
        assert type(error) is requests.RequestException
        assert str(error) == "what happened"

    def test_text_that_is_no_text_crosses_too(self) -> None:
        """Such as a file name in an error: an encoder that refused it would keep the call's lease for ever."""
        error = error_of(requests.ConnectionError("no file caf\udce9"))
        assert type(error) is requests.ConnectionError
        assert "no file caf" in str(error)


class TestWaiters:
    def test_an_answer_wakes_who_waits_and_the_first_one_counts(self) -> None:
        waiter = LocalWaiter("Chroma")
        thread = threading.Timer(0.01, waiter.answer, [Outcome(attempts=1)])
        thread.start()
        outcome = waiter.wait(5)
        waiter.answer(Outcome(attempts=2))
        assert waiter.wait(0) is outcome
        assert outcome is not None
        assert outcome.attempts == 1
        thread.join()

    def test_everybody_who_waits_is_woken(self) -> None:
        waiter = LocalWaiter()
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(waiter.wait, 5) for _ in range(4)]
            wait_until(lambda: len(waiter._seats) == 4)
            waiter.answer(outcome := Outcome())
            assert [one.result(5) for one in waiting] == [outcome] * 4

    def test_patience_ends(self) -> None:
        assert LocalWaiter().wait(0.001) is None
        assert LocalWaiter().wait(-5) is None

    def test_threads_that_wait_for_one_call_share_the_answer(self) -> None:
        waiters = Waiters()
        first, second = waiters.add("a", LocalWaiter), waiters.add("a", LocalWaiter)
        assert len(waiters) == 1
        taken = waiters.take("a")
        assert taken is not None
        taken.answer(Outcome(attempts=1))
        assert first.wait(0) is second.wait(0) is not None
        assert len(waiters) == 0

    def test_one_that_gives_up_does_not_take_the_other_with_it(self) -> None:
        waiters = Waiters()
        waiters.add("a", LocalWaiter)
        waiters.add("a", LocalWaiter)
        waiters.leave("a")
        assert len(waiters) == 1
        waiters.leave("a")
        waiters.leave("a")
        assert len(waiters) == 0
        assert waiters.take("a") is None
