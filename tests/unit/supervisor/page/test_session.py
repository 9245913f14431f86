"""Cookies that a token signs, and guesses that are counted."""

from __future__ import annotations

from seawall.supervisor.page.session import GUESS_SECONDS, LIFETIME, Guesses, Sessions


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_cookie_holds_for_half_a_day() -> None:
    clock = Clock()
    sessions = Sessions(lambda: "token", clock=clock)
    cookie = sessions.issue("Ada L\u00f6vlace\n")
    assert sessions.who(cookie) == "Ada L\u00f6vlace"
    assert sessions.who(sessions.issue("")) == ""
    clock.now += LIFETIME + 1
    assert sessions.who(cookie) is None


def test_nothing_forged_is_taken() -> None:
    sessions = Sessions(lambda: "token")
    cookie = sessions.issue("Ada")
    until, name, once, signature = cookie.split(".")
    for forged in (
        "",
        ".",
        "..",
        "x.y.z",
        cookie[:-1],
        f"{int(until) + 1}.{name}.{once}.{signature}",
        f"{until}.{sessions.issue('Eve').split('.')[1]}.{once}.{signature}",
        f"{until}.{name}.{once}.\xe9",
    ):
        assert sessions.who(forged) is None, forged


def test_a_session_that_is_ended_stays_so_and_is_forgotten_when_it_would_be_over() -> None:
    clock = Clock()
    sessions = Sessions(lambda: "token", clock=clock)
    mine, other = sessions.issue("Ada"), sessions.issue("Ada")
    for cookie in (mine, "x.y.z"):
        sessions.end(cookie)
    assert (sessions.who(mine), sessions.who(other)) == (None, "Ada")
    clock.now += LIFETIME + 1
    sessions.end(sessions.issue("Eve"))
    assert len(sessions._ended) == 1


def test_a_new_token_ends_every_session() -> None:
    token = ["old"]
    sessions = Sessions(lambda: token[0])
    cookie = sessions.issue("Ada")
    token[0] = "new"
    assert sessions.who(cookie) is None


def test_an_address_may_guess_a_few_times_a_minute() -> None:
    clock = Clock()
    guesses = Guesses(clock)
    for _ in range(5):
        assert guesses.wait("a") == 0
        guesses.note("a")
        clock.now += 1
    assert guesses.wait("a") == GUESS_SECONDS - 5
    assert guesses.wait("b") == 0
    clock.now += GUESS_SECONDS
    assert guesses.wait("a") == 0
