"""Keeps child processes running: one for one, with a growing delay and a budget; ends them in order, and in time.

States of a child: running; waiting for its restart; over (a program that ended, or a child that was given up). What
happens when this process dies without stopping them: Seawall's own processes notice it and drain, see ParentWatch.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from seawall.exits import Exit
from seawall.signals import Attention
from seawall.supervisor.child_process import ChildSpec, Process, how_it_ended, start_process
from seawall.supervisor.restarts import RestartPolicy, Restarts

__all__ = ["ChildSpec", "Keeper", "RestartPolicy", "start_process"]

logger = logging.getLogger("seawall.keeper")

#: Seconds between two looks at the children.
LOOK_SECONDS = 0.1
#: Seconds between two looks while they are to end.
STOP_LOOK_SECONDS = 0.02
#: Seconds that the system is given to end a process that was killed; it takes longer only when its disk hangs.
KILLED_SECONDS = 2.0
#: Ends that another start does not change, at a child's very first start. Later on it was a reload that went wrong.
_HOPELESS = frozenset({Exit.USAGE, Exit.CONFIG})
#: As a shell answers for a program that could not be started.
NOT_STARTED = 127


@dataclass(slots=True, eq=False)
class _Kept:
    """A child and what became of it."""

    child: ChildSpec
    restarts: Restarts
    process: Process | None = None
    launches: int = 0
    launched_at: float = 0.0
    due_at: float | None = None
    """When it is to be started again."""
    reloading: bool = False
    over: int | None = None
    """It is not started again: a program's exit code, or why all others should end too."""
    kill_at: float = 0.0
    killed: bool = False


