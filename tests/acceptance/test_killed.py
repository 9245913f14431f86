"""`kill -9` of a worker, of the leading supervisor, of the embedded server: everything accepted runs within 15 s."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.acceptance.harness import Fleet, Stage, Up, opened, playing, say
from tests.support import Answer, CountingService, PrivateRedis, wait_until

#: Seconds after a kill within which everything must have run: the promise.
PROMISED = 15.0
#: Calls in flight and retries pending when the kill comes.
IN_FLIGHT, RETRIES = 5, 20
#: Seconds before a failed attempt's next one: long enough to be pending when the kill comes.
BACKOFF = 4.0
#: Background calls that one worker runs at once, so that die with it.
SLOTS = 7


@dataclass
class Load:
    """Calls that run until `release`, and calls whose first attempt has failed."""

    slow: CountingService = field(default_factory=CountingService)
    failing: CountingService = field(default_factory=CountingService)
    sick: CountingService = field(default_factory=CountingService)
    release: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self.services = (self.slow, self.failing, self.sick)
        for service in self.services:
            service.start()
        self.slow.script("*", Answer(hold=self.release))
        self.sick.script("*", Answer(500))
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        for service in self.services:
            service.close()

    def declared(self) -> dict[str, dict[str, object]]:
        return {
            "slow": {"url": self.slow.url},
            "failing": {"url": self.failing.url, "backoff": BACKOFF, "failure_threshold": 1000, "retry_budget": 1.0},
            "sick": {
                "url": self.sick.url, "health_path": "/health", "recovery_timeout": 1.0,
                "max_retries": 1, "failure_threshold": 1, "timeout": 1,
            },
        }  # fmt: skip

    def queue(self, fleet: Fleet) -> None:
        """Have five calls in flight and twenty retries pending."""
        self.release.clear()
        for service in self.services:
            service.clear()
        self.failing.script("*", *[Answer(503)] * RETRIES, Answer())
        fleet.enqueue("slow", [f"/slow/{n}" for n in range(IN_FLIGHT)])
        fleet.enqueue("failing", [f"/failing/{n}" for n in range(RETRIES)])
        wait_until(lambda: self.slow.count(method="POST") == IN_FLIGHT)
        self.failing.wait_for(RETRIES)
        wait_until(lambda: fleet.counts("failing").due == RETRIES)

    def wait_until_done(self, fleet: Fleet, since: float, *, killed: int = 1) -> float:
        """Seconds from `since`, when so many workers were killed, until every call has run to its end."""
        wait_until(
            lambda: fleet.drained("slow") and fleet.drained("failing"), 2 * PROMISED, message="not all calls ran"
        )
        took = time.monotonic() - since
        assert len({request.path for request in self.slow.matching(method="POST")}) == IN_FLIGHT
        attempts = Counter(request.path for request in self.failing.requests)
        assert set(attempts) == {f"/failing/{n}" for n in range(RETRIES)}
        # Where machines are slow, retries were in flight by the kill: those, and no others, may have been made again.
        assert all(2 <= count <= 3 for count in attempts.values()), attempts
        assert attempts.total() <= 2 * RETRIES + SLOTS * killed, attempts
        return took


def worker_and_only_supervisor(folder: Path, url: str) -> float:
    """Nobody but the second worker is left."""
    with Load() as load, Fleet(folder, url, load.declared()) as fleet:
        first, supervisor, caller = fleet.start(workers=1, supervisors=1, callers=1)
        waiting = caller.start("call", service="slow", method="GET", path="/slow/waiting", deadline=60)
        load.slow.wait_for(1)
        load.queue(fleet)
        fleet.start(workers=1)
        first.kill()
        supervisor.kill()
        killed_at = time.monotonic()
        load.release.set()
        assert waiting.result(2 * PROMISED)["status"] == 200
        return load.wait_until_done(fleet, killed_at)


def worker_and_leader(folder: Path, url: str) -> tuple[float, float, float]:
    """Another supervisor leads on: it returns the calls, and goes on with the trials of a sick service."""
    with Load() as load, Fleet(folder, url, load.declared()) as fleet:
        first, *_ = fleet.start(workers=1, supervisors=2)
        fleet.enqueue("sick", ["/"])
        opened(fleet, "sick")
        load.sick.wait_for(1, path="/health")
        load.queue(fleet)
        fleet.start(workers=1)
        leader = fleet.leader()
        fleet.of_pid(leader).kill()
        first.kill()
        killed_at = time.monotonic()
        load.release.set()
        before = load.sick.count("/health")
        fleet.wait_for_leader(other_than=leader)
        leads = time.monotonic() - killed_at
        load.sick.wait_for(before + 1, path="/health", timeout=PROMISED)
        tried = time.monotonic() - killed_at
        return load.wait_until_done(fleet, killed_at), leads, tried


def seawall_up(folder: Path) -> tuple[float, float, float, float]:
    """First its server dies, and then `up` itself: of each, when it was back and when all calls had run."""
    with Load() as load, Fleet(folder, "", load.declared()) as fleet:
        up = fleet.up("--no-web")
        fleet.use(up.url())
        return *embedded_server(load, fleet, up), *whole_house(load, fleet, up)


def embedded_server(load: Load, fleet: Fleet, up: Up) -> tuple[float, float]:
    """`up` starts it again; what it had accepted is in its append-only file. What ran, runs once."""
    load.queue(fleet)
    fleet.enqueue("slow", [f"/delayed/{n}" for n in range(IN_FLIGHT)], delay=3.0)
    server = up.children("valkey-server")
    assert len(server) == 1
    psutil.Process(server[0]).kill()
    killed_at = time.monotonic()
    load.release.set()
    back = wait_until(lambda: reached(fleet, server[0], up.children("valkey-server")), PROMISED) - killed_at
    wait_until(lambda: fleet.drained("slow") and fleet.drained("failing"), 2 * PROMISED)
    took = time.monotonic() - killed_at
    once = Counter(request.path for request in load.slow.requests)
    assert once == {f"/{kind}/{n}": 1 for kind in ("slow", "delayed") for n in range(IN_FLIGHT)}
    assert len({request.path for request in load.failing.requests}) == RETRIES
    return back, took


def whole_house(load: Load, fleet: Fleet, up: Up) -> tuple[float, float]:
    """Its children notice, and a second `up` in the same folder goes on with what was accepted."""
    load.queue(fleet)
    children = psutil.Process(up.pid).children(recursive=True)
    up.kill()
    killed_at = time.monotonic()
    second = fleet.up("--no-web")
    second.url()
    again = time.monotonic() - killed_at
    load.release.set()
    took = load.wait_until_done(fleet, killed_at, killed=2)
    assert psutil.wait_procs(children, PROMISED)[1] == []
    second.terminate()
    assert second.wait() == 0
    return again, took


def reached(fleet: Fleet, old: int, pids: list[int]) -> float:
    """When the new server answers; 0 as long as it does not."""
    try:
        assert fleet.engine.link is not None
        fleet.engine.link.command("PING")
    except Exception:
        return 0.0
    return time.monotonic() if pids and pids != [old] else 0.0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, redis_server: PrivateRedis) -> Iterator[Stage]:
    url = redis_server.url
    with playing(
        tmp_path_factory.mktemp("killed"),
        only=lambda folder: worker_and_only_supervisor(folder, url),
        leader=lambda folder: worker_and_leader(folder, url),
        up=seawall_up,
    ) as stage:
        yield stage


def test_after_a_worker_and_the_only_supervisor_another_worker_runs_all_25_calls(stage: Stage) -> None:
    took = stage.result("only")
    say(f"kill -9 of a worker and the only supervisor: all {IN_FLIGHT + RETRIES} ran within {took:.1f} s")
    assert took < PROMISED


def test_after_a_worker_and_the_leader_the_next_one_leads_and_all_25_calls_run(stage: Stage) -> None:
    took, leads, tried = stage.result("leader")
    say(f"kill -9 of a worker and the leader: new leader {leads:.1f} s, next trial {tried:.1f} s, all 25 {took:.1f} s")
    assert max(took, leads, tried) < PROMISED


def test_after_the_embedded_server_what_ran_has_run_once_and_the_rest_resumes(stage: Stage) -> None:
    back, took, _, _ = stage.result("up")
    say(f"kill -9 of the embedded server: it is back in {back:.1f} s, all 30 calls ran within {took:.1f} s")
    assert took < PROMISED


def test_after_up_itself_a_second_up_goes_on_with_what_was_accepted(stage: Stage) -> None:
    _, _, again, took = stage.result("up")
    say(f"kill -9 of `seawall up`: a second one stood after {again:.1f} s, all 25 calls ran within {took:.1f} s")
    assert took < PROMISED
