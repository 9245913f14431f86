"""Waiting for something that has no event of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two looks at the condition.
LOOK_EVERY = 0.005


def wait_until(condition: Callable[[], T], timeout: float = 20.0, *, message: str = "") -> T:
    """The condition's first true value. Fails the test when `timeout` seconds pass without one.

    >>> wait_until(lambda: len("abc"))
    3
    """
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(message or f"not so after {timeout} s: {getattr(condition, '__name__', condition)}")
        time.sleep(LOOK_EVERY)
    return value
