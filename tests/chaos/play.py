"""Plays a plan: begins and ends each event at its time, starts again what has ended, and puts everything right at the end."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Mapping

from redis.exceptions import RedisError

from seawall.errors import BrokerUnavailable
from tests.chaos.members import Member
from tests.chaos.plan import SERVICES, WORKERS, Event, Plan
from tests.chaos.world import SHUTDOWN_MARGIN, SHUTDOWN_TIMEOUT, World

__all__ = ["Player"]

#: Seconds between two looks at processes that should run, and at the time.
LOOK_EVERY = 0.1

Step = Callable[[], None]
Doing = Callable[[Event, str], object]


class Player:
    """On the main thread only: a Redis that it starts again dies with the thread that started it."""

    def __init__(self, world: World, plan: Plan, say: Callable[[str], None] = lambda text: None) -> None:
        self._world = world
        self._plan = plan
        self._say = say
        self._steps: list[tuple[float, int, Step]] = []
        self._order = itertools.count()
        self._away: set[str] = set()
        """Members that shall not run now."""
        self.begun = 0.0
        """Monotonic time of the plan's start."""

    def play(self) -> None:
        """All events, and `plan.seconds` in all."""
        self.begun = time.monotonic()
        for event in self._plan.events:
            self._at(event.at, lambda event=event: self._begin(event))  # type: ignore[misc]
        self._at(self._plan.seconds, lambda: None)
        while self._steps:
            at, _, step = self._steps[0]
            left = self.begun + at - time.monotonic()
            if left > 0:
                time.sleep(min(left, LOOK_EVERY))
                self.look_after()
                continue
            heapq.heappop(self._steps)
            step()

    def restore(self) -> None:
        """As at the start: everybody runs, hears and is heard."""
        for proxy in self._world.proxies.values():
            proxy.refusing.clear()
            proxy.swallow.clear()
            proxy.delay = 0.0
            proxy.passing.set()
        self._world.redis.thaw()
        if self._world.redis.poll() is not None:
            self._world.redis.restart()
        self._world.fill_redis(full=False)
        for member in self._world.members.values():
            member.resume()
        for name in SERVICES:
            self._world.set_mode(name, "ok")
        for name in WORKERS:
            self._world.set_clock(name, 0.0)
        self._away.clear()

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Look after everybody until something is so, or until the time is over; whether it was so."""
        ends = time.monotonic() + seconds
        while not (so := until()) and time.monotonic() < ends:
            self.look_after()
            time.sleep(LOOK_EVERY)
        return so

    def send_away(self, member: Member) -> None:
        """A SIGTERM, and nobody takes its place."""
        self._away.add(member.name)
        member.terminate()

    def _at(self, at: float, step: Step) -> None:
        heapq.heappush(self._steps, (at, next(self._order), step))

    def _begin(self, event: Event) -> None:
        self._say(str(event))
        begin, end = self._actions()["redis " + event.action if event.targets == ("redis",) else event.action]
        self._each(begin, event)
        self._at(event.at + event.length, lambda: self._each(end, event))

    @staticmethod
    def _each(do: Doing, event: Event) -> None:
        for target in event.targets:
            do(event, target)

    def _actions(self) -> Mapping[str, tuple[Doing, Doing]]:
        world = self._world
        members, proxies, redis = world.members, world.proxies, world.redis
        return {
            "kill": (self._kill, self._back),
            "terminate": (self._terminate, self._back),
            "stop": (lambda _, name: members[name].stop(), lambda _, name: members[name].resume()),
            "skew": (lambda event, name: world.set_clock(name, event.amount), lambda _, name: world.set_clock(name, 0)),
            "mode": (lambda event, name: world.set_mode(name, event.mode), lambda _, name: world.set_mode(name, "ok")),
            "cut": (self._cut, lambda _, name: proxies[name].refusing.clear()),
            "silence": (lambda _, name: proxies[name].passing.clear(), lambda _, name: proxies[name].passing.set()),
            "lose": (lambda _, name: proxies[name].lose(), lambda *_: None),
            "swallow": (lambda _, name: proxies[name].swallow.set(), lambda _, name: proxies[name].swallow.clear()),
            "delay": (self._delay, lambda _, name: setattr(proxies[name], "delay", 0.0)),
            "redis kill": (lambda *_: redis.kill(), lambda *_: self._redis_is_back()),
            "redis terminate": (lambda *_: self._end_redis(), lambda *_: self._redis_is_back()),
            "redis stop": (lambda *_: redis.freeze(), lambda *_: redis.thaw()),
            "redis fill": (lambda *_: world.fill_redis(full=True), lambda *_: world.fill_redis(full=False)),
        }

    def _kill(self, _: Event, name: str) -> None:
        self._away.add(name)
        self._world.members[name].kill()

    def _terminate(self, _: Event, name: str) -> None:
        self._away.add(name)
        self._world.members[name].terminate()

    def _back(self, _: Event, name: str) -> None:
        """It may start again; after a SIGTERM as soon as it has ended."""
        self._away.discard(name)
        self.look_after()

    def _cut(self, event: Event, name: str) -> None:
        self._world.proxies[name].refusing.set()
        self._world.proxies[name].cut(reset=round(event.length * 1000) % 2 == 0)

    def _delay(self, event: Event, name: str) -> None:
        self._world.proxies[name].delay = event.amount

    def _end_redis(self) -> None:
        """A stop in good order."""
        with self._world.redis.client() as client:
            try:
                client.shutdown(nosave=True)
            except (RedisError, OSError):
                self._world.redis.kill()

    def _redis_is_back(self) -> None:
        try:
            self._world.redis.restart()
        except BrokerUnavailable as error:
            self._say(f"Redis does not start: {error}")
            self._world.redis.restart()

    def look_after(self) -> None:
        """Start what has ended and should run, as an init process would."""
        for name, member in self._world.members.items():
            if member.ended() and name not in self._away:
                member.start()
            elif member.runs and member.life.how == "terminated":
                self._insist(member)

    def _insist(self, member: Member) -> None:
        """A SIGTERM that is not obeyed in time is a failure."""
        life = member.life
        if time.monotonic() > life.asked + SHUTDOWN_TIMEOUT + SHUTDOWN_MARGIN:
            member.kill()
            life.how = "not on SIGTERM"
