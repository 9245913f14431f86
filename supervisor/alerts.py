"""The leading supervisor's round over what is worth an alert: read, judge, store, deliver.

The alerts of a round are stored before any of them is delivered, and taken out of the store afterwards. What happens
when ... the leader dies in between: the next one delivers them; `deliver` queues each only once, whoever asks. A leader
was paused and is none any more: its save is refused, because another version is stored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import msgspec
from redis.exceptions import ResponseError

from seawall.errors import BrokerUnavailable, QueueFull
from seawall.outage import Outage
from seawall.supervisor.alert_store import AlertStore
from seawall.supervisor.alert_words import Alert
from seawall.supervisor.alerting import Rules, Sight, State, judge

__all__ = ["Alerts"]

logger = logging.getLogger("seawall.supervisor")

#: Seconds between two looks at queues and dead letters while nothing is wrong.
LOOK_SECONDS = 5.0
#: Seconds for which an alert waits for room in its receiver's queue, and how many do so at the most.
KEEP_SECONDS = 24 * 3600.0
MOST_KEPT = 1000


class Alerts:
    """`look()` is how every service stands, by key; `deliver(alert)` brings one to its receivers. Both may raise
    BrokerUnavailable: then the next round tries again. `deliver` raises QueueFull once everybody but the webhook has had
    the alert: it is kept, marked as `told`, for up to `keep` seconds. One round at a time."""

    def __init__(
        self,
        store: AlertStore,
        rules: Rules,
        *,
        look: Callable[[], Mapping[str, Sight]],
        deliver: Callable[[Alert], None],
        clock: Callable[[], float] = time.monotonic,
        keep: float = KEEP_SECONDS,
    ) -> None:
        self._store = store
        self._rules = rules
        self._look = look
        self._deliver = deliver
        self._clock = clock
        self._keep = keep
        self._look_at = -LOOK_SECONDS
        self._outage = Outage(logger, "the broker (alerts)")

    def round(self) -> None:
        """Never raises: what went wrong is logged, and tried again in the next round."""
        try:
            self._round()
            self._outage.over()
        except (BrokerUnavailable, ResponseError) as error:
            self._outage.begins(error)
        except Exception:
            logger.exception("alerts could not be looked at; it is tried again")

    def _round(self) -> None:
        before, version, now = self._store.load()
        news = self._store.transitions(before.after)
        state = before
        if news or before.is_watchful or self._clock() - self._look_at >= LOOK_SECONDS:
            state = judge(before, news, self._look(), self._rules, now)
            self._look_at = self._clock()
        if state != before or not version:  # the very first look settles after which transition everything is told
            if not self._store.save(version, state):
                return
            version += 1
        if state.outbox:
            self._deliver_all(state, version, now)

    def _deliver_all(self, state: State, version: int, now: float) -> None:
        """What cannot be delivered now stays. Raises BrokerUnavailable."""
        waiting, kept, full = list(state.outbox), list[Alert](), False
        try:
            while waiting:
                alert = waiting[0]
                if full and alert.told:
                    kept.append(alert)
                else:
                    try:
                        self._deliver(alert)
                    except QueueFull as error:
                        full = True
                        kept += self._kept(alert, now, error)
                waiting.pop(0)
        finally:
            outbox = (*_newest(kept), *waiting)
            if outbox != state.outbox:
                self._store.save(version, msgspec.structs.replace(state, outbox=outbox))

    def _kept(self, alert: Alert, now: float, error: QueueFull) -> list[Alert]:
        """The alert, told; nothing of one that nobody wants to hear of any more."""
        if now - alert.at >= self._keep:
            logger.error("alert %s goes to no webhook: there was no room for it in %.0f s", alert.id, self._keep)
            return []
        if not alert.told:
            logger.warning("alert %s waits for room in the webhook's queue: %s", alert.id, error)
        return [msgspec.structs.replace(alert, told=True)]


def _newest(kept: list[Alert]) -> list[Alert]:
    if len(kept) > MOST_KEPT:
        logger.error("%d alerts go to no webhook: too many wait for room in its queue", len(kept) - MOST_KEPT)
    return kept[-MOST_KEPT:]
