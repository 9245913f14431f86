"""The keeper, driven by event histories: children that live as long as a test says, on a clock of its own."""

from __future__ import annotations

import logging
import signal
from dataclasses import dataclass, field

import pytest

from seawall.exits import Exit
from seawall.supervisor.child_process import Process, how_it_ended
from seawall.supervisor.processes import ChildSpec, Keeper
from seawall.supervisor.restarts import RestartPolicy, Restarts
from tests.unit.supervisor.conftest import logged

FOR_EVER = float("inf")


@dataclass(frozen=True)
class Life:
    """How long it lives by itself, what it ends with, and how many seconds it lives on after SIGTERM."""

    lasts: float = FOR_EVER
    code: int = 1
    after_term: float = 0.0


class FakeProcess:
    def __init__(self, world: World, name: str, pid: int, life: Life) -> None:
        self._world, self._name, self._life = world, name, life
        self.pid = pid
        self._ends_at = world.now + life.lasts
        self._code = life.code

    def poll(self) -> int | None:
        return self._code if self._world.now >= self._ends_at else None

    def send_signal(self, sig: int) -> None:
        self._world.note(f"{self._name} {signal.Signals(sig).name}")
        if sig == signal.SIGTERM:
            self._end(self._world.now + self._life.after_term, 0)

    def kill(self) -> None:
        self._world.note(f"{self._name} SIGKILL")
        self._end(self._world.now, -9)

    def _end(self, at: float, code: int) -> None:
        if at < self._ends_at:
            self._ends_at, self._code = at, code


@dataclass
class World:
    """Time, signals and processes. `lives` by child, the last one repeats; `cannot_start` names children."""

    lives: dict[str, list[Life]] = field(default_factory=dict)
    stops: list[float] = field(default_factory=list)
    reloads: list[float] = field(default_factory=list)
    cannot_start: set[str] = field(default_factory=set)
    now: float = 0.0
    started: int = 0
    history: list[str] = field(default_factory=list)

    def note(self, what: str) -> None:
        self.history.append(f"{round(self.now, 1):g} {what}")

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now = round(self.now + seconds, 3)  # sums of tenths are to compare equal

    def spawn(self, child: ChildSpec) -> Process:
        if child.name in self.cannot_start:
            self.note(f"{child.name} fails")
            raise FileNotFoundError(2, "No such file or directory")
        self.note(f"{child.name} starts")
        self.started += 1
        lives = self.lives.get(child.name, [Life()])
        life = lives.pop(0) if len(lives) > 1 else lives[0]
        return FakeProcess(self, child.name, self.started, life)

    # What a loop sees of the process's signals:

    @property
    def stop_count(self) -> int:
        return len([at for at in self.stops if at <= self.now])

    @property
    def stop_requested(self) -> bool:
        return self.stop_count > 0

    @property
    def reload_requested(self) -> bool:
        due = [at for at in self.reloads if at <= self.now]
        self.reloads = [at for at in self.reloads if at > self.now]
        return bool(due)

    def wait(self, timeout: float) -> None:
        self.sleep(timeout)


def spec(name: str, *, grace: float = 20.0, restart: bool = True) -> ChildSpec:
    return ChildSpec(name, ["run", name], {}, grace, restart)


def keeper(world: World, *children: ChildSpec, policy: RestartPolicy | None = None) -> Keeper:
    return Keeper(children, policy=policy, spawn=world.spawn, clock=world.clock, sleep=world.sleep)


def run(world: World, *children: ChildSpec, timeout: float = 25.0, policy: RestartPolicy | None = None) -> int:
    return keeper(world, *children, policy=policy).run(world, timeout=timeout)


def starts(world: World, name: str) -> list[float]:
    return [float(line.split()[0]) for line in world.history if line.endswith(f" {name} starts")]


