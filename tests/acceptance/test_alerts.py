"""Alerts with real processes: supervisor, worker, a sick service and a receiver of webhooks on loopback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import seawall
from seawall.exits import Exit
from seawall.supervisor.alert_store import RedisAlertStore
from seawall.supervisor.breaker import Event, ForceClose, ForceOpen
from seawall.supervisor.view import BreakerView
from tests.acceptance.harness import Fleet, Program, opened, say
from tests.acceptance.shell import Ran, run
from tests.acceptance.test_secrets import every_value, every_write
from tests.support import Answer, CountingService, PrivateRedis, Request, wait_until

SECRET, TOKEN = "canary-signing-key-7be1", "canary-token-51ac"
HOOK = "/hooks/seawall"
#: Seconds that a breaker must stay closed in these tests.
SETTLE = 1.5
PATIENCE = 20.0

#: Functions that hear of alerts: one raises, one never comes back, one writes down what it was told.
LISTENERS = """
import threading, seawall

@seawall.on_alert
def raises(alert):
    raise RuntimeError("the pager is broken")

@seawall.on_alert
def hangs(alert):
    threading.Event().wait()

def note(alert):
    text = " ".join(["NOTED", alert["kind"], alert["service"], alert["summary"]])
    print(text + "\\n", end="", flush=True)  # in one piece
"""


class Watched:
    """A fleet with one service that can be stopped, and the receiver of its alerts."""

    def __init__(self, fleet: Fleet, service: CountingService, hook: CountingService) -> None:
        self.fleet, self.service, self.hook = fleet, service, hook
        self.view = BreakerView("chroma", "Chroma", fleet.engine.breakers)
        self.view.start()
        assert fleet.engine.link is not None
        self.store = RedisAlertStore(fleet.engine.link, fleet.namespace)

    def alerts(self, count: int) -> list[dict[str, Any]]:
        """So many alerts, as soon as they are there; each with a good signature."""
        return [verified(request) for request in self.hook.wait_for(count, path=HOOK, timeout=PATIENCE)]

    def settled(self) -> list[dict[str, Any]]:
        """All alerts, once nothing is under way and nothing on its way any more."""

        def quiet() -> bool:
            state = self.store.load().state
            return not (state.outages or state.outbox) and self.fleet.drained("seawall-alerts")

        wait_until(quiet, PATIENCE, message="alerts do not come to an end")
        return [verified(request) for request in self.hook.matching(HOOK)]

    def leader(self) -> Program:
        """The supervisor that does the leader's duties."""
        leader = self.fleet.of_pid(self.fleet.wait_for_leader())
        leader.expect("leads now")
        return leader

    def by_hand(self, event: Event) -> None:
        self.view.by_hand(event)

    def run(self, *words: str, **environ: str) -> Ran:
        return run(*words, folder=self.fleet.folder, environ=self.fleet.environ | environ)


def verified(request: Request) -> dict[str, Any]:
    alert = seawall.verify_alert(request.body, request.headers["x-seawall-signature"], SECRET)
    assert request.headers["idempotency-key"] == alert["id"]
    return alert


@contextmanager
def watched(folder: Path, url: str, *, listeners: str = "", **environ: str) -> Iterator[Watched]:
    with CountingService() as service, CountingService() as hook:
        about = {"url": service.url, "max_retries": 1, "failure_threshold": 2, "recovery_timeout": 0.5, "timeout": 2}
        settings = {
            "SEAWALL_ALERTS_WEBHOOK": f"{hook.url}{HOOK}?team=ops",
            "SEAWALL_ALERTS_SECRET": SECRET,
            "SEAWALL_ALERTS_SETTLE": str(SETTLE),
            "SEAWALL_INTERNAL_TOKEN": TOKEN,
            "SEAWALL_LOG_LEVEL": "debug",
        }
        with Fleet(folder, url, {"chroma": about}, environ=settings | environ) as fleet:
            with (fleet.folder / "services.py").open("a") as module:
                module.write(listeners)
            yield Watched(fleet, service, hook)


