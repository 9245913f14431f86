"""A broker that is full, that evicts, that has much to keep or much of others', and garbage in its queues."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from seawall import QueueFull, ResilientServiceClient
from seawall.actors.queue_store import Accepted, Put
from seawall.actors.service import queue_names
from seawall.exits import Exit
from tests.acceptance.harness import Fleet
from tests.measures.figures import Figure, at_most, exactly, measure, percentiles
from tests.measures.stand import Stand
from tests.resilience import test_r12_behind_far_future as behind
from tests.resilience import test_r27_no_slow_commands as commands
from tests.support import wait_until

#: Bytes of X4's server, and of each body in it.
FULL, BODY = "12mb", b"x" * 4000
#: Calls that X5's soon ones are behind, how many of these there are, and their delay in seconds.
FAR, SOON, DELAY = 100_000, 20, 2.0
#: Keys of X9's server, which are made in so many parts.
KEYS, PARTS = 1_000_000, 10
#: Good calls, and what is put among each of them in turn.
GOOD, GARBAGE = 30, (b"", b"\xff\x00\xc1", b'{"queue_name": ', b"\x80" * 100_000)


@measure("X4")
def full(stand: Stand) -> Iterator[Figure]:
    """A server without room, and one that makes room by throwing away."""
    server, service = stand.server(maxmemory=FULL), stand.service()
    fleet = stand.fleet(server.url, {"full": {"url": service.url, "queue_cap": 10**6}})
    client = stand.client(fleet, "full")
    accepted = _fill(client)
    with server.client() as inside:
        inside.config_set("maxmemory", "11mb")  # so that not even the smallest write fits
    began = time.monotonic()
    fleet.start(workers=1)
    wait_until(lambda: fleet.drained("full"), 60)
    took = time.monotonic() - began
    ran = len({request.path for request in service.requests})
    what = f"a full server with {accepted} calls drains: not run"
    yield exactly(what, accepted - ran, 0, stock="12,797 of 12,797")
    yield at_most("with no byte to spare, from the worker's start on", took, 60.0, stock="never")
    evicting = stand.server(maxmemory="100mb", maxmemory_policy="allkeys-lru")
    other = stand.fleet(evicting.url, {"any": {"url": service.url}})
    refused = [program.wait() == Exit.CONFIG for program in (other.worker(), other.supervisor())]
    yield exactly("a server that evicts: processes that refuse it", sum(refused), 2, stock="25,903 calls lost")


def _fill(client: ResilientServiceClient) -> int:
    """How many calls the server took until it took no more."""
    count = 0
    while True:
        try:
            client.enqueue("POST", f"/{count}", data=BODY)
        except QueueFull:
            return count
        count += 1


@measure("X5")
def far_future(stand: Stand) -> Iterator[Figure]:
    service = stand.service()
    fleet = stand.fleet(stand.server().url, {"sorted": {"url": service.url, "queue_cap": 2 * FAR}})
    fleet.start(workers=1, supervisors=1)
    client = stand.client(fleet, "sorted")
    queue = queue_names("sorted")[1]
    for first in range(0, FAR, behind.AT_ONCE):
        puts = [
            Put(queue, f"far-{number}", b"never run", delay=3600) for number in range(first, first + behind.AT_ONCE)
        ]
        assert all(isinstance(answer, Accepted) for answer in fleet.engine.queue.put(puts))
    due = {}
    for number in range(SOON):
        client.enqueue("POST", f"/{number}", delay=DELAY)
        due[f"/{number}"] = time.monotonic() + DELAY
    requests = service.wait_for(SOON, timeout=30)
    p95, shown = percentiles([request.at - due[request.path] for request in requests])
    what = f"behind {FAR:,} calls: lateness of delay=2 s: p50 / p95 / max"
    yield at_most(what, p95, 1000 * behind.PUNCTUAL, unit="ms", stock="not run in 90 s (8,000)", shown=shown)
    yield exactly("of these still there", fleet.counts("sorted").due, FAR, stock="-")


@measure("X9")
def keyspace(stand: Stand) -> Iterator[Figure]:
    """A million keys of somebody else's on the same server; 50 calls of a dead worker to find."""
    server, service = stand.server(appendonly="no", enable_debug_command="yes"), stand.service()
    with server.client() as inside:
        for part in range(PARTS):  # each within the client's own timeout
            inside.execute_command("DEBUG", "POPULATE", KEYS // PARTS, f"somebody-elses-{part}", 1)
        inside.config_resetstat()
        sweeps = commands.sweeps_after_a_death(server.url)
        commands.good_and_bad_times(server.url, service)
        used = {name.removeprefix("cmdstat_").partition("|")[0] for name in inside.info("commandstats")}
    what, promised = "1M keys: a look for dead workers' calls, median", 1000 * commands.PROMISED
    yield at_most(what, 1000 * statistics.median(sweeps), promised, unit="ms", stock="49 to 2,197 ms")
    grow = ", ".join(sorted(used & commands.GROWING)) or "none"
    yield exactly("commands used whose cost grows with the keys", grow, "none", stock="KEYS")


@measure("X13")
def garbage(stand: Stand) -> Iterator[Figure]:
    """Messages that nobody can read, each of them among good ones."""
    service = stand.service()
    fleet: Fleet = stand.fleet(stand.server().url, {"mixed": {"url": service.url}})
    queue = queue_names("mixed")[1]
    for kind, payload in enumerate(GARBAGE):
        fleet.enqueue("mixed", [f"/{kind}-{number}" for number in range(GOOD // 2)])
        fleet.engine.queue.put([Put(queue, f"garbage-{kind}", payload)])
        fleet.enqueue("mixed", [f"/{kind}-{number}" for number in range(GOOD // 2, GOOD)])
    fleet.start(workers=1)
    wait_until(lambda: fleet.drained("mixed"), 30)
    ran = len({request.path for request in service.requests})
    what = f"garbage, {len(GARBAGE)} kinds among {GOOD} good calls each: stuck"
    yield exactly(what, GOOD * len(GARBAGE) - ran, 0, stock="15 of 30")
    reasons = [letter.reason for letter in fleet.engine.queue.dead_letters(queue)]
    yield exactly("put aside as malformed", reasons.count("malformed"), len(GARBAGE), stock="0")
