"""A process that follows a breaker, and prints when it sees it open: its generation, and the monotonic time."""

from __future__ import annotations

import os
import sys
import time

from seawall.actors.engine import engine_from_url
from seawall.supervisor.breaker import Policy, Record, State
from seawall.supervisor.view import BreakerView


def changed(old: Record, new: Record) -> None:
    if new.state is State.OPEN:
        print(f"{new.generation} {time.monotonic():.6f}", flush=True)


if __name__ == "__main__":
    view = BreakerView("tripped", "Tripped", engine_from_url(os.environ["BENCH_BROKER"]).breakers, Policy())
    view.on_change(changed)
    view.start()
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)