def test_an_outage_is_told_of_when_it_begins_and_when_it_is_over(tmp_path: Path, own_redis: PrivateRedis) -> None:
    with watched(tmp_path, own_redis.url) as it:
        _, supervisor = it.fleet.start(workers=1, supervisors=1)
        it.service.stop()
        it.fleet.enqueue("chroma", [f"/items/{n}" for n in range(20)])
        (begins,) = it.alerts(1)
        opened(it.fleet, "chroma")
        # Those that failed before it opened are no held calls until they are due again.
        wait_until(lambda: it.store.load().state.outages["chroma"].held >= 15, PATIENCE)
        it.service.start()
        ends = it.alerts(2)[1]
        everything = it.settled()
        with own_redis.client() as redis:
            stored = list(every_value(redis)) + list(every_write(own_redis))
        logs = [(program.log.name, program.log.read_bytes()) for program in it.fleet.programs]
        requests = it.hook.matching(HOOK)
        said = supervisor.expect("Chroma is", count=2)
    assert [alert["kind"] for alert in everything] == ["open", "close"]
    assert begins["summary"] == "Chroma is down: its circuit breaker opened (Connection failed: Connection refused)"
    assert (begins["version"], begins["service"], begins["service_name"]) == (1, "chroma", "Chroma")
    assert (begins["outage"]["ended"], begins["queue"], begins["dead"]) == (None, None, None)
    assert begins["outage"]["began"] == ends["outage"]["began"]
    assert ends["outage"]["seconds"] > 0
    assert 15 <= ends["outage"]["held"] <= 20
    assert ends["outage"]["began"] < ends["outage"]["ended"] < ends["at"]
    assert [(" WARNING " in line, " INFO " in line) for line in said] == [(True, False), (False, True)]
    assert all(request.query == "team=ops" for request in requests)
    assert not any("x-internal-token" in request.headers for request in requests), "a foreign host gets no token"
    assert {request.headers["x-internal-token"] for request in it.service.requests} == {TOKEN}
    assert any(b"Chroma is down" in data for _, data in stored), "the search sees what is stored"
    for where, data in [*stored, *logs]:
        assert SECRET.encode() not in data, where
        assert HOOK.encode() not in data, where
    say(f"told of the outage within {alert_delay(begins):.2f} s; {ends['summary']}")


def alert_delay(alert: dict[str, Any]) -> float:
    from datetime import datetime

    at, began = (datetime.fromisoformat(moment) for moment in (alert["at"], alert["outage"]["began"]))
    return (at - began).total_seconds()


def test_a_breaker_that_flaps_is_told_of_once(tmp_path: Path, redis_url: str) -> None:
    settle = "5"  # longer than anything stands still between two openings
    with watched(tmp_path, redis_url, SEAWALL_ALERTS_SETTLE=settle) as it:
        it.fleet.start(workers=1, supervisors=1)
        for _ in range(4):
            it.by_hand(ForceOpen())
            wait_until(lambda: it.hook.count(HOOK) >= 1, PATIENCE)
            it.by_hand(ForceClose())
        assert [alert["kind"] for alert in it.settled()] == ["open", "close"]


def test_a_leader_that_is_killed_before_it_told_is_made_up_for_once(tmp_path: Path, redis_url: str) -> None:
    with watched(tmp_path, redis_url) as it:
        it.fleet.start(workers=1, supervisors=2)
        leader = it.leader()
        leader.signal(signal.SIGSTOP)
        it.by_hand(ForceOpen())
        leader.kill()
        (alert,) = it.alerts(1)
        assert alert["outage"]["why"] == "by hand"
        second = it.fleet.of_pid(it.fleet.wait_for_leader(other_than=leader.pid))
        second.kill()
        it.fleet.start(supervisors=1)
        it.by_hand(ForceClose())
        assert [alert["kind"] for alert in it.settled()] == ["open", "close"]


def test_a_leader_that_was_paused_repeats_nothing(tmp_path: Path, redis_url: str) -> None:
    with watched(tmp_path, redis_url) as it:
        it.fleet.start(workers=1, supervisors=2)
        paused = it.leader()
        paused.signal(signal.SIGSTOP)
        it.by_hand(ForceOpen())
        it.alerts(1)
        paused.signal(signal.SIGCONT)
        paused.expect("leads no longer")
        it.by_hand(ForceClose())
        assert [alert["kind"] for alert in it.settled()] == ["open", "close"]


