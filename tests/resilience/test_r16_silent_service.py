"""Row 16: a limit of time on a call that hangs. Stock: the limit cannot break a blocking read: 3 s fired after 60 s.

Here the socket is shut down from outside when the time is over, and the worker's slot is free again.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from seawall import ResilientServiceClient
from tests.resilience.scene import calling
from tests.support import wait_until
from tests.support.loopback import Loopback, Peer, answer

#: Seconds of an attempt, and by which its end may be late: without the limit it ends with its caller's deadline, after 12 s.
LIMIT, LATE = 2.0, 3.0
SLOTS = 2


def silent(peer: Peer) -> None:
    """Answers /ok, and leaves everything else without an answer."""
    while (request := peer.read()) is not None:
        if request.target != "/ok":
            peer.ended.wait()
            return
        peer.write(answer())


def test_a_hanging_call_ends_and_frees_its_slot(redis_url: str) -> None:
    with Loopback(silent) as server, calling(redis_url) as house, ThreadPoolExecutor(SLOTS) as pool:
        client = ResilientServiceClient(server.url, "Silent", 1, LIMIT, key="silent", concurrency=SLOTS)

        def hang(number: int) -> float:
            started = time.monotonic()
            with pytest.raises(requests.ReadTimeout):
                client.get(f"/hang/{number}")
            return time.monotonic() - started

        hanging = [pool.submit(hang, number) for number in range(SLOTS)]
        wait_until(lambda: len(server.seen) == SLOTS)
        started = time.monotonic()
        assert client.get("/ok", deadline=10).status_code == 200
        assert time.monotonic() - started <= LIMIT + LATE, "the slots come free when the time is over"
        assert all(LIMIT <= one.result(10) <= LIMIT + LATE for one in hanging)
        wait_until(lambda: house.worker.busy() == 0)
