"""Redis stopped, killed and frozen under load."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from seawall import BrokerUnavailable, ResilientServiceClient
from tests.measures.figures import Figure, at_most, exactly, measure
from tests.measures.stand import Stand
from tests.resilience import test_r14_poison as poison
from tests.resilience.scene import pass_time
from tests.support import Answer, CountingService, wait_until

#: Sends a second, and the threads that make them.
RATE, SENDERS = 50, 5
#: Seconds of sending before and after an outage.
BEFORE, AFTER = 2.0, 4.0
DELAYED = 20
#: Seconds: a send ends, and work goes on once Redis is back.
SEND, RESUMED = 2.0, 2.0
#: How Redis goes, for how many seconds, and what the stock stack did then: raised, the longest send, the first run, delayed
#: calls that ran, and the retry of what failed meanwhile.
OUTAGES = (
    ("TERM", 5.0, ("8 to 256", "4.1 s", "1.92 s", "0 of 20", "lost")),
    ("KILL", 12.0, ("22 of 1018", "4.7 s", "2.58 s", "0 of 20", "lost")),
    ("KILL", 1.0, ("52 of 1056", "1.9 s", "2.03 s", "0 of 20", "ran")),
)
#: Seconds of X12's outage and of X3's freeze, and the sends into it.
X12_OUTAGE, FREEZE, FROZEN_SENDS = 6.0, 8.0, 10


@dataclass
class Sends:
    """What senders met; `accepted` by path."""

    accepted: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    """Paths whose sending raised a BrokerUnavailable."""
    untyped: list[str] = field(default_factory=list)
    took: list[float] = field(default_factory=list)

    def send(self, client: ResilientServiceClient, path: str, **options: str) -> None:
        started = time.monotonic()
        try:
            client.enqueue("POST", path, **options)  # type: ignore[arg-type]
            self.accepted.append(path)
        except BrokerUnavailable:
            self.raised.append(path)
        except Exception as error:
            self.untyped.append(repr(error))
        self.took.append(time.monotonic() - started)


@measure("B3")
def outages(stand: Stand) -> Iterator[Figure]:
    for how, seconds, stock in OUTAGES:
        with Stand() as own:
            yield from _outage(own, how, seconds, stock)


def _outage(stand: Stand, how: str, seconds: float, stock: tuple[str, ...]) -> Iterator[Figure]:
    server, steady, delayed, failing = stand.server(), stand.service(), stand.service(), stand.service()
    away = threading.Event()
    stand.at_end(away.set)
    failing.script("*", Answer(503, hold=away), Answer())
    fleet = stand.fleet(server.url, {k: {"url": s.url} for k, s in _named(steady, delayed, failing)})
    fleet.start(workers=1, supervisors=1)
    client = stand.client(fleet, "steady")
    sends, stop = Sends(), threading.Event()
    with ThreadPoolExecutor(SENDERS) as pool:
        senders = [pool.submit(_keep_sending, client, sends, stop, number) for number in range(SENDERS)]
        began = time.monotonic()
        pass_time(began + BEFORE)
        fleet.enqueue("failing", ["/fails-once"])
        failing.wait_for(1)
        fleet.enqueue("delayed", [f"/delayed/{number}" for number in range(DELAYED)], delay=seconds / 2)
        {"TERM": server.stop, "KILL": server.kill}[how]()
        gone = time.monotonic()
        away.set()
        pass_time(gone + seconds)
        seen = steady.count()
        server.restart()
        back = time.monotonic()
        pass_time(back + AFTER)
        stop.set()
        for sender in senders:
            sender.result(10)
    wait_until(lambda: all(fleet.drained(key) for key in ("steady", "delayed", "failing")), 20)
    name = f"{how}, {seconds:g} s: "
    total = len(sends.took)
    shown = f"{len(sends.untyped)}; BrokerUnavailable: {len(sends.raised)} of {total}"
    yield Figure(name + "sends with another error than ours", f"raised {stock[0]}", "0", shown, not sends.untyped)
    yield at_most(name + "longest send", max(sends.took), SEND, stock=stock[1])
    first = steady.requests[seen].at - back
    yield at_most(name + "first run after Redis is up", first, RESUMED, stock=stock[2])
    runs = Counter(request.path for request in steady.requests)
    lost = set(sends.accepted) - set(runs)
    twice = [path for path, times in runs.items() if times > 1]
    yield exactly(name + "accepted sends lost, run twice", f"{len(lost)}, {len(twice)}", "0, 0", stock="0, -")
    in_time = sum(request.at - back < RESUMED for request in delayed.requests)
    yield exactly(name + "delayed calls run within 2 s", f"{in_time} of {DELAYED}", "20 of 20", stock=stock[3])
    yield exactly(
        name + "retry of what failed meanwhile", "ran" if failing.count() == 2 else "lost", "ran", stock=stock[4]
    )


def _named(*services: CountingService) -> list[tuple[str, CountingService]]:
    return list(zip(("steady", "delayed", "failing"), services, strict=True))


def _keep_sending(client: ResilientServiceClient, sends: Sends, stop: threading.Event, name: int) -> None:
    number, due = 0, time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        sends.send(client, f"/{name}-{number}")
        number, due = number + 1, max(due + SENDERS / RATE, time.monotonic() - 1.0)


@measure("X12")
def maintenance(stand: Stand) -> Iterator[Figure]:
    """Delayed calls through an outage, with workers that look for the calls of dead ones five times a second."""
    server, service = stand.server(), stand.service()
    fleet = stand.fleet(server.url, {"delayed": {"url": service.url}})
    fleet.start(supervisors=1)
    fleet.script(poison.WORKER, fleet.url, fleet.namespace, "5", "1")
    fleet.enqueue("delayed", ["/first"])
    service.wait_for(1, timeout=20)
    fleet.enqueue("delayed", [f"/{number}" for number in range(DELAYED)], delay=X12_OUTAGE / 2)
    server.kill()
    pass_time(time.monotonic() + X12_OUTAGE)
    server.restart()
    back = time.monotonic()
    wait_until(lambda: fleet.drained("delayed"), 20)
    times = Counter(request.path for request in service.requests)
    in_time = sum(request.at - back < RESUMED for request in service.requests if request.path != "/first")
    what = "6 s outage, looking for dead workers throughout: delayed, within 2 s"
    yield exactly(what, f"{in_time} of {DELAYED}", "20 of 20", stock="0 of 20 in 150 s")
    yield exactly("of these run twice", sum(count > 1 for count in times.values()), 0, stock="0")


@measure("X3")
def freeze(stand: Stand) -> Iterator[Figure]:
    """Sends into a Redis that stands still, and goes on after 8 s; half of them insist, with dedupe=."""
    server, service = stand.server(), stand.service()
    fleet = stand.fleet(server.url, {"once": {"url": service.url}})
    fleet.start(workers=1, supervisors=1)
    client = stand.client(fleet, "once")
    sends, insisted = Sends(), Sends()
    client.enqueue("POST", "/warm")
    service.wait_for(1)
    with ThreadPoolExecutor(2 * FROZEN_SENDS) as pool:
        server.freeze()
        began = time.monotonic()
        once = [pool.submit(sends.send, client, f"/once/{n}") for n in range(FROZEN_SENDS)]
        insist = [pool.submit(_insist, insisted, client, f"/insisted/{n}") for n in range(FROZEN_SENDS)]
        pass_time(began + FREEZE)
        server.thaw()
        for job in (*once, *insist):
            job.result(20)
    wait_until(lambda: fleet.drained("once"), 20)
    runs = Counter(request.path for request in service.requests)
    raised = f"{len(sends.raised)} of {FROZEN_SENDS}"
    yield exactly("frozen for 8 s: sends that raised BrokerUnavailable", raised, "10 of 10", stock="0 or 10 of 10")
    yield at_most("the longest of these sends", max(sends.took), SEND, stock="-")
    yield exactly("calls that ran twice", sum(times > 1 for times in runs.values()), 0, stock="10 of 10")
    ran = sum(path.startswith("/insisted/") for path in runs)
    yield exactly("repeated with dedupe= until accepted: ran", f"{ran} of {FROZEN_SENDS}", "10 of 10", stock="-")


def _insist(sends: Sends, client: ResilientServiceClient, path: str) -> None:
    while path not in sends.accepted:
        sends.send(client, path, dedupe=path)
