"""Logged-in browsers: a cookie that the web process's token signs, so that little is kept and a new token ends them all."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable

from starlette.requests import cookie_parser

__all__ = ["LIFETIME", "Guesses", "Sessions", "cookie_in", "cookie_name", "same_word"]

#: Seconds after which a browser logs in again.
LIFETIME = 12 * 3600
#: Sessions that were ended by hand and are remembered until they would have been over.
MOST_ENDED = 10_000
#: Characters of a name; it stands in the audit list.
LONGEST_NAME = 40
#: Wrong tokens that one address may try in so many seconds, and addresses that are remembered.
GUESSES, GUESS_SECONDS, MOST_ADDRESSES = 5, 60.0, 1000


class Sessions:
    """`token` answers the token and is asked each time; whoever calls handles what it raises.

    >>> sessions = Sessions(lambda: "s3cret")
    >>> sessions.who(sessions.issue("Ada"))
    'Ada'
    >>> Sessions(lambda: "another").who(sessions.issue("Ada")) is None
    True
    """

    def __init__(self, token: Callable[[], str], *, clock: Callable[[], float] = time.time) -> None:
        self._token = token
        self._clock = clock
        self._ended: dict[str, int] = {}

    def issue(self, name: str) -> str:
        """A cookie's value for a person who has shown the token."""
        name = "".join(letter for letter in name if letter.isprintable()).strip()[:LONGEST_NAME]
        shown = base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
        words = f"{int(self._clock()) + LIFETIME}.{shown}.{secrets.token_urlsafe(6)}"
        return f"{words}.{self._sign(words)}"

    def who(self, cookie: str) -> str | None:
        """The name in a cookie of ours, perhaps empty; None for what is forged, over, or of an earlier token."""
        words, _, signature = cookie.rpartition(".")
        if not words or not same_word(signature, self._sign(words)):
            return None
        until, shown, *_ = words.split(".")
        if int(until) < self._clock() or signature in self._ended:
            return None
        return base64.urlsafe_b64decode(shown + "=" * (-len(shown) % 4)).decode()

    def end(self, cookie: str) -> None:
        """It opens nothing any more in this process; its streams end."""
        if self.who(cookie) is None:
            return
        words, _, signature = cookie.rpartition(".")
        now = self._clock()
        self._ended = {one: until for one, until in self._ended.items() if until >= now}
        self._ended[signature] = int(words.partition(".")[0])
        while len(self._ended) > MOST_ENDED:
            del self._ended[next(iter(self._ended))]

    def accepts(self, token: str) -> bool:
        return same_word(token, self._token())

    def _sign(self, words: str) -> str:
        key = hashlib.sha256(b"seawall session\n" + self._token().encode("utf-8", "surrogateescape")).digest()
        return hmac.new(key, words.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


class Guesses:
    """Counts wrong tokens by address; on the event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: dict[str, list[float]] = {}

    def wait(self, address: str) -> float:
        """Seconds until this address may try again; 0 if it may now."""
        recent = [at for at in self._wrong.get(address, ()) if self._clock() - at < GUESS_SECONDS]
        return GUESS_SECONDS - (self._clock() - recent[-GUESSES]) if len(recent) >= GUESSES else 0.0

    def note(self, address: str) -> None:
        known = self._wrong.pop(address, [])
        self._wrong[address] = [*known[1 - GUESSES :], self._clock()]
        while len(self._wrong) > MOST_ADDRESSES:
            del self._wrong[next(iter(self._wrong))]


def cookie_name(host: str) -> str:
    """Our cookie's name for who names us so in a Host header. Browsers send the cookies of all ports of a host to each of them.

    >>> cookie_name("localhost:8610"), cookie_name("status.example"), cookie_name("[::1]")
    ('seawall-8610', 'seawall', 'seawall')
    """
    _, colon, port = host.rpartition(":")
    return f"seawall-{port}" if colon and port.isascii() and port.isdecimal() else "seawall"


def cookie_in(headers: Iterable[str], host: str) -> str:
    """The value of our cookie among all of a browser's, empty without one. What others put there is not ours to judge.

    >>> cookie_in(['prefs={"theme":"dark"}; x/y=1; a=b c', "seawall-80=1.2.3"], "localhost:80")
    '1.2.3'
    """
    return cookie_parser("; ".join(headers)).get(cookie_name(host), "")


def same_word(given: str, ours: str) -> bool:
    """In a time that tells nothing about either."""
    one, other = (hashlib.sha256(word.encode("utf-8", "surrogateescape")).digest() for word in (given, ours))
    return hmac.compare_digest(one, other)
