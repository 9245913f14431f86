"""A worker that notes when each call passes its stages: a line `<id> <stage> <monotonic seconds>` each, in a file.

`python stages_worker.py FILE`. What is wrapped are the seams between the parts; each note costs about a microsecond.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from seawall.actors import lines
from seawall.actors.call_actor import CallActor
from seawall.actors.hub import Hub
from seawall.actors.redis_queue import RedisQueue
from seawall.cli import main

notes: list[str] = []
_running = threading.local()


def note(id: str, stage: str) -> None:
    notes.append(f"{id} {stage} {time.monotonic():.7f}")


def around(owner: Any, name: str, id_of: Callable[..., str], before: str, after: str = "") -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        id = id_of(*arguments)
        note(id, before)
        try:
            return original(*arguments, **keywords)
        finally:
            if after:
                note(id, after)

    setattr(owner, name, wrapped)


def _remember(actor: Any, delivered: Any) -> str:
    _running.id = delivered.delivery.id
    return str(_running.id)


if __name__ == "__main__":
    file = sys.argv.pop()
    around(Hub, "_receive", lambda hub, delivery: delivery.id, "received")
    around(CallActor, "__call__", _remember, "started", "judged")
    around(lines, "swap", lambda *arguments: _running.id, "sent", "answered")
    around(RedisQueue, "settle_and_fetch", lambda queue, delivery, *more: delivery.id, "settling")

    def write() -> None:
        with open(file, "w") as stream:
            stream.write("\n".join(notes))

    atexit.register(write)
    sys.argv = ["seawall", "worker", "seawall_app"]
    sys.exit(main())
