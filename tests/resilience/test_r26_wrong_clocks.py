"""Row 26: hosts whose clocks are wrong. Stock: a host 61 s behind lets running messages be delivered again.

Here the server's clock alone decides: two minutes off in either direction, nothing runs twice and nothing expires early.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from seawall import ResilientServiceClient
from tests.acceptance.harness import Fleet
from tests.integration.stores import fake_time
from tests.resilience.scene import pass_time
from tests.support import Answer, CountingService, wait_until
from tests.support.house import caller

#: Seconds by which clocks are wrong.
OFF = 120.0
HELD, SHORT = 4, 12
#: Seconds for which calls run beside a worker that sees their leases as long over, several looks for such ones.
BESIDE = 3.0
#: Seconds of a delay, and after which calls would expire: far less than the clocks are off.
DELAY, EXPIRY = 0.5, 30.0

#: Imported by every Python process that finds it: its wall clock goes wrong before anything else runs.
CLOCK = """
import os, time
_time, _time_ns, _off = time.time, time.time_ns, float(os.environ.get("CLOCK_OFF", "0"))
time.time = lambda: _time() + _off
time.time_ns = lambda: _time_ns() + int(_off * 1e9)
"""


def test_wrong_clocks_decide_nothing(
    tmp_path: Path, redis_url: str, service: CountingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    path = os.pathsep.join(filter(None, (str(tmp_path / "clock"), os.environ.get("PYTHONPATH"))))
    hold = threading.Event()
    service.script("*", *[Answer(hold=hold)] * HELD, Answer())
    declared = {"clock": {"url": service.url, "concurrency": HELD + 1, "timeout": 60}}
    with Fleet(tmp_path, redis_url, declared, environ={"PYTHONPATH": path, "CLOCK_OFF": str(-OFF)}) as fleet:
        fake_time(monkeypatch, OFF)  # the caller's own
        with caller(redis_url, namespace=fleet.namespace):
            client = ResilientServiceClient(service.url, "Clock", key="clock", concurrency=HELD + 1)
            fleet.start(workers=1)
            for number in range(HELD):
                client.enqueue("POST", f"/held/{number}", expires_in=EXPIRY)
            service.wait_for(HELD)
            fleet.environ["CLOCK_OFF"] = str(OFF)
            fleet.start(workers=1)
            beside = time.monotonic() + BESIDE
            for number in range(SHORT):
                client.enqueue("POST", f"/short/{number}", expires_in=EXPIRY)
            asked = time.monotonic()
            client.enqueue("POST", "/delayed", delay=DELAY, expires_in=EXPIRY)
            assert client.get("/waited", deadline=20).status_code == 200
            (delayed,) = service.wait_for(1, path="/delayed")
            pass_time(beside)
            hold.set()
            wait_until(lambda: fleet.drained("clock"))
        dead = fleet.counts("clock").dead
    runs = Counter(request.path for request in service.requests)
    assert delayed.at - asked >= DELAY - 0.1
    assert (len(runs), set(runs.values()), dead) == (HELD + SHORT + 2, {1}, 0)
