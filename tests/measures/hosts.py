"""Hosts whose clocks are wrong, and processes that fork."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator

from tests.measures.figures import Figure, exactly, measure
from tests.measures.stand import Stand
from tests.resilience import test_r21_fork as forks
from tests.resilience import test_r26_wrong_clocks as clocks
from tests.resilience.scene import pass_time, run_child
from tests.support import Answer, wait_until

#: Seconds by which the clocks of two hosts are wrong, and for which calls run there beside a right one: beyond a lease.
BEHIND, AHEAD, BESIDE = -61.0, 120.0, 7.0
HELD, SHORT = 4, 12


@measure("X10")
def wrong_clocks(stand: Stand) -> Iterator[Figure]:
    """Calls run on a host 61 s behind and one 120 s ahead; a third with a right clock looks for calls of dead workers."""
    folder = stand.folder / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(clocks.CLOCK)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    service, hold = stand.service(), threading.Event()
    stand.at_end(hold.set)
    service.script("*", *[Answer(hold=hold)] * (2 * HELD), Answer())
    declared = {"clock": {"url": service.url, "concurrency": HELD + 1, "timeout": 60}}
    fleet = stand.fleet(stand.server().url, declared, PYTHONPATH=path)
    for off in (BEHIND, AHEAD):
        fleet.environ["CLOCK_OFF"] = str(off)
        fleet.start(workers=1)
        running = service.count()
        fleet.enqueue("clock", [f"/held/{off:g}/{number}" for number in range(HELD)])
        service.wait_for(running + HELD)
    fleet.environ["CLOCK_OFF"] = "0"
    fleet.start(workers=1, supervisors=1)
    fleet.enqueue("clock", [f"/short/{number}" for number in range(SHORT)])
    pass_time(time.monotonic() + BESIDE)
    hold.set()
    wait_until(lambda: fleet.drained("clock"))
    runs = Counter(request.path for request in service.requests)
    what = "hosts 61 s behind and 120 s ahead: calls that ran twice"
    yield exactly(what, sum(times > 1 for times in runs.values()), 0, stock="each running one")
    yield exactly("calls that ran", len(runs), 2 * HELD + SHORT, stock="-")
    yield exactly("calls that expired", fleet.counts("clock").dead, 0, stock="-")


@measure("X17")
def fork(stand: Stand) -> Iterator[Figure]:
    """Forks after use and in the middle of it; the child program fails where an answer is another's."""
    service = stand.service()
    service.script("*", lambda request: Answer(body=request.path))
    fleet = stand.fleet(stand.server().url, {"echo": {"url": service.url}})
    fleet.start(workers=1)
    told = {name: value for name, value in fleet.environ.items() if name.startswith("SEAWALL_")}
    run_child(forks.FORKING, service.url, str(forks.CHILDREN), str(forks.CALLS), environ=told, timeout=120)
    calls = forks.CALLS * (1 + 2 + forks.CHILDREN + 1)
    yield exactly(f"forks in the middle of {calls} calls: wrong answers", 0, 0, stock="1 in 398")
    yield exactly("calls that the service saw", service.count(), calls, stock="-")
