"""Supervisors with a real server, a real scheduler and real time: trials, failover, outages, a dead scheduler."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest

from seawall.actors.queue_store import Oldest
from seawall.exits import Exit
from seawall.redis_link import ANSWER_TIMEOUT, RedisLink
from seawall.supervisor import service, watchdog
from seawall.supervisor.breaker import Policy, Record, State
from seawall.supervisor.leader import Leader, leader_info
from seawall.supervisor.recovery import Recovery
from seawall.supervisor.redis_store import RedisStore
from seawall.supervisor.scheduler import make_scheduler
from seawall.supervisor.service import Supervisor
from seawall.supervisor.trials import Trials
from seawall.supervisor.view import BreakerView
from tests.support import PrivateRedis
from tests.support.attention import GivenSignals
from tests.support.house import PATIENT
from tests.support.waiting import wait_until

NAMESPACE = "sea"
RECOVERY, TRIAL_LEASE = 0.3, 0.3
#: Seconds between a timer's end and its trial, at the most: what is promised.
PUNCTUAL = 0.25
#: Trials that are timed in one test.
TURNS = 5


class Rig:
    """One supervisor with what it needs of the other rooms; a process of the fleet, as far as the server can tell."""

    def __init__(
        self,
        url: str,
        name: str = "s1",
        *,
        trial_lease: float = TRIAL_LEASE,
        lease: float = 10.0,
        answer_timeout: float = PATIENT,
    ) -> None:
        """`lease` is the leader's: long, where its end is not what the test is about."""
        self.link = RedisLink(url, answer_timeout=answer_timeout)
        self.store = RedisStore(self.link, NAMESPACE)
        self.scheduler = make_scheduler()
        self.leader = Leader(self.link, NAMESPACE, name, lease=lease)
        policy = Policy(failure_threshold=1, recovery_timeout=RECOVERY, trial_lease=trial_lease)
        self.view = BreakerView("chroma", "Chroma", self.store, policy, grace_s=60.0)
        self.view.start()
        self.healthy: bool | str = True
        self.has_health = False
        self.held = ""
        self.asked_at: list[float] = []
        self.asked = threading.Event()
        self.answers = threading.Event()
        self.answers.set()
        self.sweeps = 0
        trials = Trials(
            self.store,
            self.scheduler,
            target=lambda key: self.view,
            health=self._ask,
            has_health=lambda key: self.has_health,
            oldest=lambda key: Oldest(self.held),
            leads=lambda: self.leader.leads,
        )
        recovery = Recovery(lambda: ["chroma.background"], self._sweep)
        self.supervisor = Supervisor(self.leader, trials, recovery, self.store, self.scheduler, tick=0.1)

    def _ask(self, key: str) -> bool | str:
        # When the trial was taken, by the store; how long the news took from there on is the machine's affair.
        self.asked_at.append(self.view.record.next_trial_at - max(RECOVERY, TRIAL_LEASE))
        self.asked.set()
        self.answers.wait(10)
        return self.healthy

    def _sweep(self, queue: str) -> tuple[int, int, int]:
        self.sweeps += 1
        return 0, 0, 0

    def leading(self) -> Rig:
        self.supervisor.start()
        wait_until(lambda: self.supervisor.leads)
        return self

    def open(self) -> Record:
        return self.view.failed(self.store.now(), self.view.generation, "connection refused")

    @property
    def record(self) -> Record:
        return self.store.read("chroma")[0] or Record()

    def close_with(self, trial: str) -> None:
        """The trial goes well."""
        wait_until(lambda: self.view.record.trial == trial)
        assert self.view.trial_succeeded(trial).state is State.CLOSED

    def gaps(self) -> list[float]:
        """Seconds between one trial and the next."""
        return [later - earlier for earlier, later in itertools.pairwise(self.asked_at[: TURNS + 1])]

    def pause(self) -> None:
        """As SIGSTOP: no tick, no timer, and no resignation."""
        self.scheduler.pause()

    def close(self) -> None:
        self.answers.set()
        self.supervisor.stop(1.0)
        self.store.close()
        self.link.close()


