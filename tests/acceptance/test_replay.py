"""`seawall dead replay` against a real worker: at its pace, and cut short by every means without a call lost or doubled."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.exits import Exit
from tests.acceptance.harness import Fleet, Program, say
from tests.acceptance.shell import SEAWALL, run, terminal
from tests.support import CountingService, PrivateRedis, wait_until
from tests.support.dead_letters import bury_calls

#: Letters in the great replay, its calls a second, and how many have arrived when `kill -9` comes.
MANY, RATE, HALF = (5000, 1000, 2500) if os.environ.get("SEAWALL_TEST_FULL") == "1" else (300, 40, 100)
#: Letters where a signal comes after a few: at this many a second the rest would take 20 s.
FEW, SLOW = 40, 2


@pytest.fixture
def fleet(tmp_path: Path, own_redis: PrivateRedis, service: CountingService) -> Iterator[Fleet]:
    with Fleet(tmp_path, own_redis.url, {"shop": {"url": service.url}}) as fleet:
        yield fleet


def bury(fleet: Fleet, count: int) -> list[str]:
    return bury_calls(
        fleet.engine.queue, "shop", [f"/items/{n}" for n in range(count)], url=fleet.services["shop"]["url"]
    )


def replay(fleet: Fleet, rate: float) -> Program:
    """`seawall dead replay --all`, in its own process; what it says is its text."""
    argv = [*SEAWALL, "dead", "replay", "--all", "--rate", str(rate)]
    return fleet._kept(Program(argv, folder=fleet.folder, log=fleet._log("replay"), environ=fleet.environ))


def dead(fleet: Fleet) -> int:
    return fleet.counts("shop").dead


def queued(text: str) -> int:
    """How many the command says it queued."""
    found = re.search(r"^(\d+) queued again", text, flags=re.M)
    assert found, text
    return int(found[1])


def test_replay_killed_half_way_and_run_again_sends_every_call_once(fleet: Fleet, service: CountingService) -> None:
    ids = bury(fleet, MANY)
    fleet.start(workers=1)
    launched_at = time.monotonic()
    killed = replay(fleet, RATE)
    service.wait_for(HALF, timeout=20)
    killed.kill()
    took = time.monotonic() - launched_at
    left = dead(fleet)
    say(f"replay at {RATE} calls a second: killed after {took:.1f} s with {left} of {MANY} left")
    assert 0 < left <= MANY - HALF
    # Judged where it puts them: a worker that has stood still for a moment runs what came meanwhile in a burst.
    assert MANY - left <= 1.2 * RATE * took, "it keeps its pace, however busy the machine is"
    assert killed.text == "", "nothing is written to a pipe or a file meanwhile"

    again = run("dead", "replay", "--all", "--rate", "0", folder=fleet.folder, environ=fleet.environ)
    assert (again.code, again.out, again.err) == (Exit.OK, f"{left} queued again\n", "")
    wait_until(lambda: fleet.drained("shop"), 20)
    keys = Counter(request.headers["idempotency-key"] for request in service.requests)
    assert keys == Counter(ids), "each arrived, and none twice"
    assert {request.path for request in service.requests} == {f"/items/{n}" for n in range(MANY)}
    assert dead(fleet) == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.CUT_OFF)],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else "",
)
def test_replay_stopped_by_a_signal_says_what_is_left(fleet: Fleet, number: signal.Signals, code: Exit) -> None:
    bury(fleet, FEW)
    stopped = replay(fleet, SLOW)
    wait_until(lambda: dead(fleet) < FEW, 20)
    stopped.signal(number)
    assert stopped.wait() == code
    left = dead(fleet)
    assert 0 < left < FEW
    assert stopped.text.splitlines() == [
        f"{FEW - left} queued again",
        f"seawall: {left} left; the same command queues them",
    ]
    again = run("dead", "replay", "--all", "--rate", "0", folder=fleet.folder, environ=fleet.environ)
    assert (again.code, again.out) == (Exit.OK, f"{left} queued again\n")


def test_replay_on_a_terminal_shows_how_far_it_is(fleet: Fleet) -> None:
    bury(fleet, FEW)
    with terminal("dead", "replay", "--all", "--rate", str(SLOW), folder=fleet.folder, environ=fleet.environ) as screen:
        screen.expect(f"2/{FEW}")
        assert screen.interrupt() == Exit.INTERRUPTED
        screen.expect("the same command queues them")
    assert "Queueing again" in screen.seen
    assert queued(screen.seen.replace("\r", "")) == FEW - dead(fleet)
    assert "Traceback" not in screen.seen


def test_replay_tells_how_many_when_the_broker_goes_away(fleet: Fleet, own_redis: PrivateRedis) -> None:
    bury(fleet, FEW)
    broken = replay(fleet, SLOW)
    wait_until(lambda: dead(fleet) < FEW, 20)
    own_redis.kill()
    assert broken.wait() == Exit.UNAVAILABLE
    assert "cannot be reached" in broken.text.splitlines()[-1]
    own_redis.restart()
    done = FEW - dead(fleet)
    perhaps = "and perhaps one more" in broken.text
    assert queued(broken.text) in ({done, done - 1} if perhaps else {done})
    again = run("dead", "replay", "--all", "--rate", "0", folder=fleet.folder, environ=fleet.environ)
    assert (again.code, queued(again.out), dead(fleet)) == (Exit.OK, FEW - done, 0)
