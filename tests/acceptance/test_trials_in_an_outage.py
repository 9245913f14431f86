"""An outage of ten recovery intervals: the dead service sees one request in each, and the queue drains afterwards.

Two workers and two supervisors, then the same without a supervisor, and with those killed who were making a trial. All
figures are the services' own: when their requests arrived.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from seawall.actors.queue_store import LEASE
from seawall.supervisor.breaker import State
from tests.acceptance.harness import Caller, Fleet, Program, Stage, opened, playing, say
from tests.support import Answer, CountingService, PrivateRedis, wait_until

#: Seconds of an open breaker, and how many of these intervals the outage lasts.
RECOVERY, INTERVALS = 0.6, 10
#: Failed calls that open a breaker.
THRESHOLD = 3
#: Seconds for one attempt of a trial that is held open, so that there is time to kill who makes it; 5 s more are its lease.
HELD_TIMEOUT = 4.0
#: Seconds of the open breaker of background calls there: nobody can tell their trials by the path, so it takes until they are
#: known to wait before the next one can be held open.
HELD_RECOVERY = 3.0
#: Seconds after the timer's end within which a supervisor's trial must arrive: promised are 0.25, on a machine of its own.
LATE = 0.25 + 0.5
#: Seconds by which this busy machine may make a single trial later.
STALL = 2.0
#: What two clocks may differ by: an arrival is read after the trial was taken.
TOLERANCE = 0.01
#: Seconds within which whatever a dead worker held is under way again, as promised.
RETURNED = 15.0
#: Background calls that wait through the outage.
HELD = 12
#: The minute of the day in which this begins: logs tell no date, and midnight may come.
BEGAN = time.localtime()[3:5]


@dataclass
class Outage:
    """One dead service and what it has seen since its breaker opened."""

    key: str
    service: CountingService
    before: int = 0
    opened_at: float = 0.0
    logged: dict[Program, int] = field(default_factory=dict)
    """Attempts that each process had logged by then."""

    def trials(self) -> list[float]:
        """When the trials came."""
        return [request.at for request in self.service.requests[self.before :]]

    def gaps(self) -> list[float]:
        arrived = [self.opened_at, *self.trials()]
        return [later - earlier for earlier, later in itertools.pairwise(arrived)]

    def attempts(self, program: Program) -> list[float]:
        """When this process made trials, from its log. An attempt that was on its way when the breaker opened is none."""
        lines = [line for line in program.lines(f"[{self.key.capitalize()}] ") if "(attempt" in line]
        return [stamp(line) for line in lines[self.logged.get(program, 0) :]]

    def nothing_runs(self, fleet: Fleet) -> None:
        """The breaker has opened, and all attempts that it could not stop are over."""
        opened(fleet, self.key)
        wait_until(lambda: fleet.running(self.key) == 0)
        self.logged = {program: len(self.attempts(program)) for program in fleet.programs}

    def has_opened(self, fleet: Fleet) -> None:
        self.nothing_runs(fleet)
        seen = self.service.requests
        # The last failure that it took came in no later than the breaker opened; others may have been on their way.
        # Who asks for health makes a trial, however soon.
        self.before = sum(request.path != "/health" for request in seen)
        self.opened_at = seen[THRESHOLD - 1].at

    def recovers(self, fleet: Fleet, calls: int = 0) -> float:
        """The service is back: seconds until the breaker has closed and the queue has drained by itself."""
        for path in ("*", "/health", "/hammer"):
            self.service.script(path, Answer())
        started = time.monotonic()
        wait_until(lambda: fleet.breaker(self.key).state is State.CLOSED, message=f"{self.key} does not recover")
        wait_until(lambda: fleet.drained(self.key), message=f"the queue of {self.key} does not drain")
        delivered = {request.path for request in self.service.requests if request.path.startswith("/held/")}
        assert len(delivered) == calls
        return time.monotonic() - started


def declared(outages: dict[str, Outage], **more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    common = {"recovery_timeout": RECOVERY, "max_retries": 1, "failure_threshold": THRESHOLD, "timeout": 5}
    return {key: {"url": outage.service.url, **common, **more.get(key, {})} for key, outage in outages.items()}


def dead_services(stack: ExitStack, *keys: str) -> dict[str, Outage]:
    outages = {key: Outage(key, stack.enter_context(CountingService())) for key in keys}
    for outage in outages.values():
        outage.service.script("*", Answer(500))
    return outages


def trip(fleet: Fleet, caller: Caller, outages: dict[str, Outage]) -> None:
    """Have each breaker opened by three failing calls: background ones, which go on waiting, or waited-for ones."""
    for key in outages:
        if key == "background":
            caller.ask("enqueue", service=key, calls=[["POST", f"/held/{n}"] for n in range(HELD)])
        else:
            for _ in range(THRESHOLD):
                caller.start("call", service=key, method="GET", path="/trip").exception(10)
    for outage in outages.values():
        outage.has_opened(fleet)


def figures(fleet: Fleet, outages: dict[str, Outage]) -> dict[str, tuple[list[float], float]]:
    """Of each service: the gaps between its trials, and the seconds that it took to recover."""
    gaps = {key: outage.gaps() for key, outage in outages.items()}
    return {
        key: (gaps[key], outage.recovers(fleet, HELD if key == "background" else 0)) for key, outage in outages.items()
    }


def refusals_end(answers: list[Any]) -> set[str]:
    """How all the hammering calls ended."""
    return {end for answer in answers for end in answer.result(20)}


def with_everything(folder: Path, url: str) -> dict[str, Any]:
    """Two workers, two supervisors, two client processes; one service of each kind, and one that refuses connections."""
    with ExitStack() as stack:
        outages = dead_services(stack, "health", "background", "callers", "refused")
        services = declared(outages, health={"health_path": "/health"})
        fleet = stack.enter_context(Fleet(folder, url, services))
        *_, one, other = fleet.start(workers=2, supervisors=2, callers=2)
        refused = outages.pop("refused")
        refused.service.stop()
        one.ask("enqueue", service="refused", calls=[["POST", f"/held/{n}"] for n in range(HELD)])
        trip(fleet, one, outages)
        refused.nothing_runs(fleet)
        hammers = [caller.start("hammer", service="callers", path="/hammer", threads=3) for caller in (one, other)]
        for outage in outages.values():
            outage.service.wait_for(outage.before + INTERVALS, timeout=INTERVALS * (RECOVERY + LATE) + STALL)
        wait_until(lambda: len(refused_gaps(fleet, refused)) >= INTERVALS)
        found: dict[str, Any] = figures(fleet, outages)
        for caller in (one, other):
            caller.ask("rest", service="callers")
        gaps = refused_gaps(fleet, refused)
        refused.service.start()
        return {**found, "ends": refusals_end(hammers), "refused": (gaps, refused.recovers(fleet, HELD))}


def refused_gaps(fleet: Fleet, outage: Outage) -> list[float]:
    """From the workers' logs, as nobody else notices a refused connection: seconds between trials."""
    trials = sorted(at for program in fleet.programs for at in outage.attempts(program))
    return [later - earlier for earlier, later in itertools.pairwise(trials)]


