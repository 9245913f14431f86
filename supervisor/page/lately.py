"""An answer that everybody who asks within a second shares."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

__all__ = ["Lately"]

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")


@dataclass(slots=True)
class _Look(Generic[Found]):
    """`over` is the time of its end on the monotonic clock, 0 while it goes on."""

    task: asyncio.Task[Found]
    over: float = 0.0


class Lately(Generic[Key, Found]):
    """`read` is called on a thread, once for all who ask for the same meanwhile; what it answers is good for `seconds()`.

    What it raises is told to those who wait, and not kept. All but `forget` on the event loop.
    """

    def __init__(self, read: Callable[[Key], Found], seconds: Callable[[], float]) -> None:
        self._read = read
        self._seconds = seconds
        self._looks: dict[Key, _Look[Found]] = {}

    async def get(self, key: Key) -> Found:
        oldest = time.monotonic() - self._seconds()
        for other, look in list(self._looks.items()):
            if look.over and (look.over <= oldest or look.task.cancelled() or look.task.exception()):
                self._looks.pop(other, None)
        found = self._looks.get(key)
        if found is None:
            found = self._looks[key] = _Look(asyncio.create_task(run_in_threadpool(self._read, key)))
            found.task.add_done_callback(lambda task: _end(found))
        return await asyncio.shield(found.task)

    def forget(self) -> None:
        """Something was changed: whoever asks from now on gets what is read from now on. From any thread."""
        self._looks.clear()


def _end(look: _Look[Found]) -> None:
    look.over = time.monotonic()
    if not look.task.cancelled():
        look.task.exception()  # nobody may be waiting for it any more
