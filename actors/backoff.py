"""How long to wait before the next attempt, and before the next round. Plain functions; randomness is passed in."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from datetime import UTC
from typing import Any

__all__ = ["ROUND_LONGEST", "parse_retry_after", "retry_delay", "round_delay"]

#: Seconds between two rounds of a background call at the most.
ROUND_LONGEST = 300.0
#: Doublings beyond this change nothing, and would overflow.
_DOUBLINGS = 20


def retry_delay(attempt: int, *, base: float, jitter: float, uniform: Callable[[], float]) -> float:
    """Seconds after the failed attempt number `attempt` (from 1): base, doubled each time, lengthened by up to `jitter`.

    >>> [retry_delay(n, base=1, jitter=0, uniform=lambda: 0.5) for n in (1, 2, 3)]
    [1.0, 2.0, 4.0]
    """
    return base * float(2 ** min(attempt - 1, _DOUBLINGS)) * (1 + jitter * uniform())


def round_delay(rounds: int, recovery_timeout: float) -> float:
    """Seconds after the failed round number `rounds` (from 1): the recovery timeout, doubled each time, at most 300.

    >>> [round_delay(n, 60) for n in (1, 2, 3, 4)]
    [60.0, 120.0, 240.0, 300.0]
    """
    return min(recovery_timeout * float(2 ** min(rounds - 1, _DOUBLINGS)), ROUND_LONGEST)


def parse_retry_after(value: Any, *, cap: float, now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date), at most `cap`; None without one."""
    if not isinstance(value, str):
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), cap)
    try:
        date = email.utils.parsedate_to_datetime(text)
        moment = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, moment - now()), cap)
