"""The schedules that this process has declared, by name: with `client.schedule`, or in `seawall.toml`.

Only a supervisor acts on them: it imports the modules that declare them, and the leading one queues their calls. In
any other process a declaration is checked, and nothing more.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from seawall.actors.service import Service
from seawall.errors import ConfigurationError
from seawall.queueing import Prepared
from seawall.ticks import Ticks

__all__ = ["Schedule", "ScheduleRegistry", "registry"]

logger = logging.getLogger("seawall")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A background call of a service, to be queued at each tick. `call` makes it anew, under an id of its own."""

    name: str
    ticks: Ticks
    service: Service
    method: str
    path: str
    options: Mapping[str, Any] = field(repr=False)
    call: Callable[[], Prepared] = field(compare=False, repr=False)


class ScheduleRegistry:
    """Declaring a name twice: the last one wins. Safe for threads."""

    def __init__(self) -> None:
        self._schedules: dict[str, Schedule] = {}
        self._without_broker = False

    def declare(self, schedule: Schedule) -> None:
        known = self._schedules.get(schedule.name)
        self._schedules[schedule.name] = schedule
        if known is not None and known != schedule:
            logger.info("schedule %s: declared again, and differently; the newer one holds", schedule.name)

    def check_can_run(self, name: str, *, memory: bool) -> None:
        """Raises ConfigurationError in memory mode, where nobody would run it. Under pytest nobody has to."""
        testing = sys.modules.get("seawall.testing")
        if memory and not self._without_broker and not getattr(testing, "under_test", 0):
            raise ConfigurationError(
                f"schedule {name!r} needs a broker, because supervisors run schedules: "
                "set SEAWALL_BROKER_URL, or run everything with `seawall up`"
            )

    @contextlib.contextmanager
    def without_broker(self) -> Iterator[None]:
        """While modules are imported only to see what they declare: schedules are fine without a broker."""
        before, self._without_broker = self._without_broker, True
        try:
            yield
        finally:
            self._without_broker = before

    def find(self, name: str) -> Schedule | None:
        return self._schedules.get(name)

    def all(self) -> list[Schedule]:
        return list(self._schedules.values())

    def ticks(self) -> dict[str, Ticks]:
        """How each of them ticks, by name."""
        return {schedule.name: schedule.ticks for schedule in self.all()}

    def restore(self, schedules: Iterable[Schedule]) -> None:
        """Have exactly these schedules declared; for tests."""
        self._schedules = {schedule.name: schedule for schedule in schedules}


#: Declared schedules outlive a runtime, as services do.
registry = ScheduleRegistry()
