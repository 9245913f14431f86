"""Workers that are killed, that are asked to stop, and calls that kill them."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

from seawall.exits import Exit
from tests.acceptance import test_killed as killed
from tests.measures.figures import Figure, at_most, exactly, measure
from tests.measures.stand import Stand
from tests.resilience import test_r14_poison as poison
from tests.support import Answer, wait_until

#: Calls that run and calls that wait for a slot when SIGTERM comes.
BUSY, WAITING = 8, 8
#: Seconds within which a peer runs what a leaving worker gives back.
GIVEN_BACK = 1.0


@measure("B2")
def killed_worker(stand: Stand) -> Iterator[Figure]:
    """kill -9 of a worker that holds 5 calls and 20 retries, with and without a supervisor that is left."""
    url, held = stand.server().url, killed.IN_FLIGHT + killed.RETRIES
    alone = [killed.worker_and_only_supervisor(stand.folder, url) for _ in range(2)]
    what = f"kill -9 of worker and supervisor: all {held} done (longest of 2)"
    yield at_most(what, max(alone), killed.PROMISED, stock="121 to 2,631 s")
    took, _, _ = killed.worker_and_leader(stand.folder, url)
    yield at_most(f"kill -9 of worker and leader: all {held} done", took, killed.PROMISED, stock="121 to 2,631 s")


@measure("X7")
def deadly_call(stand: Stand) -> Iterator[Figure]:
    """A call that kills its worker, with max_retries=3, in workers that look for dead ones' calls all the time."""
    service = stand.service()
    fleet = stand.fleet(stand.server().url, {"mine": {"url": service.url, "max_retries": 3}})
    siblings = [f"/sibling/{number}" for number in range(poison.SIBLINGS)]
    fleet.enqueue("mine", ["/deadly", *siblings])
    ends = [poison.work(fleet).wait() for _ in range(poison.DEATHS)]
    survivor = poison.work(fleet)
    wait_until(lambda: fleet.counts("mine").dead and fleet.drained("mine"), 20)
    yield exactly("workers that one call killed", ends.count(-signal.SIGKILL), poison.DEATHS, stock="10")
    letters = [letter.reason for letter in fleet.engine.queue.dead_letters("mine.background")]
    yield exactly("its dead letters", ", ".join(letters), "poison", stock="0")
    ran = len({request.path for request in service.requests} & set(siblings))
    yield exactly("siblings that ran", ran, poison.SIBLINGS, stock="stopped with it")
    yield exactly("the next worker lives on", survivor.popen.poll() is None, True, stock="no")


@measure("X14")
def asked_to_stop(stand: Stand) -> Iterator[Figure]:
    """SIGTERM with every slot busy and as many calls waiting; a peer is started."""
    service, release = stand.service(), threading.Event()
    stand.at_end(release.set)
    service.script("*", *[Answer(hold=release)] * BUSY, Answer())
    declared = {"slow": {"url": service.url, "concurrency": BUSY + 1, "timeout": 60}}
    fleet = stand.fleet(stand.server().url, declared)
    (leaving,) = fleet.start(workers=1)
    fleet.enqueue("slow", [f"/{number}" for number in range(BUSY + WAITING)])
    service.wait_for(BUSY)
    leaving.terminate()
    leaving.expect("stopping: ")
    fleet.start(workers=1)
    there = time.monotonic()
    requests = service.wait_for(BUSY + WAITING, timeout=30)
    yield exactly("given back and run by a peer", len(requests) - BUSY, WAITING, stock="0 of 8 within 30 s")
    yield at_most("the last of them, after the peer was there", requests[-1].at - there, GIVEN_BACK, stock="never")
    release.set()
    yield exactly("exit code after what ran has ended", leaving.wait(), int(Exit.OK), stock="0")
    wait_until(lambda: fleet.drained("slow"))
    twice = sum(times > 1 for times in Counter(request.path for request in service.requests).values())
    yield exactly("calls that ran twice", twice, 0, stock="0")