class TestRestarts:
    def test_one_that_dies_is_started_again_alone(self) -> None:
        world = World({"a": [Life(3), Life()]}, stops=[10])
        assert run(world, spec("a"), spec("b")) == Exit.OK
        assert world.history == ["0 a starts", "0 b starts", "3.2 a starts", "10 a SIGTERM", "10 b SIGTERM"]

    def test_delay_doubles_and_starts_anew_after_a_minute_of_life(self) -> None:
        restarts = Restarts(RestartPolicy())
        delays = [restarts.after_death(now, 1.0) for now in (1, 2, 3)]
        assert delays == [0.2, 0.4, 0.8]
        assert restarts.after_death(70, lived=60.0) == 0.2

    def test_delay_grows_no_further_than_its_limit(self) -> None:
        restarts = Restarts(RestartPolicy(budget=20))
        assert [restarts.after_death(0, 0) for _ in range(12)][-2:] == [30.0, 30.0]

    def test_budget_is_spent_within_its_window_only(self) -> None:
        restarts = Restarts(RestartPolicy(budget=2, window=100))
        assert [restarts.after_death(now, 0) is not None for now in (0, 50, 99)] == [True, True, False]
        assert restarts.after_death(101, 0) is not None, "the first one was long ago"

    def test_child_that_dies_at_once_is_given_up_and_the_rest_ends(self, caplog: pytest.LogCaptureFixture) -> None:
        world = World({"a": [Life(0.0)]})
        watched = keeper(world, spec("a"), spec("b"))
        assert watched.run(world, timeout=25) == Exit.SOFTWARE
        assert watched.exhausted == ["a"]
        assert len(starts(world, "a")) == 11
        assert 60 < world.now < 180, "the defaults end a crash loop in the order of two minutes"
        assert world.history[-1].endswith("b SIGTERM")
        assert "a is given up: it was started again 10 times lately" in caplog.text

    def test_child_that_lives_half_a_minute_each_time_is_kept_for_ever(self) -> None:
        world = World({"a": [Life(30)]}, stops=[3600])
        assert run(world, spec("a")) == Exit.OK

    def test_child_that_cannot_be_started_is_tried_again(self, caplog: pytest.LogCaptureFixture) -> None:
        world = World(cannot_start={"a"}, stops=[1])
        assert run(world, spec("a"), spec("b")) == Exit.OK
        assert world.history[:3] == ["0 a fails", "0 b starts", "0.2 a fails"]
        assert "a cannot be started: [Errno 2] No such file or directory" in caplog.text

    @pytest.mark.parametrize("code", [Exit.CONFIG, Exit.USAGE])
    def test_wrong_configuration_at_the_first_start_ends_everything_at_once(self, code: Exit) -> None:
        world = World({"a": [Life(1, code)]})
        assert run(world, spec("a"), spec("b")) == code
        assert len(starts(world, "a")) == 1

    def test_wrong_configuration_after_a_reload_leaves_time_to_mend_it(self) -> None:
        world = World({"a": [Life(1, 1), Life(1, Exit.CONFIG), Life()]}, stops=[20])
        assert run(world, spec("a")) == Exit.OK
        assert len(starts(world, "a")) == 3

    def test_log_tells_each_start_end_and_delay(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "seawall.keeper")
        world = World({"a": [Life(3, -9), Life(1, Exit.SOFTWARE), Life()]}, stops=[10])
        run(world, spec("a"))
        assert [record.getMessage() for record in logged(caplog, "seawall.keeper")] == [
            "a runs as process 1",
            "a (process 1) was ended by SIGKILL",
            "a is started again in 0.2 s",
            "a runs as process 2",
            "a (process 2) ended with exit code 70 (SOFTWARE)",
            "a is started again in 0.4 s",
            "a runs as process 3",
            "a (process 3) ended with exit code 0 (OK)",
        ]


class TestPrograms:
    """Children that the others work for: `restart=False`."""

    def test_its_end_ends_all_with_its_code(self) -> None:
        world = World({"app": [Life(5, 3)]})
        assert run(world, spec("worker"), spec("app", restart=False)) == 3
        assert world.history == ["0 worker starts", "0 app starts", "5 worker SIGTERM"]

    def test_signal_that_ended_it_becomes_a_shells_code(self) -> None:
        assert run(World({"app": [Life(5, -9)]}), spec("app", restart=False)) == 137

    def test_one_that_is_not_there_ends_all_as_a_shell_would(self) -> None:
        assert run(World(cannot_start={"app"}), spec("app", restart=False)) == 127

    def test_it_is_stopped_before_those_that_work_for_it(self) -> None:
        world = World({"app": [Life(after_term=3)]}, stops=[1])
        assert run(world, spec("worker"), spec("app", restart=False)) == Exit.OK
        assert world.history[2:] == ["1 app SIGTERM", "4 worker SIGTERM"]

    def test_it_may_be_added_later(self) -> None:
        world = World({"app": [Life(1, 4)]})
        running = keeper(world, spec("worker"))
        running.start()
        running.add(spec("app", restart=False))
        assert running.pids == {"worker": 1, "app": 2}
        world.now = 1
        running.poll()
        assert running.ended("app") == 4
        assert running.verdict == 4
        assert running.exhausted == []


