"""Background calls through outages, with real processes: delivered, without hurting the service that comes back.

The figures are the services' own. SEAWALL_TEST_FULL=1 plays the same scenarios at full length, which takes minutes:
pytest tests/acceptance/test_background_promises.py -n0 -s
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from seawall.supervisor.breaker import State
from tests.acceptance.harness import Fleet, Stage, opened, playing, say
from tests.support import Answer, CountingService, PrivateRedis, Request, wait_until

FULL = os.environ.get("SEAWALL_TEST_FULL") == "1"
#: Seconds that a scenario may take in all.
PATIENCE = 1800.0 if FULL else 120.0
#: Per cent of calls whose waits are compared: all but a few, or half of them where any process may stand still for a second or
#: two and have as many calls wait as it would get in that time.
PERCENT = 95 if FULL else 50

#: A client that enqueues JSON with its own moment in it: `argv` is calls a second, seconds, and the services' keys.
STEADY = """
import sys, time
import patient, services
rate, seconds, *keys = sys.argv[1:]
clients = [getattr(services, key) for key in keys]
started, sent = time.monotonic(), 0
while time.monotonic() - started < float(seconds):
    client = clients[sent % len(clients)]
    client.enqueue("POST", f"/job/{sent}", json={"number": sent, "at": time.monotonic()}, keep_result=0)
    sent += 1
    time.sleep(max(0.0, started + sent / float(rate) - time.monotonic()))
print(f"sent {sent}", flush=True)
"""

#: A client that fires so many snapshots of so many projects.
SNAPSHOTS = """
import sys, time
import patient, services, seawall
count, projects = int(sys.argv[1]), int(sys.argv[2])
started = time.monotonic()
for number in range(count):
    seawall.snapshot(services.git, f"p{number % projects}", f"save {number}")
print(f"fired in {time.monotonic() - started:.2f}", flush=True)
"""

#: Callers that wait for answers: `argv` is how many calls each of eight threads makes.
WAITING = """
import sys
from concurrent.futures import ThreadPoolExecutor
import patient, requests, services
def call(number):
    try:
        services.down.get(f"/{number}")
    except requests.HTTPError:
        return 1
    return 0
with ThreadPoolExecutor(8) as pool:
    print(f"failed {sum(pool.map(call, range(int(sys.argv[1]))))}", flush=True)
"""


def finished(program: Any, word: str) -> float:
    """The number that a script says after this word at its end."""
    wait_until(lambda: f"{word} " in program.text, PATIENCE, message=f"the script does not end:\n{program.text}")
    return float(program.text.split(f"{word} ")[1].split()[0])


def no_dead_letters(fleet: Fleet, keys: Sequence[str]) -> None:
    assert {key: fleet.counts(key).dead for key in keys} == dict.fromkeys(keys, 0)


def test_two_of_four_services_go_down_and_every_call_arrives(stage: Stage) -> None:
    stage.result("outage", PATIENCE)


def play_outage(folder: Path) -> None:
    """One refuses connections, the other answers 500; the other two notice nothing."""
    seconds, down = (60.0, 20.0) if FULL else (9.0, 3.0)
    rate = 100 if FULL else 40
    keys = ["vector", "files", "billing", "git"]
    with ExitStack() as stack:
        services = {key: stack.enter_context(CountingService()) for key in keys}
        broker = _broker(stack, folder)
        declared = {key: {"url": one.url, "recovery_timeout": 1.0, "slow_start": 2.0} for key, one in services.items()}
        fleet = stack.enter_context(Fleet(folder, broker.url, declared))
        fleet.start(workers=2, supervisors=1)
        script = fleet.script(STEADY, str(rate), str(seconds), *keys)
        started = services["files"].wait_for(timeout=PATIENCE)[0].at
        _at(started + seconds * 0.25)
        services["vector"].stop()
        _at(started + seconds * 0.25 + down / 2)
        services["git"].script("*", Answer(500))
        _at(started + seconds * 0.25 + down)
        services["vector"].start()
        _at(started + seconds * 0.25 + down * 1.5)
        services["git"].script("*", Answer())
        sent = int(finished(script, "sent"))
        wait_until(lambda: all(fleet.drained(key) for key in keys), PATIENCE, message="not all of them drain")
        arrived = {key: _bodies(service.requests) for key, service in services.items()}
        assert sum(len(bodies) for bodies in arrived.values()) == sent
        for bodies in arrived.values():
            assert all(len(set(seen)) == 1 for seen in bodies.values())  # one body under one Idempotency-Key
        no_dead_letters(fleet, keys)
        for key in ("files", "billing"):
            assert len(services[key].requests) == len(arrived[key])  # nothing came twice
            before, during = _waits(services[key].requests, started + seconds * 0.25)
            say(f"{key}: p{PERCENT} {before * 1000:.1f} ms before, {during * 1000:.1f} ms during the outages")
            assert during <= (max(1.5 * before, before + 0.005) if FULL else before + 1.0)


def _at(moment: float) -> None:
    """The scenario's clock: what is to happen at a moment of the outage happens then."""
    threading.Event().wait(max(0.0, moment - time.monotonic()))


