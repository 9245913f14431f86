"""The supervisor's long-lived part: leads or stands by, tries sick services, sweeps queues, and watches itself.

Several may run; one leads. Its duties are jobs of an APScheduler; what must not happen twice is decided by the store.
What happens when ... the broker goes away: the lease runs out, timers stop, all is built anew from the store on its
return. This process dies: another one leads within a lease and a tick. The scheduler dies: `run` ends within 5 s.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import ResponseError

from seawall.errors import BrokerUnavailable
from seawall.exits import Exit
from seawall.outage import Outage
from seawall.signals import Attention
from seawall.supervisor.alerts import Alerts
from seawall.supervisor.leader import Leader
from seawall.supervisor.recovery import Recovery
from seawall.supervisor.scheduler import thread_is_alive
from seawall.supervisor.schedules import Schedules
from seawall.supervisor.store import BreakerStore
from seawall.supervisor.trials import Trials
from seawall.supervisor.watchdog import Watchdog

__all__ = ["Supervisor"]

logger = logging.getLogger("seawall.supervisor")

#: Seconds between two renewals of the lease, and between two sweeps. Two renewals may fail before the lease ends.
TICK_SECONDS = 1.0
#: Seconds after which the leader reads every breaker anew, for a timer or an announcement that was lost all the same.
READ_AGAIN_SECONDS = 10.0
#: Seconds between two looks of the watching loop.
LOOK_SECONDS = 0.5
#: Seconds that a stop waits for trials that are being made.
STOP_SECONDS = 10.0
#: Seconds after that, in which a stop must have ended; then it hangs.
HANGS_AFTER_SECONDS = 5.0
#: Seconds that parts which may be broken are given for their end.
FAREWELL_SECONDS = 0.5
#: A tick that comes late is still wanted; many late ticks are one.
_JOB = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}


class Supervisor:
    """Runs `trials`, `recovery`, `schedules` and `alerts` while `leader` leads. `scheduler` is the one that the trials set their
    timers on, not started yet. `about` is added to the report that status shows (host, pid ...), and so is the leader's `plan()`, its
    schedules. `sample()` keeps a sample of the fleet's counts, every so many seconds; it may raise BrokerUnavailable."""

    def __init__(
        self,
        leader: Leader,
        trials: Trials,
        recovery: Recovery,
        store: BreakerStore,
        scheduler: Any,
        *,
        schedules: Schedules | None = None,
        alerts: Alerts | None = None,
        sample: Callable[[], None] | None = None,
        sample_every: float = 10.0,
        plan: Callable[[], list[dict[str, Any]]] = list,
        about: Mapping[str, Any] | None = None,
        tick: float = TICK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leader = leader
        self._trials = trials
        self._recovery = recovery
        self._schedules = schedules
        self._alerts = alerts
        self._sample_counts = sample
        self._sample_every = sample_every
        self._plan = plan
        self._store = store
        self._scheduler = scheduler
        self._about = {"id": leader.id, **(about or {}), "started_at": time.time()}
        self._tick_seconds = tick
        self._clock = clock
        self._outage = Outage(logger, "the broker (lease)")
        self._watchdog = Watchdog()
        self._lock = threading.Lock()
        self._term = 0
        self._read_again_at = 0.0
        self._missed = threading.Event()
        self._started = self._quiet = self._resigned = self._stopped = False

    @property
    def leads(self) -> bool:
        """Whether the leader's duties are done here."""
        return self._term != 0 and self._leader.leads

    def start(self) -> None:
        """Stand for the lead; returns at once, also while the broker is away. Call it once."""
        self._started = True
        self._store.subscribe(self._trials.announced, self._missed.set)
        for job in (self._tick, self._sweep, self._alert):
            self._scheduler.add_job(
                job, "interval", seconds=self._tick_seconds, next_run_time=datetime.now(UTC), id=job.__name__, **_JOB
            )
        if self._sample_counts is not None:
            self._scheduler.add_job(self._sample, "interval", seconds=self._sample_every, id="_sample", **_JOB)
        self._scheduler.start()

    def quiet(self) -> None:
        """Let another one lead, start no trial and no sweep any more. Safe twice and before start."""
        if self._quiet or not self._started:
            return
        self._quiet = True
        self._resigned = _unless_away(self._leader.resign)
        self._follow()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Quiet, wait up to `timeout` seconds for the trials that are being made, end. Safe twice and before start.

        A trial that was cut off counts as failed when its lease ends.
        """
        ends = self._clock() + timeout
        self.quiet()
        if self._stopped or not self._started:
            return
        self._stopped = True
        while self._trials.busy() and self._clock() < ends:
            time.sleep(0.02)
        _within(FAREWELL_SECONDS, lambda: self._scheduler.shutdown(wait=False))
        if self._resigned:  # otherwise the broker is away, and it would only take as long again to find out
            _unless_away(self._leader.leave)

    def run(
        self, signals: Attention, *, timeout: float = STOP_SECONDS, orphaned: Callable[[], bool] = lambda: False
    ) -> Exit | None:
        """Start, and run until a signal, or until `orphaned` says that the parent is gone; then stop.

        Answers OK, CUT_OFF after a second signal, SOFTWARE when the scheduler died or hangs, and None after SIGHUP,
        which asks for a fresh start with the same arguments.
        """
        self.start()
        while not signals.stop_requested and not orphaned():
            if wrong := self.what_is_wrong():
                logger.critical("the scheduler no longer works (%s); the process ends to be started again", wrong)
                _within(FAREWELL_SECONDS, self.quiet)
                return Exit.SOFTWARE
            if signals.reload_requested:
                return Exit.CUT_OFF if not self._stop_unless(signals, timeout, 1) else None
            signals.wait(LOOK_SECONDS)
        return Exit.OK if self._stop_unless(signals, timeout, 2) else Exit.CUT_OFF

    def what_is_wrong(self) -> str:
        """Words about a scheduler that no longer works, or nothing. Asked regularly by `run`."""
        if not thread_is_alive(self._scheduler):
            return "its thread has died"
        return self._watchdog.look(self._clock())

    def _stop_unless(self, signals: Attention, timeout: float, stops: int) -> bool:
        """Stop; False when so many stops were asked for, or it hangs, that it was left unfinished."""
        ends = self._clock() + timeout + HANGS_AFTER_SECONDS
        stopping = threading.Thread(target=self.stop, args=(timeout,), name="seawall-stop", daemon=True)
        stopping.start()
        while stopping.is_alive():
            if signals.stop_count >= stops or self._clock() > ends:
                return False
            stopping.join(0.05)
        return True

    def _tick(self) -> None:
        """Keep the lease or stand for it, lead or follow accordingly, and tell that this supervisor lives."""
        self._watchdog.began()
        try:
            try:
                self._leader.renew()
            finally:
                self._follow()
            self._leader.report(json.dumps(self._report()).encode())
            self._outage.over()
        except BrokerUnavailable as error:
            self._outage.begins(error)
        finally:
            self._watchdog.ended()

    def _follow(self) -> None:
        """Begin or end the leader's duties as the lease says. Raises BrokerUnavailable; the next tick tries again."""
        with self._lock:
            term = self._leader.fence if self._leader.leads and not self._quiet else 0
            if self._term not in (0, term):
                logger.info("leads no longer (term %d)", self._term)
                self._term = 0
                self._trials.stop()
                if self._schedules is not None:
                    self._schedules.stop()
            if term and (not self._term or self._missed.is_set() or self._clock() > self._read_again_at):
                self._take_up(term)

    def _take_up(self, term: int) -> None:
        """Set every timer from the store; in a term that goes on, anew."""
        self._missed.clear()
        try:
            self._trials.start()
        except BrokerUnavailable:
            self._missed.set()
            raise
        if self._schedules is not None:
            self._schedules.start()
        self._read_again_at = self._clock() + READ_AGAIN_SECONDS
        if not self._term:
            logger.info("leads now (term %d)", term)
        self._term = term

    def _report(self) -> dict[str, Any]:
        plan = {"schedules": self._plan()} if self.leads else {}
        return {**self._about, "leads": self.leads, "fence": self._leader.fence, **plan}

    def _sample(self) -> None:
        """Charts have a gap where this fails; the tick tells of the outage."""
        if self.leads and self._sample_counts is not None:
            try:
                self._sample_counts()
            except (BrokerUnavailable, ResponseError) as error:
                logger.debug("no sample of the counts: %s", error)

    def _sweep(self) -> None:
        if self.leads:
            self._recovery.round()

    def _alert(self) -> None:
        if self._alerts is not None and self.leads:
            self._alerts.round()


def _unless_away(do: Callable[[], object]) -> bool:
    """Do it; False when the broker is away."""
    try:
        do()
    except BrokerUnavailable as error:
        logger.debug("not said goodbye: %s", error)
        return False
    return True


def _within(seconds: float, do: Callable[[], object]) -> None:
    """Do it on a thread that is left alone when it takes longer."""
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(seconds)
