"""A worker process's life: serve until a signal, drain, exit in time.

SIGTERM and SIGINT: fetch nothing more, give back what has not started, finish what runs, exit before the shutdown
timeout. A second one: exit now; what ran goes to another worker when its lease ends. SIGHUP: drain, and answer that the
process shall start afresh with the same arguments, so that new code and settings are read.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from seawall.signals import Attention

__all__ = ["End", "run_worker"]

logger = logging.getLogger("seawall.worker")

#: Seconds between two looks at what no signal announces, such as a dead parent.
LOOK_SECONDS = 1.0


class End(enum.Enum):
    """Why a worker process ends."""

    STOPPED = "stopped"
    RELOAD = "reload"
    CUT_OFF = "cut off"


class Runner(Protocol):
    """A part with a life: start, then stop within `timeout` seconds. Stop is safe twice and before start."""

    def start(self) -> None: ...

    def stop(self, timeout: float) -> None: ...

    def busy(self) -> int: ...


def run_worker(
    runner: Runner, signals: Attention, *, shutdown_timeout: float, orphaned: Callable[[], bool] = lambda: False
) -> End:
    """Run until a signal, or until `orphaned` says that the parent process is gone."""
    runner.start()
    reload = False
    while not signals.stop_requested and not orphaned():
        if signals.reload_requested:
            reload = True
            break
        signals.wait(LOOK_SECONDS)
    busy = runner.busy()
    logger.info(
        "stopping: %s", f"{busy} running calls have {shutdown_timeout:g} s to end" if busy else "no call is running"
    )
    if not _drain(runner, signals, shutdown_timeout, cut_off_at=1 if reload else 2):
        return End.CUT_OFF
    return End.RELOAD if reload else End.STOPPED


def _drain(runner: Runner, signals: Attention, timeout: float, *, cut_off_at: int) -> bool:
    """Stop the runner; False when a further signal cut that short."""
    stopping = threading.Thread(target=runner.stop, args=(timeout,), name="seawall-drain", daemon=True)
    stopping.start()
    while stopping.is_alive():
        if signals.stop_count >= cut_off_at:
            return False
        stopping.join(0.05)
    return True
