"""Asking somebody who may be silent, for so long and no longer. A leaf module."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["within"]

T = TypeVar("T")


def within(seconds: float, ask: Callable[[], T], otherwise: T) -> T:
    """What is answered, if that comes within so many seconds; the question itself goes on, on a thread of its own."""
    answers: list[T] = []
    asking = threading.Thread(target=lambda: answers.append(ask()), name="seawall-last-word", daemon=True)
    asking.start()
    asking.join(max(0.0, seconds))
    return answers[0] if answers else otherwise
