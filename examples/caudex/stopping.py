"""Waiting for SIGTERM or ctrl-C, for programs that stop cleanly."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

__all__ = ["StopSignals"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """A context in which SIGTERM and SIGINT are noted on a pipe, for the main loop to act on.

    The handlers that were there before are put back at the end. Main thread only.
    """

    def __enter__(self) -> StopSignals:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, timeout: float | None = None, others: Sequence[Any] = ()) -> tuple[bool, list[Any]]:
        """Sleep until a stop is asked for, one of `others` (files) can be read, or `timeout` seconds passed.

        Answers (stop asked for, the readable ones of `others`). A stop that was noted stays noted.
        """
        readable, _, _ = select.select([self._reader, *others], [], [], timeout)
        return self._reader in readable, [file for file in readable if file != self._reader]

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        with suppress(BlockingIOError):
            os.write(self._writer, b".")