def stamp(line: str) -> float:
    """Seconds since this began, of a line of a log."""
    hours, minutes, seconds = line.split()[0].split(":")
    return ((int(hours) - BEGAN[0]) * 3600 + (int(minutes) - BEGAN[1]) * 60 + float(seconds)) % 86400


def without_supervisor(folder: Path, url: str) -> dict[str, Any]:
    """Workers offer held calls, callers take what is free, a second after the timer's end."""
    with ExitStack() as stack:
        outages = dead_services(stack, "health", "background", "callers")
        fleet = stack.enter_context(Fleet(folder, url, declared(outages, health={"health_path": "/health"})))
        _, _, caller = fleet.start(workers=2, callers=1)
        trip(fleet, caller, outages)
        hammers = [caller.start("hammer", service=key, path="/hammer", threads=3) for key in ("callers", "health")]
        ends = time.monotonic() + INTERVALS * RECOVERY
        wait_until(lambda: time.monotonic() >= ends, 2 * INTERVALS * RECOVERY)
        for outage in outages.values():
            outage.service.wait_for(outage.before + 3, timeout=10)
        found: dict[str, Any] = figures(fleet, outages)
        for key in ("callers", "health"):
            caller.ask("rest", service=key)
        return {**found, "ends": refusals_end(hammers)}


def killed_while_trying(folder: Path, url: str) -> dict[str, Any]:
    """The leader dies in the middle of its health check, workers die in the middle of a held call's and a caller's trial."""
    keys = ("health", "callers", "background")
    with ExitStack() as stack:
        outages = dead_services(stack, *keys)
        special = {"health": {"health_path": "/health"}, "background": {"recovery_timeout": HELD_RECOVERY}}
        services = declared(outages, **special)
        services = {key: {**options, "timeout": HELD_TIMEOUT} for key, options in services.items()}
        fleet = stack.enter_context(Fleet(folder, url, services))
        *_, caller = fleet.start(workers=2, supervisors=2, callers=1)
        hold = threading.Event()
        stack.callback(hold.set)
        held = (Answer(500, hold=hold), Answer(500))
        outages["health"].service.script("/health", *held)
        outages["callers"].service.script("/hammer", *held)
        trip(fleet, caller, outages)
        outages["background"].service.script("*", *held)
        hammer = caller.start("hammer", service="callers", path="/hammer", threads=3)
        kill_whoever_tries(fleet, outages)
        for outage in outages.values():
            outage.service.wait_for(outage.before + 3, timeout=30)
        found: dict[str, Any] = figures(fleet, outages)
        caller.ask("rest", service="callers")
        return {**found, "ends": refusals_end([hammer])}


