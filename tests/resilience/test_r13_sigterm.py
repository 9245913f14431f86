"""Row 13: SIGTERM. Stock: what was fetched waits for the end of the actors that run: 0 of 8 within 30 s.

Here a worker gives back at once what it has not started, a peer runs it within a second, and what runs is finished.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from seawall.exits import Exit
from tests.acceptance.harness import say
from tests.acceptance.slow import Slow
from tests.support import wait_until

BUSY, WAITING = 8, 8
#: Seconds within which a peer runs what was given back, and what a busy machine may need beyond them.
PROMISED, BUSY_MACHINE = 1.0, 1.0
#: Seconds between the last call's end and the exit.
SOON = 3.0


def test_what_has_not_started_is_a_peers_at_once(tmp_path: Path, redis_url: str) -> None:
    with ExitStack() as stack:
        slow = Slow(stack, tmp_path, redis_url, running=BUSY)
        leaving = slow.fleet.worker()
        slow.fill(leaving, backlog=WAITING)
        leaving.terminate()
        leaving.expect("stopping: ")
        (peer,) = slow.fleet.start(workers=1)
        there = time.monotonic()
        slow.service.wait_for(BUSY + WAITING)
        moved = slow.service.requests[-1].at - there
        assert leaving.popen.poll() is None, "what runs is finished first"
        slow.release.set()
        released = time.monotonic()
        assert leaving.wait() == Exit.OK
        ended = time.monotonic() - released
        wait_until(lambda: slow.fleet.drained("slow"))
        assert peer.popen.poll() is None
    say(
        f"SIGTERM: {WAITING} calls run by a peer {moved:.2f} s after it was there; exit {ended:.2f} s after the last call"
    )
    assert moved < PROMISED + BUSY_MACHINE
    assert ended < SOON
    assert set(slow.starts().values()) == {1}
