"""What a breaker costs a call: admission when closed, refusal when open. `python breaker_app.py LIBRARY WHERE TIMES`.

Prints the microseconds of each as JSON. What is measured is the library's own way of guarding a function that does nothing,
in its usual form; of Seawall, what a client asks before it queues a call.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable

#: Seconds that one measurement takes. Of several the best one counts: the others were disturbed.
SECONDS = 0.1

Guarded = tuple[Callable[[], object], Callable[[], object]]


def nothing() -> None:
    return None


def micros(call: Callable[[], object], times: int) -> float:
    call()
    count, best = 1, float("inf")
    while True:
        started = time.perf_counter()
        for _ in range(count):
            call()
        took = time.perf_counter() - started
        if took > SECONDS / 10:
            break
        count *= 4
    count = max(1, int(count * SECONDS / took))
    for _ in range(times):
        started = time.perf_counter()
        for _ in range(count):
            call()
        best = min(best, (time.perf_counter() - started) / count)
    return best * 1e6


def refused(call: Callable[[], object], error: type[BaseException]) -> Callable[[], object]:
    def guarded() -> None:
        try:
            call()
        except error:
            return
        raise AssertionError("not refused")

    return guarded


def _redis():
    import redis

    return redis.Redis.from_url(os.environ["BENCH_BROKER"])


def seawall(where: str) -> Guarded:
    """As a verb of the client does it before anything else; a refusal is the exception that its caller gets."""
    os.environ["SEAWALL_BROKER_URL"] = os.environ["BENCH_BROKER"] if where == "redis" else "memory://"
    from seawall import ResilientServiceClient, ServiceUnavailable, runtime
    from seawall.calling import admit
    from seawall.supervisor.breaker import ForceOpen

    closed, opened = (
        ResilientServiceClient(f"http://127.0.0.1:{port}", name, key=name).service
        for port, name in ((1, "closed"), (2, "opened"))
    )
    house = runtime.current()
    house.views.of(opened).by_hand(ForceOpen())
    view = house.views.of(closed)

    def guarded() -> None:
        admit(house, closed, "id")
        nothing()
        view.succeeded(0.0, view.generation)

    return guarded, refused(lambda: admit(house, opened, "id"), ServiceUnavailable)


def pybreaker(where: str) -> Guarded:
    import pybreaker as library

    def made(state: str) -> Callable[[], object]:
        storage = None
        if where == "redis":
            storage = library.CircuitRedisStorage(state, _redis(), namespace=state)
        breaker = library.CircuitBreaker(fail_max=5, reset_timeout=3600, state_storage=storage)
        if state == library.STATE_OPEN:
            breaker.open()
        return breaker(nothing)

    return made(library.STATE_CLOSED), refused(made(library.STATE_OPEN), library.CircuitBreakerError)


def interlock(where: str) -> Guarded:
    import interlock as library

    def made(name: str) -> tuple[object, Callable[[], object]]:
        storage = None
        if where == "redis":
            from interlock.integrations.redis import RedisStorage

            storage = RedisStorage(_redis())
        breaker = library.CircuitBreaker(name=name, storage=storage) if storage else library.CircuitBreaker(name=name)
        return breaker, breaker(nothing)

    opened, guarded = made("opened")
    opened.force_open()
    return made("closed")[1], refused(guarded, library.CircuitOpenError)


def circuitbreaker(where: str) -> Guarded:
    import circuitbreaker as library

    opened = library.CircuitBreaker(failure_threshold=1, recovery_timeout=3600, name="opened")

    @opened
    def fails() -> None:
        raise OSError("down")

    with contextlib.suppress(OSError):
        fails()
    return library.CircuitBreaker(name="closed")(nothing), refused(fails, library.CircuitBreakerError)


def purgatory(where: str) -> Guarded:
    from purgatory import SyncCircuitBreakerFactory
    from purgatory.domain.model import OpenedState
    from purgatory.service._sync.unit_of_work import SyncRedisUnitOfWork

    work = SyncRedisUnitOfWork(os.environ["BENCH_BROKER"]) if where == "redis" else None
    factory = SyncCircuitBreakerFactory(default_threshold=1, default_ttl=3600, uow=work)
    factory.initialize()

    @factory("opened")
    def fails() -> None:
        raise OSError("down")

    with contextlib.suppress(OSError):
        fails()
    return factory("closed")(nothing), refused(fails, OpenedState)


LIBRARIES = {made.__name__: made for made in (seawall, pybreaker, interlock, circuitbreaker, purgatory)}

if __name__ == "__main__":
    admit, refuse = LIBRARIES[sys.argv[1]](sys.argv[2])
    times = int(sys.argv[3])
    print(json.dumps({"admission_us": micros(admit, times), "refusal_us": micros(refuse, times)}), flush=True)
    os._exit(0)  # threads of a library do not matter any more
