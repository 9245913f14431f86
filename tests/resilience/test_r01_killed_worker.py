"""Row 1: `kill -9` of a worker. Stock: its messages come back after 121 to 2,631 s.

Here each call has a lease on the server's clock, and whoever fetches next returns what is over: within 15 s, of a
quiet queue, with no supervisor.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

from tests.acceptance.harness import say
from tests.acceptance.slow import Slow
from tests.support import wait_until

#: Seconds within which everything runs again: DESIGN.md's promise, RELIABILITY.md asks for 45.
PROMISED = 15.0
#: Calls in the worker's hands when it dies, as in RELIABILITY.md (5 running and 20 fetched).
HELD = 25


def test_all_that_a_killed_worker_held_runs_elsewhere(tmp_path: Path, redis_url: str) -> None:
    with ExitStack() as stack:
        slow = Slow(stack, tmp_path, redis_url, running=HELD)
        doomed = slow.fleet.worker()
        slow.fill(doomed)
        slow.fleet.start(workers=1)
        os.killpg(doomed.pid, signal.SIGKILL)
        killed = time.monotonic()
        doomed.wait()
        slow.release.set()
        wait_until(lambda: slow.fleet.drained("slow"), 3 * PROMISED, message="the calls do not come back")
        took = time.monotonic() - killed
        dead = slow.fleet.counts("slow").dead
    say(f"kill -9: all {HELD} calls of the dead worker ran again within {took:.1f} s")
    assert took < PROMISED
    assert dead == 0
    assert slow.starts() == {f"/{number}": 2 for number in range(HELD)}
