"""Schedules: the moment one of them ticks, the leading supervisor queues its call, once in the whole fleet.

The timer is APScheduler's; the truth is the store's. It knows the last tick that it accepted of each schedule, and
accepts none that is not later: a second leader, a late timer, a write said again or a leader that was paused past its
lease queues nothing twice. What a round needs from other rooms comes as callables.

Ticks that were missed are one: a leader that comes, a timer that is late or a broker that is back queues the latest
tick that is over, and only that one, unless it was queued already.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.exceptions import ResponseError

from seawall.errors import BrokerUnavailable, QueueFull
from seawall.outage import Outage
from seawall.ticks import Ticks

__all__ = ["Schedules"]

logger = logging.getLogger("seawall.supervisor")

#: Seconds after which a round tries again when the broker was away.
RETRY_SECONDS = 1.0
#: Seconds after which a tick that could not be queued is tried again: its queue was full, or its call cannot be made.
AGAIN_SECONDS = 5.0
#: Seconds by which a tick may come late before it is worth a line.
LATE_SECONDS = 5.0

_JOB_ID = "schedules"
#: A timer that comes late is still wanted. APScheduler would drop one that overlaps a round which hangs, and nobody
#: would set it again.
_JOB = {"misfire_grace_time": None, "coalesce": True, "replace_existing": True, "max_instances": 1000}


class Schedules:
    """`declared()` says how each schedule ticks, by name; `now()` is the store's clock; `last(names)` the last tick that
    the store accepted of each; `enqueue(name, tick)` queues its call, unless the store has that tick; `leads()` is asked
    before every one. `last` and `enqueue` may raise BrokerUnavailable, `enqueue` QueueFull. Safe for threads."""

    def __init__(
        self,
        scheduler: Any,
        *,
        declared: Callable[[], Mapping[str, Ticks]],
        now: Callable[[], float],
        last: Callable[[Sequence[str]], Mapping[str, float]],
        enqueue: Callable[[str, float], None],
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._scheduler = scheduler
        self._declared = declared
        self._now = now
        self._last = last
        self._enqueue = enqueue
        self._leads = leads
        self._active = False
        self._round_runs = threading.Lock()
        self._done: dict[str, float] = {}
        """The last tick of each that is settled here: the store knows nothing of one that an open breaker skipped."""
        self._put_off: dict[str, tuple[float, float]] = {}
        """A tick of each that could not be queued, and when it is tried again."""
        self._outage = Outage(logger, "the broker (schedules)")

    def start(self) -> None:
        """Have a first round now; again, after anything may have been missed. Never raises, never waits."""
        self._active = True
        if self._declared():
            self._set(self._now())

    def stop(self) -> None:
        """Leave the timer to the next leader; a round that runs ends by itself. Safe twice and before start."""
        self._active = False
        if self._scheduler.get_job(_JOB_ID) is not None:
            try:
                self._scheduler.remove_job(_JOB_ID)
            except LookupError:  # it fired in the meantime
                return

    def _set(self, moment: float) -> None:
        """Have a round at this moment of the store's clock."""
        at = datetime.now(UTC) + timedelta(seconds=max(0.0, moment - self._now()))
        self._scheduler.add_job(self._round, "date", run_date=at, id=_JOB_ID, **_JOB)

    def _round(self) -> None:
        """Queue what is due, and set the timer for what comes next. One at a time: whoever runs sets the timer."""
        if not self._active or not self._round_runs.acquire(blocking=False):
            return
        moment = math.inf
        try:
            moment = self._queue_what_is_due() if self._leads() else self._now() + RETRY_SECONDS
        except (BrokerUnavailable, ResponseError) as error:
            self._outage.begins(error)
            moment = self._now() + RETRY_SECONDS
        except Exception:
            logger.exception("schedules could not be looked at; it is tried again")
            moment = self._now() + AGAIN_SECONDS
        finally:
            self._round_runs.release()
            if self._active and moment < math.inf:
                self._set(moment)

    def _queue_what_is_due(self) -> float:
        """The moment of the next round. Raises BrokerUnavailable."""
        declared = self._declared()
        last = self._last(list(declared))
        self._outage.over()
        moment = math.inf
        for name, ticks in declared.items():
            try:
                moment = min(moment, self._look_at(name, ticks, last[name]))
            except BrokerUnavailable:
                raise
            except Exception:
                logger.exception("schedule %s could not be looked at; it is tried again", name)
                moment = min(moment, self._now() + AGAIN_SECONDS)
        return moment

    def _look_at(self, name: str, ticks: Ticks, last: float) -> float:
        """Queue its latest tick that is over, if that is new; the moment when it needs the next look."""
        again = math.inf
        due = ticks.latest(self._now(), after=max(last, self._done.get(name, 0.0)))
        if due is not None:
            again = self._queue(name, due)
        upcoming = ticks.after(self._now())
        return again if upcoming is None else min(again, upcoming)

    def _queue(self, name: str, tick: float) -> float:
        """When to try again; for ever away when there is no need."""
        put_off, again_at = self._put_off.get(name, (0.0, 0.0))
        if put_off == tick and self._now() < again_at:
            return again_at
        if not self._leads():
            return self._now() + RETRY_SECONDS
        try:
            self._enqueue(name, tick)
        except QueueFull as error:
            return self._try_later(name, tick, error, known=put_off == tick)
        except BrokerUnavailable:
            raise
        except Exception as error:
            return self._try_later(name, tick, error, known=put_off == tick)
        self._done[name] = tick
        self._put_off.pop(name, None)
        if (late := self._now() - tick) > LATE_SECONDS:
            logger.info(
                "schedule %s: the tick of %s was queued %.0f s late, for all that were missed", name, _utc(tick), late
            )
        return math.inf

    def _try_later(self, name: str, tick: float, error: Exception, *, known: bool) -> float:
        """Say so once for each tick, and try again; the next tick takes its place."""
        if not known:
            bug = None if isinstance(error, QueueFull) else error
            text = "schedule %s: the tick of %s was not queued, it is tried again until the next one: %s"
            logger.error(text, name, _utc(tick), error, exc_info=bug)
        again_at = self._now() + AGAIN_SECONDS
        self._put_off[name] = (tick, again_at)
        return again_at


def _utc(tick: float) -> str:
    return datetime.fromtimestamp(tick, UTC).isoformat(" ", "seconds").removesuffix("+00:00") + " UTC"
