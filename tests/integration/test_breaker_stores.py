"""What every breaker store promises, kept by the one in memory and by the one in Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import msgspec
import pytest

from seawall.redis_link import RedisLink
from seawall.supervisor.breaker import Policy, Record, State
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.redis_store import RedisStore
from seawall.supervisor.store import BreakerStore, Swap
from seawall.supervisor.view import BreakerView
from tests.support.threads import run_together
from tests.support.waiting import wait_until

Another = Callable[[], BreakerStore]

FULL = Record(
    version=1,
    generation=8,
    state=State.HALF_OPEN,
    failures=5,
    streak_started=1000.25,
    streak=("a1b2c3d4",),
    opened_at=1001.5,
    next_trial_at=1061.5,
    trial="health:0",
    trial_until=1016.5,
    forced=True,
    last_error="500 Server Error: für /query",
    changed_at=1001.5,
    failure_threshold=3,
    recovery_timeout=30.5,
    trial_lease=7.25,
    recovered_at=900.5,
    slow_start=4.5,
    stumbles=1,
)


@pytest.fixture(params=["memory", "redis"])
def another(request: pytest.FixtureRequest) -> Iterator[Another]:
    """Opens the same store anew, as another process would."""
    opened: list[BreakerStore] = []
    if request.param == "memory":
        shared = MemoryStore()
        make: Another = lambda: shared  # noqa: E731  a fixture's two branches read best side by side
    else:
        url = request.getfixturevalue("redis_url")
        make = lambda: RedisStore(RedisLink(url), "test")  # noqa: E731

    def open_one() -> BreakerStore:
        opened.append(make())
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
        if isinstance(store, RedisStore):
            store._link.close()


@pytest.fixture
def store(another: Another) -> BreakerStore:
    return another()


def put(store: BreakerStore, record: Record, *, over: int = 0, key: str = "chroma") -> Record:
    """Store it. Tried again where this process stood still between the two for longer than clocks may differ."""

    def one_try() -> Swap | None:
        now = store.read(key)[1]
        swap = store.swap(key, over, record, now)
        return swap if swap.ok or swap.current.version != over else None

    swap = wait_until(one_try)
    assert swap is not None
    assert swap.ok
    return swap.current


class TestReading:
    def test_a_breaker_that_was_never_stored_is_none(self, store: BreakerStore) -> None:
        record, now = store.read("chroma")

        assert record is None
        assert now == pytest.approx(time.time(), abs=5)

    def test_every_field_comes_back_as_it_was_stored(self, store: BreakerStore, another: Another) -> None:
        assert put(store, FULL) == FULL
        assert another().read("chroma")[0] == FULL

    def test_read_all_finds_every_breaker(self, store: BreakerStore) -> None:
        assert store.read_all() == {}
        put(store, FULL)
        put(store, Record(failures=1), key="git")

        assert store.read_all() == {"chroma": FULL, "git": Record(version=1, failures=1)}

    def test_now_is_the_servers_clock(self, store: BreakerStore) -> None:
        _, before = store.read("chroma")
        now = store.now()
        _, after = store.read("chroma")

        assert before - 0.05 <= now <= after + 0.05


class TestSwapping:
    def test_the_store_counts_the_versions(self, store: BreakerStore) -> None:
        first = put(store, Record(version=77, failures=1))
        second = put(store, Record(failures=2), over=1)

        assert (first.version, second.version) == (1, 2)

    def test_a_stale_version_is_refused_and_told_what_is_stored(self, store: BreakerStore) -> None:
        put(store, FULL)
        swap = store.swap("chroma", 0, Record(failures=1), store.now())

        assert not swap.ok
        assert swap.current == FULL
        assert store.read("chroma")[0] == FULL

    def test_what_was_never_stored_is_version_0(self, store: BreakerStore) -> None:
        swap = store.swap("chroma", 3, Record(failures=1), store.now())

        assert (swap.ok, swap.current) == (False, Record())

    @pytest.mark.parametrize("off", [-30.0, -5.0, 5.0, 30.0])
    def test_a_transition_that_was_computed_with_the_wrong_time_is_refused(
        self, store: BreakerStore, off: float
    ) -> None:
        """The answer holds the right time, so the next try succeeds."""
        swap = store.swap("chroma", 0, FULL, store.read("chroma")[1] + off)
        assert not swap.ok
        assert store.read("chroma")[0] is None

        assert put(store, FULL) == FULL
        assert swap.now == pytest.approx(store.now(), abs=4)

    def test_of_8_threads_of_2_processes_one_wins_each_version(self, another: Another) -> None:
        won: list[int] = []

        def count_up(store: BreakerStore) -> None:
            for _ in range(10):
                record, now = store.read("chroma")
                version = record.version if record else 0
                if store.swap("chroma", version, Record(failures=version + 1), now).ok:
                    won.append(version + 1)

        stores = [another(), another()]
        run_together([partial(count_up, store) for store in stores for _ in range(8)])

        stored = stores[0].read("chroma")[0]
        assert stored is not None
        assert sorted(won) == list(range(1, stored.version + 1))
        assert stored.failures == stored.version


class TestAnnouncing:
    def test_every_swap_reaches_every_process_with_the_stored_record(self, another: Another) -> None:
        heard: list[tuple[str, str, Record]] = []
        stores = {"a": another(), "b": another()}
        for name, store in stores.items():
            follow(store, lambda key, record, name=name: heard.append((name, key, record)))  # type: ignore[misc]
        put(stores["a"], FULL)

        wait_until(lambda: len(heard) == 2)
        assert sorted(heard) == [("a", "chroma", FULL), ("b", "chroma", FULL)]

    def test_they_come_in_order(self, store: BreakerStore, another: Another) -> None:
        versions: list[int] = []
        follow(another(), lambda key, record: versions.append(record.version))
        for version in range(20):
            put(store, Record(failures=version), over=version)

        wait_until(lambda: len(versions) == 20)
        assert versions == list(range(1, 21))

    def test_a_refused_swap_is_not_announced(self, store: BreakerStore) -> None:
        heard: list[Record] = []
        follow(store, lambda key, record: heard.append(record))
        store.swap("chroma", 5, FULL, store.now())
        put(store, Record(failures=1))

        wait_until(lambda: heard)
        assert heard == [Record(version=1, failures=1)]

    def test_after_closing_nothing_is_announced(self, store: BreakerStore, another: Another) -> None:
        heard: list[Record] = []
        follow(store, lambda key, record: heard.append(record))
        store.close()
        store.close()
        put(another(), FULL)

        assert heard == []

    def test_who_comes_after_closing_starts_nothing(self, another: Another) -> None:
        store = another()
        store.close()
        before = set(threading.enumerate())
        store.subscribe(lambda key, record: None)
        assert not {thread for thread in threading.enumerate() if thread.name == "seawall-announcements"} - before

    def test_a_store_that_nobody_listened_to_closes_too(self, store: BreakerStore) -> None:
        store.close()

    def test_what_is_known_is_confirmed_while_announcements_flow(self, store: BreakerStore) -> None:
        follow(store, lambda key, record: None)
        _, now = store.read("chroma")

        wait_until(lambda: store.confirmed_at() >= now - 1)


class TestViews:
    """The same, as views use it: two processes that share a breaker."""

    def test_a_trip_reaches_the_other_process_without_being_asked_for(self, another: Another) -> None:
        ours, theirs = (viewed(another()) for _ in range(2))
        for _ in range(3):
            ours.failed(ours._store.now(), ours.generation, "refused")

        wait_until(lambda: not ours.admit().passes)
        wait_until(lambda: not theirs.admit().passes)
        assert theirs.record == ours.record

    def test_failures_of_4_processes_with_8_threads_each_all_count(self, another: Another) -> None:
        views = [viewed(another(), Policy(failure_threshold=10_000)) for _ in range(4)]

        def fail(view: BreakerView) -> None:
            for _ in range(4):
                view.failed(view._store.now(), 0, "refused")

        run_together([partial(fail, view) for view in views for _ in range(8)])

        wait_until(lambda: [view.record.failures for view in views] == [128] * 4)

    def test_16_callers_of_2_processes_want_the_trial_and_one_gets_it(self, another: Another) -> None:
        views = [viewed(another()) for _ in range(2)]
        now = views[0]._store.now()
        put(views[0]._store, Record(state=State.OPEN, generation=1, next_trial_at=now - 5))
        wait_until(lambda: all(view.admit().may_take_trial for view in views))
        wins: list[str] = []
        run_together([partial(want, view, f"{n}-{t}", wins) for n, view in enumerate(views) for t in range(8)])

        assert len(wins) == 1
        wait_until(lambda: [view.record.trial for view in views] == wins * 2)
        assert views[0].record.next_trial_at == pytest.approx(now + 60, abs=20)

    def test_the_next_trial_is_a_recovery_timeout_after_the_last_one_whoever_takes_it(self, another: Another) -> None:
        """Two processes try as hard as they can; every trial is lost with its process."""
        policy = Policy(failure_threshold=1, recovery_timeout=0.3, trial_lease=0.1)
        views = [viewed(another(), policy, grace_s=0.0) for _ in range(2)]
        views[0].failed(views[0]._store.now(), 0, "refused")
        trials: list[tuple[float, float]] = []
        enough = threading.Event()

        def hammer(view: BreakerView, name: str) -> None:
            while not enough.is_set():
                called = time.monotonic()
                if view.take_trial(f"{name}-{called}"):
                    trials.append((called, time.monotonic()))
                    if len(trials) >= 3:
                        enough.set()

        run_together([partial(hammer, view, str(number)) for number, view in enumerate(views)])

        at_most = [granted - called for (called, _), (_, granted) in pairwise(sorted(trials))]
        assert min(at_most) >= 0.3 - 0.01, "allowing for what is not known of the server's clock"

    def test_a_worker_reports_a_trial_that_another_process_took(self, another: Another) -> None:
        supervisor, worker = (viewed(another()) for _ in range(2))
        put(supervisor._store, Record(state=State.OPEN, generation=1, next_trial_at=1.0))
        supervisor.refresh()
        assert supervisor.take_trial("call-1")

        assert worker.trial_succeeded("call-1").state is State.CLOSED
        wait_until(lambda: supervisor.state is State.CLOSED)


def viewed(store: BreakerStore, policy: Policy | None = None, grace_s: float = 1.0) -> BreakerView:
    """A started view that hears announcements."""
    view = BreakerView("chroma", "Chroma Server", store, policy or Policy(failure_threshold=3), grace_s)
    view.start()
    wait_until(store.confirmed_at)
    return view


def want(view: BreakerView, id: str, wins: list[str]) -> None:
    if view.take_trial(id):
        wins.append(id)


def follow(store: BreakerStore, announced: Callable[[str, Record], None]) -> None:
    """Subscribe, and wait until announcements flow."""
    store.subscribe(announced)
    wait_until(store.confirmed_at)


def test_the_full_record_leaves_no_field_at_its_default() -> None:
    """So that a field which is added later is added to the test above too."""
    defaults = msgspec.structs.asdict(Record())

    assert [name for name, value in msgspec.structs.asdict(FULL).items() if value == defaults[name]] == []