def assert_in_time(late: list[float]) -> None:
    """Never too early, and late only now and then, when this machine does something else."""
    assert len(late) == TURNS
    assert min(late) >= 0, late
    assert median(late) <= PUNCTUAL, late


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    rigs: list[Rig] = []

    def make(*args: Any, **options: Any) -> Rig:
        rigs.append(Rig(*args, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: MakeRig, redis_url: str) -> Rig:
    return make_rig(redis_url)


class TestTrials:
    def test_health_path_is_asked_in_time_and_closes_the_breaker(self, rig: Rig) -> None:
        rig.leading()
        rig.has_health = True
        late = []
        for number in range(TURNS):
            due = rig.open().next_trial_at
            wait_until(lambda: rig.view.state is State.CLOSED)
            late.append(rig.asked_at[number] - due)
        assert_in_time(late)

    def test_failing_trials_start_a_recovery_timeout_apart(self, rig: Rig) -> None:
        rig.leading()
        rig.has_health, rig.healthy = True, "HTTP 503"
        rig.open()
        wait_until(lambda: len(rig.asked_at) > TURNS)
        assert_in_time([gap - RECOVERY for gap in rig.gaps()])

    def test_held_call_becomes_the_trial_in_time(self, make_rig: MakeRig, redis_url: str) -> None:
        rig = make_rig(redis_url, trial_lease=10.0).leading()
        rig.held = "call-1"
        late = []
        for _ in range(TURNS):
            due = rig.open().next_trial_at
            record = wait_until(lambda: rig.record if rig.record.trial else None)
            assert record.trial == "call-1"
            late.append(record.changed_at - due)
            rig.close_with("call-1")
        assert_in_time(late)

    def test_without_either_the_slot_is_free_in_time(self, make_rig: MakeRig, redis_url: str) -> None:
        rig = make_rig(redis_url, trial_lease=10.0).leading()
        late = []
        for _ in range(TURNS):
            rig.held = ""
            due = rig.open().next_trial_at
            record = wait_until(lambda: rig.record if rig.record.state is State.HALF_OPEN else None)
            assert record.trial == ""
            late.append(record.changed_at - due)
            rig.held = "call-1"
            wait_until(lambda: rig.record.trial == "call-1")
            rig.close_with("call-1")
        assert_in_time(late)

    def test_breakers_that_opened_before_are_found_at_the_start(self, make_rig: MakeRig, redis_url: str) -> None:
        opener = make_rig(redis_url, "s0")
        due = opener.open().next_trial_at
        wait_until(lambda: opener.store.now() > due)
        rig = make_rig(redis_url)
        rig.has_health = True
        rig.leading()
        wait_until(lambda: rig.record.state is State.CLOSED)

    def test_slow_health_check_holds_up_neither_the_lease_nor_a_stop(self, rig: Rig) -> None:
        rig.has_health = True
        rig.answers.clear()
        rig.leading()
        rig.open()
        assert rig.asked.wait(5)
        term, sweeps, until = rig.leader.fence, rig.sweeps, rig.leader._leads_until
        wait_until(lambda: rig.sweeps > sweeps + 5 and rig.leader._leads_until > until)
        assert rig.leader.fence == term
        began = time.monotonic()
        rig.supervisor.stop(0.1)
        assert time.monotonic() - began < 5.0

    def test_health_check_that_hangs_does_not_hold_up_the_next_trial(self, rig: Rig) -> None:
        """Its lease is over, so it counts as failed; a timer that APScheduler skipped would be lost."""
        rig.has_health = True
        rig.answers.clear()
        rig.leading()
        rig.open()
        wait_until(lambda: len(rig.asked_at) > TURNS)
        assert_in_time([gap - RECOVERY for gap in rig.gaps()])

    def test_stop_waits_for_the_trial_that_is_being_made(self, make_rig: MakeRig, redis_url: str) -> None:
        rig = make_rig(redis_url, trial_lease=10.0)
        rig.has_health = True
        rig.answers.clear()
        rig.leading()
        rig.open()
        assert rig.asked.wait(5)
        stopping = threading.Thread(target=rig.supervisor.stop, args=(5.0,))
        stopping.start()
        wait_until(lambda: not leader_info(rig.link, NAMESPACE).owner, message="another one may lead meanwhile")
        stopping.join(0.1)
        assert stopping.is_alive()
        rig.answers.set()
        stopping.join(5)
        assert rig.record.state is State.CLOSED


class TestTwoSupervisors:
    """`two` of them: the lease of a leader that says nothing any more ends soon, that of `steady` ones does not."""

    @pytest.fixture
    def two(self, make_rig: MakeRig, redis_url: str) -> tuple[Rig, Rig]:
        return self._two(make_rig, redis_url, lease=2.0)

    @pytest.fixture
    def steady(self, make_rig: MakeRig, redis_url: str) -> tuple[Rig, Rig]:
        return self._two(make_rig, redis_url, lease=10.0)

    @staticmethod
    def _two(make_rig: MakeRig, url: str, lease: float) -> tuple[Rig, Rig]:
        first, second = (make_rig(url, name, lease=lease) for name in ("s1", "s2"))
        first.leading()
        second.supervisor.start()
        return first, second

    def test_only_the_leader_sweeps(self, steady: tuple[Rig, Rig]) -> None:
        first, second = steady
        wait_until(lambda: first.sweeps >= 5)
        assert second.sweeps == 0

    def test_other_leads_at_once_when_the_leader_stops(self, steady: tuple[Rig, Rig]) -> None:
        first, second = steady
        first.open()
        wait_until(lambda: "trial:chroma" in [job.id for job in first.scheduler.get_jobs()])
        first.supervisor.quiet()
        assert "trial:chroma" not in [job.id for job in first.scheduler.get_jobs()]
        first.supervisor.stop()
        first.supervisor.stop()
        wait_until(lambda: second.supervisor.leads, timeout=5)  # the lease would last for 10 s
        assert not first.supervisor.leads

    def test_other_leads_when_the_leader_is_paused_and_the_leader_acts_no_more(self, two: tuple[Rig, Rig]) -> None:
        first, second = two
        second.held = "call-of-second"
        first.held = "call-of-first"
        first.pause()
        wait_until(lambda: second.supervisor.leads)
        first.scheduler.resume()
        assert not first.supervisor.leads, "before its first tick"
        first.open()
        wait_until(lambda: first.record.trial)
        assert first.record.trial == "call-of-second"
        assert second.leader.fence > first.leader.fence

    def test_leader_killed_in_the_middle_of_a_trial_changes_nothing(self, two: tuple[Rig, Rig]) -> None:
        first, second = two
        for rig in two:
            rig.has_health, rig.healthy = True, "HTTP 503"
        first.answers.clear()
        first.open()
        assert first.asked.wait(5)
        first.pause()
        assert second.asked.wait(10)
        assert second.asked_at[0] - first.asked_at[0] >= RECOVERY, "never two within a recovery timeout"
        first.healthy = True
        first.answers.set()
        wait_until(lambda: len(second.asked_at) > 1)
        assert second.record.state is not State.CLOSED, "the late answer counts for nothing"

    def test_who_lives_and_who_leads_can_be_read(self, steady: tuple[Rig, Rig]) -> None:
        first, _ = steady

        def reports() -> dict[str, bool]:
            names = first.link.command("ZRANGE", f"{NAMESPACE}:supervisors", 0, -1)
            texts = [first.link.command("GET", f"{NAMESPACE}:supervisor:{name.decode()}") for name in names]
            return {report["id"]: report["leads"] for report in map(json.loads, filter(None, texts))}

        wait_until(lambda: reports() == {"s1": True, "s2": False})
        first.supervisor.stop()
        wait_until(lambda: reports() == {"s2": True})


class TestOutage:
    def test_all_is_built_anew_when_the_broker_returns(
        self, make_rig: MakeRig, own_redis: PrivateRedis, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "seawall.supervisor")
        rig = make_rig(own_redis.url, lease=0.5).leading()
        rig.has_health = True
        rig.open()
        own_redis.kill()
        wait_until(lambda: not rig.supervisor.leads and "leads no longer" in caplog.text)
        own_redis.restart()
        back = time.monotonic()
        wait_until(lambda: rig.asked_at)
        assert time.monotonic() - back < 5.0
        wait_until(lambda: rig.record.state is State.CLOSED)
        assert rig.leader.fence > 1
        logged = [line for line in caplog.messages if line.startswith("the broker (lease)")]
        assert len(logged) == 2, "its start and its end"

    def test_supervisor_may_be_started_before_the_broker(self, make_rig: MakeRig, own_redis: PrivateRedis) -> None:
        own_redis.kill()
        rig = make_rig(own_redis.url)
        rig.supervisor.start()
        own_redis.restart()
        wait_until(lambda: rig.supervisor.leads)

    def test_stop_ends_in_time_while_the_broker_is_frozen(self, make_rig: MakeRig, own_redis: PrivateRedis) -> None:
        rig = make_rig(own_redis.url, answer_timeout=ANSWER_TIMEOUT).leading()
        own_redis.freeze()
        stopping = threading.Thread(target=rig.supervisor.stop, args=(0.5,))
        stopping.start()
        stopping.join(9.0)
        own_redis.thaw()
        assert not stopping.is_alive()


class Running:
    """`run` on a thread of its own."""

    def __init__(self, supervisor: Supervisor, **options: Any) -> None:
        self.signals = GivenSignals()
        self._ends: list[Exit | None] = []
        self._thread = threading.Thread(target=lambda: self._ends.append(supervisor.run(self.signals, **options)))
        self._thread.start()

    @property
    def goes_on(self) -> bool:
        return self._thread.is_alive()

    def end(self, timeout: float = 10.0) -> Exit | None:
        self._thread.join(timeout)
        assert self._ends, f"still runs after {timeout} s"
        return self._ends[0]


class TestRun:
    @pytest.fixture(autouse=True)
    def quick_looks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(service, "LOOK_SECONDS", 0.1)

    def test_stop_signal_ends_it(self, rig: Rig) -> None:
        running = Running(rig.supervisor)
        wait_until(lambda: rig.supervisor.leads)
        running.signals.stop()
        assert running.end() is Exit.OK
        assert leader_info(rig.link, NAMESPACE).owner == ""

    def test_second_signal_ends_it_at_once(self, rig: Rig) -> None:
        rig.has_health = True
        rig.answers.clear()
        running = Running(rig.supervisor, timeout=30.0)
        wait_until(lambda: rig.supervisor.leads)
        rig.open()
        assert rig.asked.wait(5)
        running.signals.stop()
        running.signals.stop()
        assert running.end() is Exit.CUT_OFF

    def test_hangup_asks_for_a_fresh_start(self, rig: Rig) -> None:
        running = Running(rig.supervisor)
        wait_until(lambda: rig.supervisor.leads)
        running.signals.reload()
        assert running.end() is None
        assert leader_info(rig.link, NAMESPACE).owner == ""

    def test_orphan_stops(self, rig: Rig) -> None:
        assert Running(rig.supervisor, orphaned=lambda: rig.supervisor.leads).end() is Exit.OK

    def test_scheduler_whose_thread_died_ends_the_process(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An error in update_job ends APScheduler's thread, and `running` stays True."""
        monkeypatch.setattr(threading, "excepthook", lambda *_: None)
        running = Running(rig.supervisor)
        wait_until(lambda: rig.supervisor.leads)

        def cut(job: Any) -> None:
            raise ConnectionError("cut in the middle of an update")

        monkeypatch.setattr(rig.scheduler._jobstores["default"], "update_job", cut)
        assert running.end(5.0) is Exit.SOFTWARE
        assert rig.scheduler.running
        assert "the scheduler no longer works (its thread has died)" in caplog.text
        wait_until(lambda: not leader_info(rig.link, NAMESPACE).owner, 5, message="another one leads at once")

    def test_scheduler_that_hangs_ends_the_process(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(watchdog, "SILENT_AFTER", 0.3)
        running = Running(rig.supervisor)
        wait_until(lambda: rig.supervisor.leads)
        with rig.scheduler._jobstores_lock:
            assert running.end(5.0) is Exit.SOFTWARE
        assert "the scheduler no longer works" in caplog.text

    def test_broker_that_is_away_is_nothing_to_end_for(
        self, make_rig: MakeRig, own_redis: PrivateRedis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watchdog, "SILENT_AFTER", 0.5)
        monkeypatch.setattr(watchdog, "LONGEST_LOOK", 0.1)
        rig = make_rig(own_redis.url, lease=0.5)
        running = Running(rig.supervisor)
        wait_until(lambda: rig.supervisor.leads)
        own_redis.kill()
        wait_until(lambda: not rig.supervisor.leads)
        assert running.goes_on
        own_redis.restart()
        wait_until(lambda: rig.supervisor.leads)
        running.signals.stop()
        assert running.end() is Exit.OK


def test_stop_is_safe_before_start(rig: Rig) -> None:
    rig.supervisor.stop()
    rig.supervisor.quiet()


def test_ticks_are_no_news(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rig.leading()
    wait_until(lambda: rig.sweeps >= 5)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("seawall")]
    assert ours == ["leads now (term 1)"]
