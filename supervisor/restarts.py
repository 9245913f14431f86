"""When a child that died is started again: after a growing delay, and only so often."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["RestartPolicy", "Restarts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """The delay doubles from `first_delay` to `longest_delay` and starts anew after `steady_after` seconds of life; more
    than `budget` restarts within `window` seconds are not made. All in seconds.

    With the defaults a child that dies at once has eleven lives in two minutes: delays alone keep it below ten
    restarts a minute, so a window of one minute would never end anything.
    """

    first_delay: float = 0.2
    longest_delay: float = 30.0
    steady_after: float = 60.0
    budget: int = 10
    window: float = 300.0


class Restarts:
    """One child's history, in times of a monotonic clock.

    >>> restarts = Restarts(RestartPolicy(budget=3))
    >>> [restarts.after_death(now=0.0, lived=0.0) for _ in range(4)]
    [0.2, 0.4, 0.8, None]
    """

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._delay = 0.0
        self._made: deque[float] = deque()

    def after_death(self, now: float, lived: float) -> float | None:
        """Seconds until the child shall be started again, or None: its budget is spent."""
        policy = self._policy
        while self._made and now - self._made[0] > policy.window:
            self._made.popleft()
        if len(self._made) >= policy.budget:
            return None
        self._made.append(now)
        again = self._delay and lived < policy.steady_after
        self._delay = min(2 * self._delay, policy.longest_delay) if again else policy.first_delay
        return self._delay
