"""One leader among several supervisors: a lease with a fencing number, on the server's clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from seawall.errors import BrokerUnavailable
from seawall.redis_link import Argument, RedisLink, load_script

__all__ = ["LEASE", "Leader", "LeaderInfo", "leader_info"]

#: Seconds that a leader leads without renewing: how long the fleet goes without one when it dies.
LEASE = 3.0
#: Seconds that a supervisor's report outlives its last renewal.
REPORT_LIFETIME = 5.0

_SCRIPT = load_script("seawall.supervisor", "leader")


def _uptime() -> float:
    """Seconds that also pass while the machine sleeps, where the system can tell: others may lead meanwhile."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class Leader:
    """One supervisor's part in the election. Safe for threads; `lua/leader.lua` documents the keys.

    A leader has to `renew` well within each `lease` (seconds). `clock` is a monotonic one. `fence` orders the terms:
    whoever writes on behalf of a term can be told from a later one. What supervisors do today needs no such check,
    because a late leader's swap or sweep is refused or harmless by itself.
    """

    def __init__(
        self,
        link: RedisLink,
        namespace: str,
        owner_id: str,
        lease: float = LEASE,
        *,
        clock: Callable[[], float] = _uptime,
    ) -> None:
        self.id = owner_id
        self._link = link
        self._namespace = namespace
        self._lease = lease
        self._clock = clock
        self._lock = threading.Lock()
        self._fence = 0
        self._leads_until = 0.0
        self._resigned = False
        self._reporting = threading.Lock()
        self._left = False

    @property
    def fence(self) -> int:
        """The number of this supervisor's latest term; 0 before it has led."""
        return self._fence

    @property
    def leads(self) -> bool:
        """Whether nobody else can lead now. Asks nobody: False as soon as the lease may have run out on the server."""
        return self._clock() < self._leads_until

    def renew(self) -> bool:
        """Take the lead if nobody has it, or keep it; whether this supervisor leads. Raises BrokerUnavailable.

        A lease that had run out begins a new term, with a new fence, even if nobody led in between.
        """
        with self._lock:
            if self._resigned:
                return False
            asked_at = self._clock()
            granted, fence = self._run("renew", self.id, round(self._lease * 1000))
            if granted:
                self._fence = fence
            # The lease began on the server no earlier than it was asked for here.
            self._leads_until = asked_at + self._lease if granted else 0.0
            return bool(granted)

    def resign(self) -> None:
        """Let another one lead at once, and never lead again. Raises BrokerUnavailable: then it takes a lease's time."""
        self._leads_until = 0.0
        with self._lock:
            self._resigned = True
            self._leads_until = 0.0  # a renewal may have been on its way
            self._run("resign", self.id)

    def report(self, text: bytes) -> None:
        """Let status and readiness know that this supervisor lives, unless it has left. Raises BrokerUnavailable."""
        with self._reporting:
            if not self._left:
                self._run("report", self.id, text, round(REPORT_LIFETIME * 1000))

    def leave(self) -> None:
        """Take the report back, and report never again. Raises BrokerUnavailable: then it expires by itself."""
        with self._reporting:  # a report may be on its way
            self._left = True
            self._run("leave", self.id)

    def _run(self, command: str, *args: Argument) -> Any:
        return _run(self._link, self._namespace, command, *args)


@dataclass(frozen=True, slots=True)
class LeaderInfo:
    """Who leads, in which term, and for how many milliseconds unless it renews. Nobody: an empty owner, and 0 ms."""

    owner: str
    fence: int
    ms_left: int


def leader_info(link: RedisLink, namespace: str) -> LeaderInfo:
    """Who leads now, by the server's clock. Raises BrokerUnavailable."""
    owner, fence, left = _run(link, namespace, "info")
    return LeaderInfo(owner.decode(), fence, left)


def _run(link: RedisLink, namespace: str, command: str, *args: Argument) -> Any:
    try:
        return link.run(_SCRIPT, command, namespace, *args)
    except ResponseError as error:
        raise BrokerUnavailable(f"the broker refused a supervisor's command: {error}", written=False) from error