def _bodies(requests: Sequence[Request]) -> dict[str, list[bytes]]:
    bodies: dict[str, list[bytes]] = {}
    for request in requests:
        bodies.setdefault(request.headers["idempotency-key"], []).append(request.body)
    return bodies


def _waits(requests: Sequence[Request], moment: float) -> tuple[float, float]:
    """Seconds from enqueue to arrival within which PERCENT of the calls came, before the moment and after it."""
    waits = [(request.json["at"], request.at - request.json["at"]) for request in requests]
    halves = [wait for at, wait in waits if at < moment], [wait for at, wait in waits if at >= moment]
    before, after = (statistics.quantiles(half, n=100)[PERCENT - 1] for half in halves)
    return before, after


def test_held_calls_drain_along_the_slow_start_curve(stage: Stage) -> None:
    stage.result("slow_start", PATIENCE)


class Recovering:
    """A service that counts what is in flight, and when."""

    def __init__(self) -> None:
        self.down = True
        self.lock = threading.Lock()
        self.active = 0
        self.seen: list[tuple[float, int]] = []
        self.back_at = 0.0

    def __call__(self, request: Request) -> Answer:
        if self.down:
            return Answer(503)
        with self.lock:
            self.active += 1
            self.back_at = self.back_at or time.monotonic()
            self.seen.append((time.monotonic() - self.back_at, self.active))
        threading.Event().wait(0.005)
        with self.lock:
            self.active -= 1
        return Answer()


def play_slow_start(folder: Path) -> None:
    calls, seconds = (10_000, 10.0) if FULL else (600, 3.0)
    with ExitStack() as stack:
        service, scripted = stack.enter_context(CountingService()), Recovering()
        service.script("*", scripted)
        broker = _broker(stack, folder)
        options = {"recovery_timeout": 0.5, "slow_start": seconds, "max_retries": 1, "failure_threshold": 2}
        fleet = stack.enter_context(Fleet(folder, broker.url, {"files": {"url": service.url, **options}}))
        fleet.start(workers=2, supervisors=1)
        fleet.enqueue("files", [f"/held/{number}" for number in range(calls)])
        opened(fleet, "files")
        wait_until(lambda: fleet.running("files") == 0)
        scripted.down = False
        wait_until(lambda: fleet.drained("files"), PATIENCE, message="the held calls do not drain")
        normal = 2 * 7  # workers, and background slots of each
        late = [(at, active) for at, active in scripted.seen if active > max(1.0, normal ** (at / seconds))]
        assert late == []
        assert max(active for _, active in scripted.seen) > normal / 4
        delivered = {request.path for request in service.requests}
        assert len(delivered) == calls
        took = max(at for at, _ in scripted.seen)
        say(f"{calls} held calls drained in {took:.1f} s, at most {max(n for _, n in scripted.seen)} in flight")


def test_the_latest_snapshot_of_each_project_arrives(stage: Stage) -> None:
    stage.result("snapshots", PATIENCE)


def play_snapshots(folder: Path) -> None:
    with ExitStack() as stack:
        git = stack.enter_context(CountingService())
        git.stop()
        broker = _broker(stack, folder)
        options = {"recovery_timeout": 0.5, "backoff": 0.05}
        fleet = stack.enter_context(Fleet(folder, broker.url, {"git": {"url": git.url, **options}}))
        fleet.start(workers=1, supervisors=1)
        took = finished(fleet.script(SNAPSHOTS, "1000", "10"), "fired in")
        opened(fleet, "git")
        git.start()
        wait_until(lambda: fleet.drained("git"), PATIENCE, message="the snapshots do not drain")
        messages = sorted((request.path, request.json["message"]) for request in git.requests)
        assert messages == [(f"/snapshot/p{number}", f"save {990 + number}") for number in range(10)]
        assert fleet.engine.queue.tally()["git", "coalesced"] == 990
        say(f"1,000 snapshots of 10 projects fired in {took:.2f} s; 10 arrived, the latest of each")


def test_retries_stay_within_their_budget(stage: Stage) -> None:
    stage.result("budget", PATIENCE)


