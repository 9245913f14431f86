"""Schedules with real processes: each tick runs once, though the leader is paused for longer than its lease."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from tests.acceptance.harness import Fleet, Program, say
from tests.support import CountingService, PrivateRedis, wait_until

#: Seconds between two ticks.
EVERY = 1
#: Requests that are awaited in each act.
SOME = 3
#: Seconds within which these must have come.
PATIENCE = 20.0
#: Ticks that a change of the leader may cost: its lease of 3 s, the other one's turn, and a busy machine.
LOST_BY_CHANGE = 7

_QUEUED = re.compile(r"schedule heartbeat: the tick of ([0-9.]+) is call (\S+)")


def fleet_with_schedule(folder: Path, url: str, service: CountingService) -> Fleet:
    """Supervisors log the call of each tick that the store has accepted of them."""
    fleet = Fleet(folder, url, {"tally": {"url": service.url}}, environ={"SEAWALL_LOG_LEVEL": "debug"})
    fleet.also(f"tally.schedule('heartbeat', 'POST', '/beat', every={EVERY})")
    return fleet


def ticks_by_call(supervisors: list[Program]) -> dict[str, float]:
    found = [match for program in supervisors for match in _QUEUED.findall(program.text)]
    assert len({tick for tick, _ in found}) == len(found), "two calls for one tick"
    return {id: float(tick) for tick, id in found}


def test_each_tick_runs_once_though_the_leader_is_paused(
    tmp_path: Path, own_redis: PrivateRedis, service: CountingService
) -> None:
    with fleet_with_schedule(tmp_path, own_redis.url, service) as fleet:
        _, *supervisors = fleet.start(workers=1, supervisors=2)

        def some_more() -> None:
            service.wait_for(service.count() + SOME, timeout=PATIENCE)

        some_more()
        fleet.pause_the_leader(some_more)
        some_more()
        ran = [request.headers["idempotency-key"] for request in service.requests]
        # A supervisor logs a call a moment after it is queued.
        wait_until(lambda: set(ran) <= set(ticks_by_call(supervisors)), message="a call that belongs to no tick")
        ticks = [ticks_by_call(supervisors)[id] for id in ran]
    gaps = [later - earlier for earlier, later in itertools.pairwise(sorted(ticks))]
    say(f"{len(ticks)} ticks, at most {max(gaps):g} s apart")
    assert len(set(ran)) == len(ran), "a call ran twice"
    assert min(gaps) >= EVERY
    assert all(tick % EVERY == 0 for tick in ticks)
    assert max(gaps) <= LOST_BY_CHANGE


def test_up_runs_the_schedules_of_its_modules(tmp_path: Path, service: CountingService) -> None:
    """The modules are imported before there is a broker."""
    with fleet_with_schedule(tmp_path, "", service) as fleet:
        fleet.up("--workers", "1", "--no-web")
        beats = service.wait_for(2, path="/beat", timeout=2 * PATIENCE)
    assert len({beat.headers["idempotency-key"] for beat in beats}) == len(beats)
