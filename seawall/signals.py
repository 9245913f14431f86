"""Why a process should stop, noticed without doing anything about it: signals, and a parent that is gone."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

from seawall.exits import Exit

__all__ = ["Attention", "ParentWatch", "Signals", "Stopped"]

_NOTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: Bytes taken from the wake pipe at a time; each signal and each wake writes one.
_DRAIN = 4096


class Attention(Protocol):
    """What a process's main loop sees of its signals."""

    @property
    def stop_requested(self) -> bool: ...

    @property
    def stop_count(self) -> int: ...

    @property
    def reload_requested(self) -> bool: ...

    def wait(self, timeout: float) -> None: ...


class Stopped(BaseException):
    """A signal asked for a stop before there was anything to stop. No Exception: a user's module shall not catch it."""


class Signals:
    """Notes SIGTERM, SIGINT and SIGHUP while it is entered, and puts the earlier handlers back when it is left.

    The handlers only note; a loop reads what was noted, and `wait` lets it sleep meanwhile. Enter it on the main
    thread (ValueError elsewhere), once at a time; reading and `wake` are safe from every thread.

    `hangup_stops` is for a program in a terminal: there SIGHUP says that the terminal is gone, so it counts as a stop
    and not as a reload. A process that was told to ignore SIGHUP (nohup) goes on ignoring it.

    >>> with Signals() as signals:
    ...     while not signals.stop_requested:
    ...         signals.wait(0.01)
    ...         os.kill(os.getpid(), signal.SIGTERM)
    >>> signals.stop_count
    1
    """

    def __init__(self, *, hangup_stops: bool = False) -> None:
        self._hangup_stops = hangup_stops
        self._stops = 0
        self._reload = False
        self._starting = False
        self._before: dict[signal.Signals, Any] = {}
        self._wakeup_before = -1
        self._pipe: tuple[int, int] | None = None
        self._lock = threading.Lock()  # never taken by a handler

    def __enter__(self) -> Signals:
        for number in _NOTED:
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        self._pipe = reader, writer
        # The interpreter itself writes to the pipe the moment a signal arrives. A handler could do so only later: it
        # runs between two steps of the main thread, and one that comes just before a sleep would be noticed after it.
        self._wakeup_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        signal.set_wakeup_fd(self._wakeup_before)
        with self._lock:
            pipe, self._pipe = self._pipe, None
        for end in pipe or ():
            os.close(end)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Until it is left, a signal is acted upon where it arrives, since no loop reads what was noted: while a user's
        modules are imported, which may take any time. The first one raises Stopped there; a further one, should somebody
        have caught that, ends the process.
        """
        self._starting = True
        try:
            if self._stops:
                raise Stopped
            yield
        finally:
            self._starting = False

    @property
    def stop_requested(self) -> bool:
        return self._stops > 0

    @property
    def stop_count(self) -> int:
        """How many signals asked for a stop; the second one means: now."""
        return self._stops

    @property
    def reload_requested(self) -> bool:
        """Whether SIGHUP came since this was last read."""
        asked, self._reload = self._reload, False
        return asked

    def wait(self, timeout: float) -> None:
        """Sleep for `timeout` seconds, or until a signal or a `wake`; one that came since the last wait counts."""
        if self._pipe is None:
            raise RuntimeError("signals can be waited for inside of `with` only")
        reader = self._pipe[0]
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        if poll.poll(max(0.0, timeout) * 1000):
            os.read(reader, _DRAIN)

    def wake(self) -> None:
        """End the current or the next `wait`. Does nothing outside of `with`."""
        with self._lock:
            if self._pipe is not None:
                try:
                    os.write(self._pipe[1], b"\0")
                except BlockingIOError:
                    return  # the pipe is full: nobody sleeps

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not self._hangup_stops:
            self._reload = True
        else:
            self._stops += 1
            if self._starting and self._stops > 1:
                os._exit(Exit.CUT_OFF)
            if self._starting:
                raise Stopped


class ParentWatch:
    """Notices that the process which started this one is gone, however it ended.

    `parent` is its process id, handed down by itself: asked for here, a parent that died before would go unnoticed.
    0 or None: there is no parent to watch.
    """

    def __init__(self, parent: int | None) -> None:
        self._parent = parent

    def orphaned(self) -> bool:
        """Whether this process belongs to somebody else by now; one system call."""
        return bool(self._parent) and os.getppid() != self._parent
