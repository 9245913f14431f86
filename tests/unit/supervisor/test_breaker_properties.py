"""Random histories of calls, trials, crashes and hands on the lever, with two processes and late results."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from seawall.supervisor.breaker import ForceClose, ForceOpen, Policy, PolicyChanged, Record, Reset, State, TimerEnded
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.view import BreakerView
from tests.support.clock import FixedClock

POLICIES = [Policy(3, 10.0, 4.0), Policy(2, 3.0, 8.0), Policy(1, 1.0, 1.0), Policy(4, 20.0, 15.0)]
PROCESSES = st.sampled_from([0, 1])


@dataclass(frozen=True)
class Running:
    """A call as its process remembers it."""

    started: float
    generation: int


@dataclass
class Trial:
    """A trial that was granted; `over` once its process has reported it."""

    id: str
    started: float
    until: float
    over: bool = False


class BreakerHistories(RuleBasedStateMachine):
    """Drives two views over one store on a fixed clock, beside a simple account of what ought to be so."""

    calls: Bundle[Running] = Bundle("calls")
    trials: Bundle[Trial] = Bundle("trials")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FixedClock()
        self.store = MemoryStore(self.clock)
        self.views = [BreakerView("chroma", "Chroma", self.store, grace_s=1.0) for _ in range(2)]
        for view in self.views:
            view.start()
        self.granted: list[Trial] = []
        self.shortest_timer = Record().recovery_timeout
        self.streak = 0
        self.streak_started = 0.0
        self.may_close = False
        self.seen = self.stored

    @property
    def stored(self) -> Record:
        return self.store.read("chroma")[0] or Record()

    @initialize(policy=st.sampled_from(POLICIES))
    def the_service_is_declared(self, policy: Policy) -> None:
        self.the_service_is_declared_anew(policy, 0)

    # -- calls -------------------------------------------------------------------------------------------------------

    @rule(target=calls, process=PROCESSES)
    def a_call_starts_if_it_may(self, process: int) -> object:
        view = self.views[process]
        admission = view.admit()
        assert admission.passes == (self.stored.state is State.CLOSED), "only a closed breaker lets calls pass"
        return Running(self.clock.time(), view.generation) if admission.passes else multiple()

    @rule(call=consumes(calls), process=PROCESSES)
    def a_call_fails_sooner_or_later(self, call: Running, process: int) -> None:
        before = self.stored
        if before.state is State.CLOSED and call.generation == before.generation:
            self.streak_started = self.streak_started if self.streak else self.clock.time()
            self.streak += 1
        after = self.views[process].failed(call.started, call.generation, "refused")
        if before.state is State.CLOSED and after.state is State.OPEN:
            assert self.streak >= before.failure_threshold, "it opened before the threshold"

    @precondition(lambda self: self.stored.state is State.CLOSED)
    @rule(process=PROCESSES)
    def calls_fail_until_it_opens(self, process: int) -> None:
        while self.stored.state is State.CLOSED:
            self.a_call_fails_sooner_or_later(Running(self.clock.time(), self.stored.generation), process)

    @rule(call=consumes(calls), process=PROCESSES)
    def a_call_succeeds_sooner_or_later(self, call: Running, process: int) -> None:
        before = self.stored
        counts = before.state is State.CLOSED and call.generation == before.generation
        if counts and call.started >= self.streak_started:
            self.streak = 0
        self.views[process].succeeded(call.started, call.generation)
        assert self.stored.state is before.state, "a call's success changes no state"

    # -- trials ------------------------------------------------------------------------------------------------------

    @rule(target=trials, process=PROCESSES, patient=st.booleans())
    def someone_wants_the_trial(self, process: int, patient: bool) -> object:
        if patient:
            self.clock.advance(max(0.0, self.stored.next_trial_at - self.clock.time()))
        now, before = self.clock.time(), self.stored
        id = f"trial-{len(self.granted)}"
        if not self.views[process].take_trial(id):
            return multiple()
        assert not before.forced
        assert not [trial for trial in self.granted if not trial.over and now < trial.until], "two trials at once"
        if self.granted:
            assert now - self.granted[-1].started >= self.shortest_timer, "two trials in too short a time"
        trial = Trial(id, now, now + before.trial_lease)
        self.granted.append(trial)
        self.shortest_timer = before.recovery_timeout
        return trial

    @rule(process=PROCESSES)
    def a_caller_takes_the_trial_only_when_admission_says_so(self, process: int) -> None:
        now, record = self.clock.time(), self.stored
        if self.views[process].admit().may_take_trial:
            assert now >= record.next_trial_at
            assert record.state is not State.CLOSED
            assert not record.forced

    @rule(trial=consumes(trials), process=PROCESSES)
    def a_trial_succeeds_sooner_or_later(self, trial: Trial, process: int) -> None:
        trial.over = True
        self.may_close = self.clock.time() < trial.until
        self.views[process].trial_succeeded(trial.id)

    @precondition(lambda self: self.stored.state is not State.CLOSED and not self.stored.forced)
    @rule(process=PROCESSES)
    def the_service_recovers(self, process: int) -> None:
        trial = self.someone_wants_the_trial(process, patient=True)
        if isinstance(trial, Trial):
            self.a_trial_succeeds_sooner_or_later(trial, process)
            assert self.stored.state is State.CLOSED

    @rule(trial=consumes(trials), process=PROCESSES, conclusive=st.booleans())
    def a_trial_ends_without_success(self, trial: Trial, process: int, conclusive: bool) -> None:
        trial.over = True
        before, view = self.stored, self.views[process]
        after = view.trial_failed(trial.id, "refused") if conclusive else view.trial_inconclusive(trial.id)
        if after.generation != before.generation:
            assert after.state is State.OPEN
            assert after.next_trial_at == self.clock.time() + after.recovery_timeout

    @rule(process=PROCESSES)
    def the_timer_is_looked_at(self, process: int) -> None:
        before = self.stored
        after = self.views[process].apply(TimerEnded())
        if after is not before and after.version != before.version:
            assert self.clock.time() >= before.next_trial_at
            assert (after.state, after.trial) == (State.HALF_OPEN, "")

    # -- the world ---------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 8.0, 20.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.stored.next_trial_at > self.clock.time())
    @rule(early=st.sampled_from([0.0, 0.25]))
    def the_timer_ends_or_almost(self, early: float) -> None:
        self.clock.advance(max(0.0, self.stored.next_trial_at - self.clock.time() - early))

    @precondition(lambda self: self.stored.trial_until > self.clock.time())
    @rule(early=st.sampled_from([0.0, 0.25]))
    def the_lease_ends_or_almost(self, early: float) -> None:
        self.clock.advance(max(0.0, self.stored.trial_until - self.clock.time() - early))

    @precondition(lambda self: len(self.granted) > 1)
    @rule(event=st.sampled_from([ForceOpen(), ForceClose(), Reset()]), process=PROCESSES)
    def someone_sets_it_by_hand(self, event: ForceOpen | ForceClose | Reset, process: int) -> None:
        """Rarely, and late in the history, or little else would happen."""
        self.may_close = not isinstance(event, ForceOpen)
        after = self.views[process].by_hand(event)
        if isinstance(event, ForceOpen):
            assert (after.state, after.forced) == (State.OPEN, True)
        else:
            assert (after.state, after.forced) == (State.CLOSED, False)
            self.streak = 0

    @rule(policy=st.sampled_from(POLICIES), process=PROCESSES)
    def the_service_is_declared_anew(self, policy: Policy, process: int) -> None:
        event = PolicyChanged(policy.failure_threshold, policy.recovery_timeout, policy.trial_lease)
        self.views[process].apply(event)
        self.shortest_timer = min(self.shortest_timer, policy.recovery_timeout)

    @precondition(lambda self: self.stored.version > 0)
    @rule(process=PROCESSES)
    def a_process_starts_anew(self, process: int) -> None:
        """Its view knows what the store holds, and nothing else."""
        self.views[process] = BreakerView("chroma", "Chroma", self.store, grace_s=1.0)
        self.views[process].start()

    # -- always ------------------------------------------------------------------------------------------------------

    @invariant()
    def every_change_of_state_is_a_new_generation(self) -> None:
        old, new = self.seen, self.stored
        assert new.generation >= old.generation
        assert new.version >= old.version
        if new.state is not old.state:
            assert new.generation > old.generation
        if old.state is not State.CLOSED and new.state is State.CLOSED:
            assert self.may_close, "closed by neither a live trial nor a hand"
        if new.generation != old.generation:
            self.streak = 0
        self.seen, self.may_close = new, False

    @invariant()
    def the_streak_is_counted_right(self) -> None:
        if self.stored.state is State.CLOSED:
            assert self.stored.failures == self.streak

    @invariant()
    def every_process_sees_what_is_stored(self) -> None:
        for view in self.views:
            assert view.record.version in (self.stored.version, 0)
            assert view.record.state is self.stored.state
            assert view.status()["state"] in ("closed", "open", "half_open")

    @invariant()
    def an_open_breaker_lets_nobody_pass(self) -> None:
        for view in self.views:
            if self.stored.state is not State.CLOSED:
                assert not view.admit().passes


TestBreakerHistories = BreakerHistories.TestCase
TestBreakerHistories.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