def kill_whoever_tries(fleet: Fleet, outages: dict[str, Outage]) -> None:
    """As soon as the first trial of each service is in the service's hands; a new worker comes for each dead one."""
    for key, outage in outages.items():
        # What was handed to a worker at the moment of its death comes back when its lease ends.
        outage.service.wait_for(outage.before + 1, timeout=RETURNED)
        if key == "health":
            fleet.of_pid(fleet.leader()).kill()
            continue
        trying = wait_until(lambda outage=outage: who_tries(fleet, outage), RETURNED)  # its log follows in a moment
        if trying.popen.poll() is None:
            trying.kill()
            fleet.worker()


def who_tries(fleet: Fleet, outage: Outage) -> Program | None:
    """The worker that has logged a trial; it may be one that came for a dead one."""
    return next((program for program in fleet.programs if outage.attempts(program)), None)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, redis_server: PrivateRedis) -> Iterator[Stage]:
    url = redis_server.url
    with playing(
        tmp_path_factory.mktemp("outage"),
        complete=lambda folder: with_everything(folder, url),
        alone=lambda folder: without_supervisor(folder, url),
        killed=lambda folder: killed_while_trying(folder, url),
    ) as stage:
        yield stage


def tell(kind: str, gaps: list[float], recovered: float, interval: float = RECOVERY) -> None:
    back = f", closed and drained {recovered:.2f} s after the service's return"
    say(f"{kind}: {len(gaps)} trials, {min(gaps):.3f} to {max(gaps):.3f} s apart (interval {interval} s){back}")


@pytest.mark.parametrize("kind", ["health", "background", "callers"])
def test_the_dead_service_sees_one_request_in_each_interval(stage: Stage, kind: str) -> None:
    gaps, recovered = stage.result("complete")[kind]
    tell(f"with supervisors, {kind}", gaps, recovered)
    assert len(gaps) >= INTERVALS
    assert min(gaps) >= RECOVERY - TOLERANCE
    assert median(gaps) < RECOVERY + LATE
    assert max(gaps) < RECOVERY + LATE + STALL
    assert recovered < RECOVERY + LATE + STALL


def test_so_it_is_with_a_service_that_refuses_connections(stage: Stage) -> None:
    gaps, recovered = stage.result("complete")["refused"]
    tell("with supervisors, connections refused", gaps, recovered)
    assert len(gaps) >= INTERVALS
    assert min(gaps) >= RECOVERY - TOLERANCE
    assert median(gaps) < RECOVERY + LATE
    assert max(gaps) < RECOVERY + LATE + STALL
    assert recovered < RECOVERY + LATE + STALL


def test_callers_get_clear_errors_through_the_outage(stage: Stage) -> None:
    """A busy machine may be too slow for a service's timeout: then that is what a caller hears."""
    clear = {"200", "ServiceUnavailable", "HTTPError", "ReadTimeout", "ConnectTimeout"}
    for scenario in ("complete", "alone", "killed"):
        assert stage.result(scenario)["ends"] <= clear


@pytest.mark.parametrize("kind", ["health", "background", "callers"])
def test_without_a_supervisor_it_sees_no_more_and_recovers_too(stage: Stage, kind: str) -> None:
    gaps, recovered = stage.result("alone")[kind]
    tell(f"no supervisor, {kind}", gaps, recovered)
    assert 3 <= len(gaps) <= INTERVALS
    assert min(gaps) >= RECOVERY - TOLERANCE
    assert recovered < RECOVERY + LATE + 2 * STALL


@pytest.mark.parametrize("kind", ["health", "background", "callers"])
def test_who_dies_in_the_middle_of_a_trial_changes_nothing(stage: Stage, kind: str) -> None:
    gaps, recovered = stage.result("killed")[kind]
    lease, interval = HELD_TIMEOUT + 5, HELD_RECOVERY if kind == "background" else RECOVERY
    tell(f"killed in the middle of a trial, {kind}", gaps, recovered, interval)
    # The lease begins when the trial is taken, which is not before the interval's end; its request arrives later, much later
    # if the worker to which it was handed died of another service's trial.
    # A caller is refused when the lease of its call ends, and gives the trial back: the next one is an interval later.
    earliest = LEASE + interval if kind == "callers" else lease
    assert gaps[0] + gaps[1] >= interval + earliest - TOLERANCE, "the trial's lease was not waited for"
    assert gaps[1] < lease + LATE + STALL
    assert min(gaps) >= interval - TOLERANCE
    assert recovered < lease + interval + LATE + STALL
