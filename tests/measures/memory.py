"""Memory, threads and file descriptors of a worker and of a client, after many calls and after ten times as many."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psutil

from bench.services import Upstream
from tests.acceptance.harness import Program
from tests.measures.figures import Figure, at_most, exactly, measure
from tests.measures.stand import Stand
from tests.support import wait_until

#: Calls before the first look, and before the second.
WARM, TOTAL = 20_000, 200_000
#: Megabytes by which a process may grow between the two.
PROMISED = 5.0
MEGABYTE = 1_000_000
#: Seconds for the calls between two looks.
PATIENCE = 900.0

#: Calls of every kind from eight threads, on and on, as many as `argv` says before each stop; a file lets it go on.
#: Of 100 calls 40 are waited for, 50 in the background, and of each kind 5 fail for want of a service.
CLIENT = """
import gc, json, sys, threading, time
from pathlib import Path
import requests, services

def hundred():
    for _ in range(35):
        services.steady.get("/good")
    for number in range(5):
        services.steady.post("/good", json={"number": number})
    background = [("POST", "/good", {"json": {"number": number}}) for number in range(50)]
    assert not [one for one in services.steady.enqueue_many(background) if isinstance(one, Exception)]
    for _ in range(5):
        try:
            services.closed.get("/never")
        except requests.ConnectionError:
            pass
        services.closed.fire("POST", "/never", rounds=1)

made, lock = 0, threading.Lock()

def more(until):
    global made
    while True:
        with lock:
            if made >= until:
                return
            made += 100
        hundred()

for number, until in enumerate(map(int, sys.argv[1:])):
    crew = [threading.Thread(target=more, args=(until,)) for _ in range(8)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    gc.collect()
    print("made", made, flush=True)
    while not Path(f"go-on-{number}").exists():
        time.sleep(0.02)
"""


@measure("MEM")
def flat(stand: Stand) -> Iterator[Figure]:
    upstream = stand.enter(Upstream(stand.folder))
    server = stand.server(appendonly="no")
    common = {"failure_threshold": 10**9, "max_retries": 1, "timeout": 30}
    declared = {"steady": {"url": upstream.url, **common}, "closed": {"url": "http://127.0.0.1:9", **common}}
    fleet = stand.fleet(server.url, declared, SEAWALL_LOG_LEVEL="error")
    (worker,) = fleet.start(workers=1)
    client = fleet.script(CLIENT, str(WARM), str(TOTAL))
    looks = []
    for number, calls in enumerate((WARM, TOTAL)):
        client.expect(f"made {calls}", timeout=PATIENCE)
        wait_until(lambda: fleet.drained("steady") and fleet.drained("closed"), PATIENCE)
        looks.append({"worker": _held(worker), "client": _held(client)})
        (fleet.folder / f"go-on-{number}").touch()
    before, after = looks
    for name in ("worker", "client"):
        (rss, *others), (more_rss, *other_others) = before[name], after[name]
        shown = f"{(more_rss - rss) / MEGABYTE:.1f} MB, {rss / MEGABYTE:.1f} to {more_rss / MEGABYTE:.1f}"
        what = f"{name}, {WARM:,} to {TOTAL:,} calls: memory grew by"
        yield at_most(what, (more_rss - rss) / MEGABYTE, PROMISED, unit="MB", stock="-", shown=shown)
        yield exactly(f"{name}: threads, file descriptors", json.dumps(other_others), json.dumps(others), stock="-")


def _held(program: Program) -> tuple[int, int, int]:
    """Bytes of resident memory, threads, file descriptors."""
    process = psutil.Process(program.pid)
    return process.memory_info().rss, process.num_threads(), process.num_fds()
