"""A replay of dead letters: one at a time, on a thread of its own, stopped with the process, its progress for all to see."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from seawall.supervisor.page.desk import Desk, Progress, Wanted

__all__ = ["RATE", "Replay", "Replays"]

logger = logging.getLogger("seawall.web")

#: Calls a second that a replay queues: a service that has just come back is not flooded.
RATE = 100.0


@dataclass(slots=True)
class Replay:
    """`ended` is 0 while it runs; `trouble` is why it ended early."""

    wanted: Wanted
    who: str
    began: float
    progress: Progress = field(default_factory=Progress)
    ended: float = 0.0
    stopped: bool = False
    trouble: str = ""


class Replays:
    """`changed` is called, on any thread, when one begins or ends."""

    def __init__(self, desk: Desk, changed: Callable[[], None]) -> None:
        self._desk = desk
        self._changed = changed
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.latest: Replay | None = None
        self.closed = False

    def start(self, wanted: Wanted, who: str) -> bool:
        """False while another one runs, and after `close`."""
        with self._lock:
            if self.closed or (self.latest is not None and not self.latest.ended):
                return False
            self._stop.clear()
            replay = self.latest = Replay(wanted, who, time.time())
        threading.Thread(target=self._run, args=(replay,), name="seawall-replay", daemon=True).start()
        self._changed()
        return True

    def stop(self) -> bool:
        """After the letter that is being moved; what is left is replayed by another replay. False when none runs."""
        self._stop.set()
        return self.latest is not None and not self.latest.ended

    def close(self) -> None:
        """Stop it for good: none begins any more."""
        with self._lock:
            self.closed = True
            self._stop.set()

    def _run(self, replay: Replay) -> None:
        try:
            self._desk.replay(replay.wanted, RATE, replay.progress, self._stop.wait)
        except Exception as error:
            replay.trouble = str(error)
            logger.warning("the replay of %s ended early: %s", replay.wanted, error)
        replay.stopped = self._stop.is_set()
        replay.ended = time.time()
        self._changed()
