"""A breaker that many ask at once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from seawall import ResilientServiceClient
from tests.acceptance.harness import opened
from tests.measures.figures import Figure, at_most, exactly, measure
from tests.measures.stand import Stand
from tests.resilience import test_r24_two_supervisors as supervisors
from tests.support import Answer

PROCESSES, THREADS = 8, 8
#: Seconds of an open breaker, and trials that are looked at.
RECOVERY, TRIALS = 1.0, 5
#: Seconds of a call, and within which eight at once must be done: less than two of them would take.
CALL, AT_ONCE = 0.5, 1.0


@measure("X8")
def stampede(stand: Stand) -> Iterator[Figure]:
    """Eight processes of eight threads each that call a dead service without end; the breaker is open."""
    service = stand.service()
    service.script("*", Answer(500))
    declared = {"url": service.url, "max_retries": 1, "failure_threshold": 1, "recovery_timeout": RECOVERY}
    fleet = stand.fleet(stand.server().url, {"sick": declared})
    _, _, *callers = fleet.start(workers=1, supervisors=1, callers=PROCESSES)
    fleet.enqueue("sick", ["/trip"])
    opened(fleet, "sick")
    hammering = [caller.start("hammer", service="sick", path="/asked", threads=THREADS) for caller in callers]
    asked = service.wait_for(TRIALS, path="/asked", timeout=60)
    for caller in callers:
        caller.ask("rest", service="sick")
    refused = sum(answer.result(20).get("ServiceUnavailable", 0) for answer in hammering)
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(asked)]
    together = 1 + sum(gap < RECOVERY - supervisors.TOLERANCE for gap in gaps)
    what = f"half-open, {PROCESSES} x {THREADS} callers ({refused:,} refused): calls that got through at once"
    yield exactly(what, together, 1, stock="8 and 64")
    yield Figure(
        "trials apart, at least", "-", f">= {RECOVERY:g} s", f"{min(gaps):.2f} s",
        min(gaps) >= RECOVERY - supervisors.TOLERANCE,
    )  # fmt: skip


@measure("X18")
def serialised(stand: Stand) -> Iterator[Figure]:
    service = stand.service()
    service.script("*", Answer(delay=CALL))
    fleet = stand.fleet(stand.server().url, {"busy": {"url": service.url, "concurrency": THREADS}})
    fleet.start(workers=1)
    client: ResilientServiceClient = stand.client(fleet, "busy")
    client.get("/first")
    with ThreadPoolExecutor(THREADS) as pool:
        began = time.monotonic()
        calls = [pool.submit(client.get, f"/{number}") for number in range(THREADS)]
        assert {call.result(20).status_code for call in calls} == {200}
        took = time.monotonic() - began
    yield at_most(f"{THREADS} threads, a call of 0.5 s each", took, AT_ONCE, stock="4.01 s")
