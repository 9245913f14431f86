"""How soon an idle worker takes a call up, and how late delayed ones run."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from seawall import ResilientServiceClient
from tests.measures.figures import Figure, at_most, measure, percentiles
from tests.measures.stand import Stand
from tests.resilience.scene import pass_time

#: Samples, and the seconds of idleness before each of them.
SOON, SOON_AFTER = 30, (0.2, 0.6)
LATER, LATER_AFTER = 20, (4.0, 6.0)
#: Delayed calls, and the seconds between two of them.
DELAYED, APART, DELAY = 30, 0.05, 1.0
#: Milliseconds in the 95th percentile: row 28, and DESIGN.md's for what is due.
PICKED_UP, PUNCTUAL = 50.0, 100.0


@measure("B1")
def idle(stand: Stand) -> Iterator[Figure]:
    service = stand.service()
    fleet = stand.fleet(stand.server().url, {"idle": {"url": service.url}})
    fleet.start(workers=1, supervisors=1)
    client = stand.client(fleet, "idle")
    client.get("/first")
    for what, count, after, stock in (
        ("send to result, idle: p50 / p95 / max", SOON, SOON_AFTER, "265 / 544 / 608 ms"),
        ("the same after 4 to 6 s of idleness", LATER, LATER_AFTER, "429 / 581 / 694 ms"),
    ):
        p95, shown = percentiles([_round_trip(client, random.uniform(*after)) for _ in range(count)])
        yield at_most(what, p95, PICKED_UP, unit="ms", stock=stock, shown=shown)
    due = {}
    for number in range(DELAYED):
        client.enqueue("POST", f"/delayed/{number}", delay=DELAY)
        due[f"/delayed/{number}"] = time.monotonic() + DELAY
        pass_time(time.monotonic() + APART)
    service.wait_for(1, path=f"/delayed/{DELAYED - 1}")
    p95, shown = percentiles([r.at - due[r.path] for r in service.requests if r.path in due])
    what = "lateness of delay=1 s: p50 / p95 / max"
    yield at_most(what, p95, PUNCTUAL, unit="ms", stock="754 / - / 1,051 ms", shown=shown)


def _round_trip(client: ResilientServiceClient, after: float) -> float:
    pass_time(time.monotonic() + after)
    started = time.monotonic()
    client.get("/idle")
    return time.monotonic() - started