def test_a_webhook_that_is_down_gets_its_alert_later(tmp_path: Path, redis_url: str) -> None:
    with watched(tmp_path, redis_url) as it:
        (worker, _) = it.fleet.start(workers=1, supervisors=1)
        it.hook.stop()
        it.by_hand(ForceOpen())
        worker.expect("[Alerts webhook] Connection failed on attempt 1/3")
        it.hook.start()
        assert [alert["kind"] for alert in it.alerts(1)] == ["open"]


def test_dead_letters_and_a_queue_that_grows_are_told_of(tmp_path: Path, redis_url: str) -> None:
    with watched(tmp_path, redis_url, SEAWALL_ALERTS_QUEUE_DEPTH="10", SEAWALL_ALERTS_ON="queue_depth,dead") as it:
        it.fleet.start(supervisors=1)
        strange = CountingService()
        with strange:
            it.fleet.services = {"chroma": {"url": strange.url}}
            it.fleet.enqueue("chroma", [f"/{n}" for n in range(12)])  # of another origin: the worker rejects them
        wait_until(lambda: it.fleet.counts("seawall-alerts").ready >= 1, PATIENCE)
        it.fleet.start(workers=1)
        deep, dead = it.alerts(2)
    assert (deep["kind"], deep["queue"]["waiting"], deep["queue"]["limit"]) == ("queue_depth", 12, 10)
    assert (dead["kind"], dead["dead"]) == ("dead", {"count": 12, "reasons": {"rejected": 12}})


def test_functions_that_raise_or_hang_harm_nobody(tmp_path: Path, redis_url: str) -> None:
    with watched(tmp_path, redis_url, listeners=LISTENERS, SEAWALL_ALERTS_CALLABLE="services:note") as it:
        _, supervisor = it.fleet.start(workers=1, supervisors=1)
        it.by_hand(ForceOpen())
        supervisor.expect("NOTED open chroma Chroma gets no calls: its circuit breaker was opened by hand")
        supervisor.expect("services.raises raised an error; it goes on")
        it.by_hand(ForceClose())
        supervisor.expect("NOTED close chroma Chroma is back after")
        assert [alert["kind"] for alert in it.settled()] == ["open", "close"]
        supervisor.terminate()
        assert supervisor.wait() == Exit.OK


def test_the_command_tells_what_became_of_a_test_alert(tmp_path: Path, redis_url: str) -> None:
    with watched(tmp_path, redis_url) as it:
        alone = it.run("alerts", "test", "--timeout", "0.5")
        assert (alone.code, alone.err) == (Exit.UNAVAILABLE, "")
        assert "no worker serves the webhook: start one with the same [alerts] settings" in alone.out
        it.fleet.start(workers=1)
        good = it.run("alerts", "test")
        (alert,) = it.alerts(1)
        it.hook.script(HOOK, Answer(400))
        bad = it.run("alerts", "test")
        it.hook.script(HOOK, Answer(401))
        closed = it.run("alerts", "test")
    assert good.code == Exit.OK
    assert f"for {it.hook.url}, signed" in good.out
    assert "delivered: the webhook answered 200" in good.out
    assert (alert["kind"], alert["outage"]) == ("test", None)
    assert (bad.code, "refused: the webhook answered 400" in bad.out) == (Exit.FAILED, True)
    assert (closed.code, "not delivered: " in closed.out, "Answer 401" in closed.out) == (Exit.FAILED, True, True)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("SEAWALL_ALERTS_WEBHOOK", "http://ops:pw-9c@[::1", "is no URL"),
        ("SEAWALL_ALERTS_CALLABLE", "services:nobody", "cannot be imported"),
        ("SEAWALL_ALERTS_ON", "open,clsoe", "did you mean 'close'?"),
    ],
)
def test_check_finds_what_is_wrong_with_alerts(
    tmp_path: Path, redis_url: str, setting: str, value: str, words: str
) -> None:
    with watched(tmp_path, redis_url) as it:
        found = it.run("check", "services", "--show", **{setting: value})
    assert found.code == Exit.FAILED
    assert words in found.out
    for secret in (SECRET, "pw-9c", "team=ops"):
        assert secret not in found.out + found.err