class TestStop:
    def test_who_does_not_end_within_its_grace_is_killed(self) -> None:
        world = World({"a": [Life(after_term=FOR_EVER)], "b": [Life(after_term=3)]}, stops=[1])
        assert run(world, spec("a", grace=5), spec("b", grace=5)) == Exit.OK
        assert world.history[2:] == ["1 a SIGTERM", "1 b SIGTERM", "6 a SIGKILL"]

    def test_deadline_of_all_is_kept_whatever_a_childs_grace(self) -> None:
        stubborn = [Life(after_term=FOR_EVER)]
        world = World({"app": stubborn, "a": list(stubborn)}, stops=[1])
        run(world, spec("a", grace=60), spec("app", grace=60, restart=False), timeout=10)
        assert [line for line in world.history if "SIGKILL" in line] == ["6 app SIGKILL", "11 a SIGKILL"]

    def test_second_signal_kills_at_once(self) -> None:
        world = World({"a": [Life(after_term=FOR_EVER)]}, stops=[1, 3])
        assert run(world, spec("a")) == Exit.CUT_OFF
        assert world.history[-1] == "3 a SIGKILL"

    def test_two_signals_before_the_stop_begins_are_no_haste(self) -> None:
        """A process that was busy may find both at once; its children still get their time."""
        world = World({"a": [Life(after_term=2)]}, stops=[1, 1])
        run(world, spec("a"))
        assert "SIGKILL" not in " ".join(world.history)

    def test_stop_is_safe_before_start_and_twice(self) -> None:
        world = World()
        idle = keeper(world, spec("a"))
        idle.stop(5)
        idle.stop(5)
        idle.start()
        assert world.history == [], "a keeper that was stopped starts nothing any more"

    def test_nobody_is_started_again_while_stopping(self) -> None:
        world = World({"a": [Life(1)]})
        stopped = keeper(world, spec("a"))
        stopped.start()
        world.now = 1
        stopped.poll()
        stopped.stop(5)
        world.now = 60
        stopped.poll()
        stopped.stop(5)
        assert len(starts(world, "a")) == 1

    def test_one_that_even_a_kill_does_not_end_is_let_go(self, caplog: pytest.LogCaptureFixture) -> None:
        world = World()
        stuck = keeper(world, spec("a"))
        stuck.start()
        stuck._kept[0].process.poll = lambda: None  # type: ignore[union-attr, method-assign]
        stuck.stop(5)
        assert world.now < 10
        assert "a (process 1) cannot be ended" in caplog.text

    def test_orphaned_keeper_stops_its_children(self) -> None:
        world = World()
        code = keeper(world, spec("a")).run(world, timeout=5, orphaned=lambda: world.now >= 2)
        assert code == Exit.OK
        assert world.history[-1] == "2 a SIGTERM"

    def test_error_beside_the_children_leaves_none_behind(self) -> None:
        world = World()
        with pytest.raises(ZeroDivisionError):
            keeper(world, spec("a")).run(world, timeout=5, beside=lambda: 1 / 0)
        assert world.history[-1] == "0 a SIGTERM"


class TestReload:
    def test_hangup_is_passed_on_but_not_to_programs(self) -> None:
        world = World(reloads=[2], stops=[5])
        run(world, spec("a"), spec("b"), spec("app", restart=False))
        assert [line for line in world.history if "SIGHUP" in line] == ["2 a SIGHUP", "2 b SIGHUP"]

    def test_clean_end_that_was_asked_for_is_not_held_against_it(self, caplog: pytest.LogCaptureFixture) -> None:
        world = World({"a": [Life(3, 0), Life()]})
        reloaded = keeper(world, spec("a"))
        reloaded.start()
        reloaded.restart_all()
        world.now = 3
        reloaded.poll()
        reloaded.poll()
        assert starts(world, "a") == [0, 3], "at once, without a delay"
        assert "started again in" not in caplog.text

    def test_reload_that_went_wrong_excuses_no_later_end(self) -> None:
        world = World({"a": [Life(3, 1), Life(3, 0), Life()]}, reloads=[1], stops=[10])
        run(world, spec("a"))
        assert starts(world, "a") == [0, 3.2, pytest.approx(6.65, abs=0.06)], "with their delays"

    def test_clean_end_that_nobody_asked_for_is_a_death(self) -> None:
        world = World({"a": [Life(3, 0), Life()]}, stops=[5])
        run(world, spec("a"))
        assert starts(world, "a") == [0, 3.2]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0 (OK)"),
        (78, "ended with exit code 78 (CONFIG)"),
        (9, "ended with exit code 9"),
        (-15, "was ended by SIGTERM"),
        (-63, "was ended by signal 63"),
    ],
)
def test_an_end_in_words(code: int, words: str) -> None:
    assert how_it_ended(code) == words