def play_budget(folder: Path) -> None:
    calls = 10_000 if FULL else 400
    with ExitStack() as stack:
        service = stack.enter_context(CountingService())
        service.script("*", Answer(500))
        broker = _broker(stack, folder)
        options = {"breaker": False, "backoff": 0.01, "max_retries": 3}
        fleet = stack.enter_context(Fleet(folder, broker.url, {"down": {"url": service.url, **options}}))
        fleet.start(workers=1)
        started = time.monotonic()
        assert finished(fleet.script(WAITING, str(calls)), "failed") == calls
        minutes = (time.monotonic() - started) / 60
        seen = service.count()
        say(f"{calls} waited-for calls to a dead service: {seen} requests")
        assert seen <= calls + max(0.2 * calls, 10 * (minutes + 1))
        assert seen > calls  # there is a budget
        denied = wait_until(lambda: fleet.engine.queue.tally().get(("down", "retries_denied")), PATIENCE)
        assert denied > 0


def test_calls_that_always_fail_keep_no_others(stage: Stage) -> None:
    stage.result("bad_apples", PATIENCE)


def play_bad_apples(folder: Path) -> None:
    """One call in a hundred is always answered with a 500: in good times, and in an outage of all the others."""
    with ExitStack() as stack:
        service = stack.enter_context(CountingService())
        down, arrived = threading.Event(), set[str]()

        def answer(request: Request) -> Answer:
            if request.path.endswith("00") or down.is_set():
                return Answer(500)
            arrived.add(request.path)
            return Answer()

        service.script("*", answer)
        broker = _broker(stack, folder)
        options = {"recovery_timeout": 0.5, "slow_start": 1.0, "backoff": 0.02}
        fleet = stack.enter_context(Fleet(folder, broker.url, {"api": {"url": service.url, **options}}))
        fleet.start(workers=2, supervisors=1)
        for turn, is_down in ((1, False), (2, True), (3, False)):
            if is_down:
                down.set()
            fleet.enqueue("api", [f"/{turn}{number:03}" for number in range(1000)])
            if is_down:
                opened(fleet, "api")
                down.clear()
            good = {f"/{turn}{number:03}" for number in range(1000) if number % 100}
            started = time.monotonic()
            wait_until(lambda wanted=good: wanted <= set(arrived), PATIENCE, message="good calls wait")  # type: ignore[misc]
            say(f"turn {turn}: 990 good calls of 1,000 arrived in {time.monotonic() - started:.1f} s")
        # Beside the outage, those that always fail may open it when nothing else is left of a turn, and once in a slow start.
        assert fleet.engine.queue.tally()["api", "outages"] <= 4

        def is_closed() -> bool:
            """Asks for another good call each time: those that always fail may have opened it again before anybody looked."""
            fleet.enqueue("api", ["/last"])
            return fleet.breaker("api").state is State.CLOSED

        wait_until(is_closed, message="a good call does not close it")
        wait_until(lambda: "/last" in arrived)


def test_a_slow_service_delays_no_call_of_another_one(stage: Stage) -> None:
    stage.result("slow_neighbour", PATIENCE)


def play_slow_neighbour(folder: Path) -> None:
    """All slots of one service hang, in both workers, and more of its calls wait."""
    seconds = 20.0 if FULL else 6.0
    with ExitStack() as stack:
        quick, slow = (stack.enter_context(CountingService()) for _ in range(2))
        release = threading.Event()
        slow.script("*", Answer(hold=release))
        stack.callback(release.set)
        broker = _broker(stack, folder)
        declared = {"quick": {"url": quick.url}, "slow": {"url": slow.url, "timeout": 120}}
        fleet = stack.enter_context(Fleet(folder, broker.url, declared))
        fleet.start(workers=2, supervisors=1)
        script = fleet.script(STEADY, "40", str(seconds), "quick")
        started = quick.wait_for(timeout=PATIENCE)[0].at
        _at(started + seconds / 2)
        fleet.enqueue("slow", [f"/slow/{number}" for number in range(100)])
        slow.wait_for(2 * 7)
        busy_since = time.monotonic()
        sent = int(finished(script, "sent"))
        wait_until(lambda: len(quick.requests) == sent, PATIENCE, message="calls of the quick service wait")
        before, during = _waits(quick.requests, busy_since)
        say(f"p{PERCENT} {before * 1000:.1f} ms, {during * 1000:.1f} ms beside a service whose slots all hang")
        assert slow.active == 2 * 7
        assert during <= (max(1.5 * before, before + 0.005) if FULL else before + 1.0)


def _broker(stack: ExitStack, folder: Path) -> PrivateRedis:
    server = PrivateRedis(folder)
    server.start()
    stack.callback(server.stop)
    return server


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    plays = {
        "outage": play_outage,
        "slow_start": play_slow_start,
        "snapshots": play_snapshots,
        "budget": play_budget,
        "bad_apples": play_bad_apples,
        "slow_neighbour": play_slow_neighbour,
    }
    together = 1 if FULL else 2  # they measure, and need the machine for themselves
    with playing(tmp_path_factory.mktemp("background"), together=together, **plays) as played:
        yield played
