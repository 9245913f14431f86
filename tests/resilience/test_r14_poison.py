"""Row 14: a call that kills its worker. Stock: max_retries does not count, it ran ten times, and its siblings are stopped with it.

Here it is a dead letter after three deaths, each of them its own: from the second one on it runs alone.
"""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

from tests.acceptance.harness import Fleet, Program, say
from tests.support import CountingService, wait_until

DEATHS, SIBLINGS = 3, 6
#: Seconds of a lease: short, so that three of them are. Several heartbeats have to fit into one.
LEASE, BEAT = 0.6, 0.1

#: A worker whose process dies at once of the call /deadly: `argv` is URL, namespace, lease, heartbeat.
WORKER = """
import os, signal, sys, threading
import services
from seawall import runtime
from seawall.actors import hub, redis_wake
from seawall.actors.engine import engine_from_url
from seawall.actors.token import TokenSource
from seawall.actors.views import Views
from seawall.workers import worker as workers

def run(call):
    if call.target == "/deadly":
        os.kill(os.getpid(), signal.SIGKILL)

hub.QUARANTINE_SECONDS = 5.0  # a process may stand still for a second before it dies of its call
redis_wake.POLL_SECONDS = 0.2  # how soon an idle worker looks for the calls of dead ones
url, namespace, lease, workers.BEAT_SECONDS = *sys.argv[1:4], float(sys.argv[4])
engine = engine_from_url(url, namespace, lease=float(lease))
worker = workers.CallWorker(engine, Views(engine.breakers, grace=engine.grace), TokenSource(), observe=run)
worker.serve(runtime.registry.all())
worker.start()
threading.Event().wait()
"""


def work(fleet: Fleet) -> Program:
    return fleet.script(WORKER, fleet.url, fleet.namespace, str(LEASE), str(BEAT))


def test_a_call_that_kills_three_workers_is_put_aside(tmp_path: Path, redis_url: str, service: CountingService) -> None:
    siblings = [f"/sibling/{number}" for number in range(SIBLINGS)]
    with Fleet(tmp_path, redis_url, {"mine": {"url": service.url}}) as fleet:
        deadly, *_ = fleet.enqueue("mine", ["/deadly", *siblings])
        ends = [work(fleet).wait() for _ in range(DEATHS)]
        survivor = work(fleet)
        wait_until(lambda: fleet.counts("mine").dead, 15, message="it is not put aside")
        fleet.enqueue("mine", ["/afterwards"])
        wait_until(lambda: fleet.drained("mine"), 15)
        assert survivor.popen.poll() is None
        letters = [(letter.id, letter.reason) for letter in fleet.engine.queue.dead_letters("mine.background")]
    say(f"poison: {DEATHS} workers killed, then in the dead letters; {SIBLINGS} siblings delivered")
    assert ends == [-signal.SIGKILL] * DEATHS
    assert letters == [(deadly, "poison")]
    runs = Counter(request.path for request in service.requests)
    assert set(runs) == {*siblings, "/afterwards"}
    assert max(runs.values()) <= 2, "a sibling dies with it once, if at all"