class Keeper:
    """Starts the children in the order given. To be used by one thread. `clock` is monotonic.

    >>> keeper = Keeper([ChildSpec("greeter", ["echo", "hello"], env={}, grace=1.0, restart=False)])
    >>> keeper.start()
    >>> while keeper.ended("greeter") is None:
    ...     keeper.poll()
    >>> keeper.verdict
    0
    """

    def __init__(
        self,
        children: Iterable[ChildSpec],
        *,
        policy: RestartPolicy | None = None,
        spawn: Callable[[ChildSpec], Process] = start_process,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._policy = policy or RestartPolicy()
        self._kept = [_Kept(child, Restarts(self._policy)) for child in children]
        self._spawn = spawn
        self._clock = clock
        self._sleep = sleep
        self._started = self._stopping = False

    @property
    def pids(self) -> dict[str, int]:
        """The children that run, by name."""
        return {kept.child.name: kept.process.pid for kept in self._kept if kept.process is not None}

    @property
    def exhausted(self) -> list[str]:
        """The children that were given up."""
        return [kept.child.name for kept in self._kept if kept.child.restart and kept.over is not None]

    @property
    def verdict(self) -> int | None:
        """The exit code to end with, once there is no use in going on; see `run`."""
        return next((kept.over for kept in self._kept if kept.over is not None), None)

    def ended(self, name: str) -> int | None:
        """The exit code of a child that is not started again; as in a shell, 128 and its number for a signal."""
        return next((kept.over for kept in self._kept if kept.child.name == name), None)

    def start(self) -> None:
        """Start every child. One that cannot be started counts as one that died at once. Safe twice."""
        self._started = True
        for kept in self._kept:
            if not kept.launches and not self._stopping:
                self._launch(kept)

    def add(self, child: ChildSpec) -> None:
        """Keep this one too; starts it if the others are started."""
        self._kept.append(_Kept(child, Restarts(self._policy)))
        if self._started:
            self.start()

    def poll(self) -> None:
        """Notice who has ended, start who is due. Call it several times a second."""
        if self._stopping:
            return
        for kept in self._kept:
            if kept.process is not None and (code := kept.process.poll()) is not None:
                self._note_end(kept, kept.process, code)
            elif kept.due_at is not None and self._clock() >= kept.due_at:
                self._launch(kept)

    def restart_all(self) -> None:
        """Pass SIGHUP on to every child but the programs: each drains and starts afresh. Safe at any time."""
        for kept in self._kept:
            if kept.process is not None and kept.child.restart:
                kept.reloading = True
                kept.process.send_signal(signal.SIGHUP)

    def stop(self, timeout: float, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """End every child: SIGTERM, and SIGKILL after its `grace`, after `timeout` seconds, or when `hurry` says so.

        The programs first, so that those who work for them still do; they get half of the time at the most. Safe twice
        and before start.
        """
        self._stopping = True
        began = self._clock()
        self._end([kept for kept in self._kept if not kept.child.restart], began + timeout / 2, hurry)
        self._end([kept for kept in self._kept if kept.child.restart], began + timeout, hurry)

    def run(
        self,
        signals: Attention,
        *,
        timeout: float,
        orphaned: Callable[[], bool] = lambda: False,
        beside: Callable[[], object] = lambda: None,
    ) -> int:
        """Start, look after the children and call `beside` in every round until a signal, an end that no restart mends,
        or `orphaned` says that the parent is gone; then stop within `timeout` seconds.

        Answers OK, CUT_OFF after a second signal, a program's own code when it ended, SOFTWARE when a child's budget
        was spent, and USAGE or CONFIG when a child ended so at its first start.
        """
        try:
            self.start()
            while self.verdict is None and not signals.stop_requested and not orphaned():
                if signals.reload_requested:
                    self.restart_all()
                beside()
                signals.wait(LOOK_SECONDS)
                self.poll()
        finally:
            stops = max(1, signals.stop_count)
            self.stop(timeout, hurry=lambda: signals.stop_count > stops)
        if signals.stop_count > stops:
            return Exit.CUT_OFF
        return Exit.OK if self.verdict is None else self.verdict

    def _launch(self, kept: _Kept) -> None:
        kept.due_at = None
        kept.launches += 1
        kept.launched_at = self._clock()
        try:
            kept.process = self._spawn(kept.child)
        except OSError as error:
            logger.error("%s cannot be started: %s", kept.child.name, error)
            self._decide(kept, NOT_STARTED)
            return
        logger.info("%s runs as process %d", kept.child.name, kept.process.pid)

    def _note_end(self, kept: _Kept, process: Process, code: int) -> None:
        kept.process = None
        reloaded = kept.reloading and code == Exit.OK
        expected = reloaded or (code == Exit.OK and not kept.child.restart)
        level = logging.INFO if expected else logging.WARNING
        logger.log(level, "%s (process %d) %s", kept.child.name, process.pid, how_it_ended(code))
        kept.reloading = False
        if reloaded:
            kept.due_at = self._clock()
        else:
            self._decide(kept, code)

    def _decide(self, kept: _Kept, code: int) -> None:
        """Start it again, or never."""
        name, now = kept.child.name, self._clock()
        if not kept.child.restart:
            kept.over = code if code >= 0 else 128 - code
        elif kept.launches == 1 and code in _HOPELESS:
            logger.error("%s is not started again: what it was told is wrong", name)
            kept.over = code
        elif (delay := kept.restarts.after_death(now, now - kept.launched_at)) is None:
            logger.error("%s is given up: it was started again %d times lately", name, self._policy.budget)
            kept.over = Exit.SOFTWARE
        else:
            logger.warning("%s is started again in %.1f s", name, delay)
            kept.due_at = now + delay

    def _end(self, wave: Sequence[_Kept], ends: float, hurry: Callable[[], bool]) -> None:
        for kept in wave:
            if kept.process is not None and kept.process.poll() is None:
                kept.process.send_signal(signal.SIGTERM)
                kept.kill_at = min(self._clock() + kept.child.grace, ends)
        while running := [kept for kept in wave if self._still_runs(kept)]:
            for kept in running:
                self._press(kept, hurry)
            self._sleep(STOP_LOOK_SECONDS)

    def _press(self, kept: _Kept, hurry: Callable[[], bool]) -> None:
        """Kill it when its time is over. Later, let go of one that even then does not end."""
        assert kept.process is not None
        now = self._clock()
        if kept.killed and now > kept.kill_at + KILLED_SECONDS:
            logger.error("%s (process %d) cannot be ended", kept.child.name, kept.process.pid)
            kept.process = None
        elif not kept.killed and (now >= kept.kill_at or hurry()):
            logger.warning("%s (process %d) did not end in time and is killed", kept.child.name, kept.process.pid)
            kept.kill_at, kept.killed = now, True
            kept.process.kill()

    @staticmethod
    def _still_runs(kept: _Kept) -> bool:
        if kept.process is None:
            return False
        code = kept.process.poll()
        if code is None:
            return True
        logger.info("%s (process %d) %s", kept.child.name, kept.process.pid, how_it_ended(code))
        kept.process = None
        return False
