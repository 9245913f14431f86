"""How the processes of a chaos run end: on SIGTERM, and with the process that started them, however that one ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

__all__ = ["end_with_parent"]

#: Seconds between two looks at whether the parent lives.
LOOK_EVERY = 1.0


def end_with_parent(end: Callable[[], object]) -> None:
    """Call `end` on SIGTERM, or once the parent is gone."""
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: end())

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY)
        end()

    threading.Thread(target=watch, daemon=True).start()
