"""The pytest plugin: the fixture `seawall`, for tests of applications that call services through Seawall.

    def test_search_falls_back(seawall, app):
        seawall.open("chroma")
        assert app.search("x")["source"] == "fallback"

    @responses.activate
    def test_snapshot_is_sent_later(seawall, app):
        responses.post("http://git:6005/snapshot/42")
        app.save_project("42")
        seawall.drain()
        assert [call.path for call in seawall.sent] == ["/snapshot/42"]

The fixture forces memory mode whatever the environment says. Every test has fresh breakers and queues, attempts follow
each other without backoff, and the clock stands in the test's hands: `advance(61)`. What is sent still goes out:
answer it with `responses`, `requests_mock`, a patched `requests.request`, or a server on loopback.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from seawall.actors.record import Call
    from seawall.supervisor.breaker import Event

__all__ = ["Harness", "Sent"]

#: Seconds that drain() waits at the most before it says what still runs.
DRAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One attempt that was sent. `path` has no query, `target` has; `headers` are those that the caller's call carries."""

    service: str
    method: str
    path: str
    target: str
    headers: dict[str, str]
    body: bytes
    waited: bool
    id: str

    @property
    def json(self) -> Any:
        """The body as JSON. Raises ValueError when it is none."""
        return json.loads(self.body)


class HandClock:
    """The wall clock, plus what the test has added."""

    def __init__(self) -> None:
        self.added = 0.0

    def time(self) -> float:
        return time.time() + self.added


class Harness:
    """What a test sees of Seawall."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._clock = HandClock()
        self._runtime = _runtime(self._clock, self._observe)

    def open(self, service: str) -> None:
        """Open the service's breaker: its callers are refused, its background calls are held, until close()."""
        from seawall.supervisor.breaker import ForceOpen

        self._by_hand(service, ForceOpen())

    def close(self, service: str) -> None:
        """Close the service's breaker; what was held is sent."""
        from seawall.supervisor.breaker import ForceClose

        self._by_hand(service, ForceClose())

    def advance(self, seconds: float) -> None:
        """Move the clock on: timers of breakers, delays and rounds, expiry."""
        self._clock.added += seconds
        if self._runtime.house is not None:
            self._runtime.house.time_has_passed()

    def drain(self, timeout: float = DRAIN_SECONDS) -> None:
        """Wait until every background call that may run has run. Held and delayed ones stay: close() or advance() first.

        Raises TimeoutError that says how many are left.
        """
        ends = time.monotonic() + timeout
        while left := self._left():
            if time.monotonic() > ends:
                raise TimeoutError(f"{left} call(s) still run or wait after {timeout} s")
            time.sleep(0.002)

    def _left(self) -> int:
        from seawall.actors.service import queue_names
        from seawall.runtime import registry
        from seawall.supervisor.breaker import State

        left = 0
        for service in registry.all():
            record = self._runtime.views.of(service).record
            waited, background = self._runtime.engine.queue.counts(queue_names(service.key))
            left += waited.ready + waited.leased + background.leased
            left += background.ready if record.state is State.CLOSED else 0
            left += record.state is State.HALF_OPEN and bool(record.trial)
        return left

    def _forget_calls(self) -> None:
        queue = self._runtime.engine.queue
        for name in queue.queues():
            queue.flush(name)

    def _by_hand(self, key: str, event: Event) -> None:
        from seawall.runtime import registry

        self._runtime.views.of(registry.get(key)).by_hand(event)

    def _observe(self, call: Call) -> None:
        self.sent.append(
            Sent(
                service=call.service,
                method=call.method,
                path=call.target.partition("?")[0],
                target=call.target,
                headers=dict(call.headers),
                body=call.body or b"",
                waited=call.waited,
                id=call.id,
            )
        )


def _runtime(clock: HandClock, observe: Any) -> Any:
    """A runtime in memory, whatever the environment says, with a clock of its own and no backoff."""
    from seawall.actors.engine import MEMORY_URL, engine_from_url
    from seawall.memory import LocalHouse
    from seawall.runtime import Runtime, registry
    from seawall.settings import load_settings

    class TestRuntime(Runtime):
        def _make_house(self, kind: type[LocalHouse]) -> LocalHouse:
            return kind(self.engine, self.views, self.token, registry, backoff=0.0, observe=observe)

    settings = load_settings({"broker_url": MEMORY_URL, "require_broker": False})
    return TestRuntime(settings, engine=engine_from_url(MEMORY_URL, clock=clock), alerts=False)


#: Runs of pytest that are under way, one within another: an application that declares schedules needs no broker then.
under_test = 0


def pytest_configure(config: pytest.Config) -> None:
    global under_test
    under_test += 1


def pytest_unconfigure(config: pytest.Config) -> None:
    global under_test
    under_test -= 1


@pytest.fixture
def seawall() -> Iterator[Harness]:
    """Seawall in memory, fresh for this test. See seawall.testing."""
    from seawall import runtime as runtimes

    declared = runtimes.registry.all()
    harness = Harness()
    before = runtimes.replace(harness._runtime)
    try:
        yield harness
    finally:
        runtimes.replace(before)
        harness._forget_calls()
        harness._runtime.close()
        runtimes.registry.restore(declared)
