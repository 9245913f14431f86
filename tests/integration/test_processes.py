"""The keeper with real children: killed, dying again and again, refusing to stop, left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from seawall.exits import Exit
from seawall.supervisor.processes import ChildSpec, Keeper, RestartPolicy
from tests.support.attention import GivenSignals
from tests.support.waiting import wait_until

#: Restarts as fast as a test wants them.
FAST = RestartPolicy(first_delay=0.01, longest_delay=0.05, budget=3)

MakeKeeper = Callable[..., Keeper]


@pytest.fixture
def make_keeper() -> Iterator[MakeKeeper]:
    """Keepers that leave nothing behind, whatever becomes of the test."""
    made: list[Keeper] = []

    def make(*children: ChildSpec) -> Keeper:
        made.append(Keeper(children, policy=FAST))
        return made[-1]

    yield make
    for keeper in made:
        keeper.stop(0.0)


def shell(name: str, script: str, *, grace: float = 5.0, restart: bool = True) -> ChildSpec:
    return ChildSpec(name, ["sh", "-c", script], {}, grace, restart)


def sleeper(name: str) -> ChildSpec:
    return ChildSpec(name, ["sleep", "60"], {}, 5.0)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def polled(keeper: Keeper, condition: Callable[[], object]) -> None:
    """Look after the children until the condition holds."""

    def look() -> object:
        keeper.poll()
        return condition()

    wait_until(look)


def test_child_that_was_killed_is_started_again_and_its_sibling_is_left_alone(make_keeper: MakeKeeper) -> None:
    keeper = make_keeper(sleeper("a"), sleeper("b"))
    keeper.start()
    first = keeper.pids
    os.kill(first["a"], signal.SIGKILL)
    polled(keeper, lambda: keeper.pids.get("a", first["a"]) != first["a"])
    assert keeper.pids["b"] == first["b"]
    pids = keeper.pids.values()
    keeper.stop(5.0)
    assert all(is_gone(pid) for pid in pids)
    keeper.stop(5.0)


def test_child_that_dies_at_once_uses_up_its_budget(make_keeper: MakeKeeper, tmp_path: Path) -> None:
    keeper = make_keeper(shell("a", f"echo life >> {tmp_path}/lives; exit 3"), sleeper("b"))
    assert keeper.run(GivenSignals(), timeout=5.0) == Exit.SOFTWARE
    assert keeper.exhausted == ["a"]
    assert (tmp_path / "lives").read_text().count("life") == 1 + FAST.budget
    assert keeper.pids == {}


def test_child_that_ignores_sigterm_is_killed_with_what_it_started(make_keeper: MakeKeeper, tmp_path: Path) -> None:
    script = (
        f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/started.tmp; mv {tmp_path}/started.tmp {tmp_path}/started; wait"
    )
    keeper = make_keeper(shell("a", script, grace=0.2))
    keeper.start()
    pid = keeper.pids["a"]
    wait_until((tmp_path / "started").exists)
    grandchild = int((tmp_path / "started").read_text())
    keeper.stop(5.0)
    assert is_gone(pid)
    wait_until(lambda: is_gone(grandchild), message="the child's own child is left behind")


def test_stop_keeps_its_deadline_against_a_stubborn_child(make_keeper: MakeKeeper, tmp_path: Path) -> None:
    keeper = make_keeper(shell("a", f"trap '' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done", grace=60))
    keeper.start()
    pid = keeper.pids["a"]
    wait_until((tmp_path / "ready").exists)
    stopping = threading.Thread(target=keeper.stop, args=(0.2,))
    stopping.start()
    stopping.join(20)
    assert not stopping.is_alive()
    assert is_gone(pid)


def test_each_child_has_a_session_of_its_own(make_keeper: MakeKeeper) -> None:
    """So ctrl-C in a terminal reaches the keeper only, and each child gets one SIGTERM and not a signal before."""
    keeper = make_keeper(sleeper("a"))
    keeper.start()
    pid = keeper.pids["a"]
    assert os.getsid(pid) == os.getpgid(pid) == pid != os.getsid(0)


def test_environment_of_a_child_is_ours_and_its_own(make_keeper: MakeKeeper, tmp_path: Path) -> None:
    told = ChildSpec("a", ["sh", "-c", f"echo $PATH $WHERE > {tmp_path}/told"], {"WHERE": "here"}, 5.0, restart=False)
    keeper = make_keeper(told)
    assert keeper.run(GivenSignals(), timeout=5.0) == Exit.OK
    assert (tmp_path / "told").read_text() == f"{os.environ['PATH']} here\n"


def test_program_that_is_not_there_ends_all(make_keeper: MakeKeeper, tmp_path: Path) -> None:
    missing = ChildSpec("app", [str(tmp_path / "missing")], {}, 5.0, restart=False)
    keeper = make_keeper(sleeper("worker"), missing)
    assert keeper.run(GivenSignals(), timeout=5.0) == 127
    assert keeper.pids == {}


KEEPER_PROCESS = """
import os, sys
from seawall.signals import Signals
from seawall.supervisor.processes import ChildSpec, Keeper

child = [sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]]
with Signals() as signals:
    sys.exit(Keeper([ChildSpec("child", child, {}, 5.0)]).run(signals, timeout=5.0))
"""

CHILD_PROCESS = """
import os, pathlib, sys
from seawall.signals import ParentWatch, Signals

folder, parent = pathlib.Path(sys.argv[2]), ParentWatch(int(sys.argv[1]))
with Signals() as signals:
    (folder / "pid.tmp").write_text(str(os.getpid()))
    (folder / "pid.tmp").rename(folder / "pid")
    while not signals.stop_requested and not parent.orphaned():
        signals.wait(0.1)
    (folder / "why").write_text("stopped" if signals.stop_requested else "orphaned")
"""


@pytest.mark.parametrize(("number", "why"), [(signal.SIGKILL, "orphaned"), (signal.SIGINT, "stopped")])
def test_children_end_with_their_keeper(number: signal.Signals, why: str, tmp_path: Path) -> None:
    """Killed, it cannot tell them: they notice. Interrupted, it stops them and then ends."""
    script = textwrap.dedent(KEEPER_PROCESS)
    keeper = subprocess.Popen([sys.executable, "-c", script, CHILD_PROCESS, str(tmp_path)], start_new_session=True)
    try:
        wait_until((tmp_path / "pid").exists, timeout=10.0)
        child = int((tmp_path / "pid").read_text())
        keeper.send_signal(number)
        assert keeper.wait(5.0) == (-number if number == signal.SIGKILL else Exit.OK)
        wait_until(lambda: is_gone(child))
        assert (tmp_path / "why").read_text() == why
    finally:
        keeper.kill()
        keeper.wait()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.killpg(int((tmp_path / "pid").read_text()), signal.SIGKILL)
