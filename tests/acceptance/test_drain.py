"""A worker's end by signal: what runs finishes, the rest is another worker's at once, and it exits in time."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from seawall.exits import Exit
from tests.acceptance.harness import Fleet, Stage, playing, say
from tests.acceptance.slow import Slow
from tests.support import PrivateRedis, wait_until

#: Calls that run when the signal comes, over two services, and calls that wait behind them.
RUNNING, BACKLOG = 8, 24
#: Seconds between the signal and the moment when another worker has run the backlog; RELIABILITY asks for 1 s. Any process may
#: stand still meanwhile, and what waits for a lease to end takes 5 s.
PROMPT = 3.9
#: Seconds that a signalled worker may need beyond what it waits for.
SOON = 3.0


def one_signal(folder: Path, url: str) -> tuple[float, float, Counter[str], list[str]]:
    with ExitStack() as stack:
        slow = Slow(stack, folder, url, running=RUNNING)
        worker = slow.fleet.worker()
        slow.fill(worker, backlog=BACKLOG)
        other = slow.fleet.worker()
        # What the other one has started by now counts as backlog, too: it has free slots from its first moment.
        worker.terminate()
        signalled = time.monotonic()
        slow.fleet.wait_for_worker(other)
        slow.service.wait_for(RUNNING + BACKLOG, timeout=10)
        moved = slow.service.requests[-1].at - max(signalled, slow.service.requests[RUNNING].at)
        assert worker.popen.poll() is None, "it left its running calls alone"
        slow.release.set()
        released = time.monotonic()
        assert worker.wait() == Exit.OK
        ended = time.monotonic() - released
        wait_until(lambda: slow.fleet.drained("slow"))
        return moved, ended, slow.starts(), worker.lines("(attempt")


def calls_that_do_not_end(folder: Path, url: str) -> tuple[float, float]:
    """The shutdown timeout: what still runs goes back, and another worker runs it at once."""
    with ExitStack() as stack:
        slow = Slow(stack, folder, url, running=RUNNING)
        worker = slow.fleet.worker("--shutdown-timeout", "1")
        slow.fill(worker, backlog=BACKLOG)
        slow.fleet.start(workers=1)
        worker.terminate()
        signalled = time.monotonic()
        assert worker.wait() == Exit.OK
        ended = time.monotonic() - signalled
        wait_until(lambda: slow.fleet.drained("slow"), 10)
        again = time.monotonic() - signalled
        assert slow.starts() == {f"/{n}": 2 if n < RUNNING else 1 for n in range(RUNNING + BACKLOG)}
        return ended, again


def two_signals(folder: Path, url: str) -> tuple[float, int]:
    with ExitStack() as stack:
        slow = Slow(stack, folder, url, running=RUNNING)
        worker = slow.fleet.worker()
        slow.fill(worker, backlog=BACKLOG)
        worker.terminate()
        worker.expect("stopping: ")
        worker.terminate()
        signalled = time.monotonic()
        code = worker.wait()
        return time.monotonic() - signalled, code


def reload(folder: Path, url: str) -> tuple[int, int]:
    """SIGHUP: the same process, with new code; its running call ends before."""
    with ExitStack() as stack:
        slow = Slow(stack, folder, url, running=RUNNING)
        worker = slow.fleet.worker()
        slow.fill(worker, backlog=BACKLOG)
        slow.fleet.also("print('NEW CODE', flush=True)")
        pid = worker.pid
        worker.signal(signal.SIGHUP)
        worker.expect("stopping: ")
        slow.release.set()
        worker.expect("NEW CODE")
        worker.expect("serving slow", count=2)
        slow.fleet.enqueue("slow", ["/after"])
        slow.service.wait_for(1, path="/after")
        wait_until(lambda: slow.fleet.drained("slow"))
        assert worker.popen.poll() is None
        served_by = slow.fleet.workers()[0]["pid"]
        assert set(slow.starts().values()) == {1}
        return pid, served_by


def during_start_up(folder: Path, url: str) -> list[tuple[int, float]]:
    """SIGTERM at four moments between the process's first instruction and its first heartbeat."""
    ends = []
    with Fleet(folder, url, {"any": {"url": "http://127.0.0.1:9"}}) as fleet:
        fleet.also("print('IMPORTED', flush=True)")
        at_once, imported, serving, working = (fleet.worker() for _ in range(4))
        at_once.terminate()
        imported.expect("IMPORTED")
        imported.terminate()
        serving.expect("serving any")
        serving.terminate()
        fleet.wait_for_worker(working)
        working.terminate()
        for worker in (at_once, imported, serving, working):
            began = time.monotonic()
            ends.append((worker.wait(), time.monotonic() - began))
        assert fleet.workers() == []
    return ends


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, redis_server: PrivateRedis) -> Iterator[Stage]:
    plays = {
        play.__name__: partial(play, url=redis_server.url)
        for play in (one_signal, calls_that_do_not_end, two_signals, reload, during_start_up)
    }
    with playing(tmp_path_factory.mktemp("drain"), **plays) as stage:
        yield stage


def test_sigterm_finishes_what_runs_and_hands_the_rest_over_at_once(stage: Stage) -> None:
    moved, ended, starts, attempts = stage.result("one_signal")
    say(
        f"drain: backlog of {BACKLOG} run by another worker within {moved:.2f} s, exit {ended:.2f} s after the last call"
    )
    assert starts == {f"/{n}": 1 for n in range(RUNNING + BACKLOG)}
    assert len(attempts) == RUNNING
    assert moved < PROMPT
    assert ended < SOON


def test_a_call_that_does_not_end_goes_back_when_the_time_is_over(stage: Stage) -> None:
    ended, again = stage.result("calls_that_do_not_end")
    say(
        f"drain with a shutdown timeout of 1 s: exit after {ended:.2f} s, its calls have run elsewhere after {again:.2f} s"
    )
    assert ended < 1 + SOON
    assert again < 1 + PROMPT


def test_a_second_sigterm_ends_it_now(stage: Stage) -> None:
    took, code = stage.result("two_signals")
    say(f"second SIGTERM: exit after {took:.2f} s")
    assert code == Exit.CUT_OFF
    assert took < 5  # and not its shutdown timeout, for calls that do not end


def test_sighup_reloads_and_serves_again_under_the_same_process_id(stage: Stage) -> None:
    pid, served_by = stage.result("reload")
    assert pid == served_by


def test_sigterm_during_start_up_ends_it_soon(stage: Stage) -> None:
    ends = stage.result("during_start_up")
    say(f"SIGTERM during start-up, from the first instruction on: {[(code, round(took, 2)) for code, took in ends]}")
    assert ends[0][0] in (Exit.OK, -signal.SIGTERM)
    assert [code for code, _ in ends[1:]] == [Exit.OK] * 3
    assert max(took for _, took in ends) < SOON
