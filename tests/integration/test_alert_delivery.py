"""From a judged alert to its receivers: stored before it is delivered, queued once, and nobody holds up the round."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import requests
from msgspec.structs import replace

import seawall
from seawall import alerts as functions
from seawall import runtime as runtimes
from seawall.actors.engine import MEMORY_URL
from seawall.actors.service import Service, queue_names
from seawall.actors.token import TokenSource
from seawall.actors.transport import Transport
from seawall.alert_hook import ALERTS_KEY, PLACEHOLDER, alert_service
from seawall.alerting import Delivery, look, make_alerts, rules_of, send
from seawall.alerts import MOST_WAITING, Listener
from seawall.errors import BrokerUnavailable, CallFailed, QueueFull
from seawall.redis_link import RedisLink
from seawall.runtime import Runtime
from seawall.settings import load_settings
from seawall.supervisor.alert_store import BATCH, AlertStore, MemoryAlertStore, RedisAlertStore
from seawall.supervisor.alert_words import Alert
from seawall.supervisor.alerting import Rules, State
from seawall.supervisor.alerts import Alerts
from seawall.supervisor.breaker import ForceClose, ForceOpen, Record
from seawall.supervisor.breaker import State as BreakerState
from seawall.supervisor.redis_store import RedisStore
from seawall.supervisor.view import BreakerView
from tests.integration.stores import set_record
from tests.support import Answer, CountingService, PrivateRedis, wait_until
from tests.support.house import RemoteHouse, caller, no_services

HOOK = "/hook"
SECRET = "hush-3f"


@pytest.fixture
def hook() -> Iterator[CountingService]:
    with CountingService() as running:
        yield running


@pytest.fixture(autouse=True)
def own_functions() -> Iterator[None]:
    before = functions.declared_functions()
    yield
    functions.restore(before)


@pytest.fixture
def house(redis_url: str, hook: CountingService) -> Iterator[Runtime]:
    """This process as a supervisor's, with a webhook; nobody works yet."""
    with no_services(), caller(redis_url) as plain:
        settings = load_settings(
            {
                "broker_url": redis_url,
                "alerts_webhook": hook.url + HOOK,
                "alerts_secret": SECRET,
                "alerts_settle": 0.0,
                "alerts_on": ("open", "close"),
            }
        )
        runtime = Runtime(settings)
        runtimes.replace(runtime)
        yield runtime
        runtimes.replace(plain)
        runtime.close()


def breaker(house: Runtime) -> BreakerView:
    view = BreakerView("chroma", "Chroma", house.engine.breakers)
    view.start()
    return view


def queued(house: Runtime) -> int:
    return house.engine.queue.counts(queue_names(ALERTS_KEY))[1].ready


class Died(BaseException):
    """As `kill -9` would: nothing more is done by this leader."""


def rounds(house: Runtime, deliver: Any) -> Alerts:
    assert house.engine.link is not None
    store = RedisAlertStore(house.engine.link, house.settings.namespace)
    return Alerts(store, rules_of(house.settings), look=lambda: look(house, runtimes.registry), deliver=deliver)


@pytest.mark.parametrize("when", ["before it is queued", "after it was queued"])
def test_a_leader_that_dies_while_it_delivers_is_made_up_for_once(house: Runtime, when: str) -> None:
    delivery = Delivery(house.settings)

    def dies(alert: Alert) -> None:
        if when == "after it was queued":
            delivery(alert)
        raise Died

    rounds(house, dies).round()
    breaker(house).by_hand(ForceOpen())
    with pytest.raises(Died):
        rounds(house, dies).round()
    for _ in range(3):
        rounds(house, delivery).round()
    assert queued(house) == 1


def test_what_a_broker_that_is_away_did_not_take_is_delivered_later(house: Runtime) -> None:
    delivery, told = Delivery(house.settings), []
    away = True

    def deliver(alert: Alert) -> None:
        if away:
            raise BrokerUnavailable("away")
        told.append(alert.id)
        delivery(alert)

    alerts = rounds(house, deliver)
    alerts.round()
    breaker(house).by_hand(ForceOpen())
    alerts.round()
    assert (told, queued(house)) == ([], 0)
    away = False
    alerts.round()
    alerts.round()
    assert (len(told), queued(house)) == (1, 1)


def test_a_full_server_keeps_the_alert_until_there_is_room(own_redis: PrivateRedis, hook: CountingService) -> None:
    """Functions and the log have it at once, and once, whatever leader tries again."""
    heard: list[dict[str, Any]] = []
    seawall.on_alert(heard.append)
    settings = {"broker_url": own_redis.url, "alerts_webhook": hook.url + HOOK, "alerts_on": ("open",)}
    with no_services(), caller(own_redis.url) as plain, own_redis.client() as inside:
        house = Runtime(load_settings(settings))
        runtimes.replace(house)
        try:
            make_alerts(house, runtimes.registry).round()
            breaker(house).by_hand(ForceOpen())
            inside.config_set("maxmemory", "1mb")
            for _ in range(3):
                make_alerts(house, runtimes.registry).round()
            wait_until(lambda: len(heard) >= 1)
            assert queued(house) == 0
            inside.config_set("maxmemory", "0")
            for _ in range(2):
                make_alerts(house, runtimes.registry).round()
            assert queued(house) == 1
        finally:
            runtimes.replace(plain)
            house.close()
    assert [alert["kind"] for alert in heard] == ["open"]
    assert "told" not in heard[0]


def test_an_alert_waits_for_room_until_nobody_wants_it_any_more(caplog: pytest.LogCaptureFixture) -> None:
    now, tried = 1000.0, list[bool]()
    store = MemoryAlertStore(lambda: now)

    def full(alert: Alert) -> None:
        tried.append(alert.told)
        raise QueueFull("full")

    alerts = Alerts(store, Rules(), look=dict, deliver=full, keep=60.0)
    old = Alert(id="old", kind="open", service="chroma", service_name="Chroma", at=now)
    young = Alert(id="young", kind="close", service="chroma", service_name="Chroma", at=now + 30)
    assert store.save(0, State(looked=True, outbox=(old, young)))
    alerts.round()
    alerts.round()
    assert tried == [False, False, True], "one attempt a round is enough, once all are told"
    now += 60
    alerts.round()
    assert [(alert.id, alert.told) for alert in store.load().state.outbox] == [("young", True)]
    now += 30
    alerts.round()
    assert store.load().state.outbox == ()
    assert caplog.text.count("alert old waits for room") == 1
    assert "alert old goes to no webhook" in caplog.text


def test_the_webhook_gets_a_signature_and_no_token(house: Runtime, hook: CountingService) -> None:
    alerts = make_alerts(house, runtimes.registry)
    alerts.round()
    view = breaker(house)
    view.by_hand(ForceOpen())
    alerts.round()
    view.by_hand(ForceClose())
    alerts.round()
    alerts.round()
    with RemoteHouse(house.settings.broker_url, token=TokenSource(value="tok"), supervised=False):
        arrived = hook.wait_for(2, path=HOOK)
    told = [seawall.verify_alert(r.body, r.headers["x-seawall-signature"], SECRET) for r in arrived]
    assert sorted(alert["kind"] for alert in told) == ["close", "open"]
    assert not any("x-internal-token" in request.headers for request in arrived)


def test_the_webhooks_path_is_the_workers_secret(
    house: Runtime, hook: CountingService, caplog: pytest.LogCaptureFixture
) -> None:
    alert = Alert(id="a", kind="open", service="chroma", service_name="Chroma", at=1.5)
    with RemoteHouse(house.settings.broker_url, supervised=False):
        handle = send(house.settings, alert, rounds=1, keep_result=60.0)
        answer: requests.Response = handle.result(20.0)
        hook.wait_for(1, path=HOOK)
        hook.script(HOOK, Answer(308, headers={"Location": f"https://127.0.0.9{HOOK}"}))
        moved: requests.Response = send(house.settings, replace(alert, id="c"), rounds=1, keep_result=60.0).result(20.0)
        hook.stop()
        lost = send(house.settings, replace(alert, id="b"), rounds=1, keep_result=60.0)
        with pytest.raises(CallFailed) as caught:
            lost.result(20.0)
    assert answer.url == hook.url + PLACEHOLDER
    assert (moved.status_code, HOOK in str(moved.headers)) == (308, False)
    assert "redirect to another origin, which is not told: not followed" in caplog.text
    assert HOOK not in str(caught.value) + caplog.text


def test_a_service_may_be_spared_the_token(service: CountingService) -> None:
    from seawall.actors.record import Call

    for spared in (False, True):
        about = Service(key="far", name="Far", base_url=service.url, internal_token=not spared)
        transport = Transport(about, TokenSource(value="tok"))
        call = Call(
            id="1",
            service="far",
            origin=about.origin,
            method="GET",
            target=f"/{spared}",
            headers=(("X-Internal-Token", "left over"),),
        )
        transport.send(call)
        transport.close()
    first, second = service.requests
    assert first.headers["x-internal-token"] == "tok"
    assert "x-internal-token" not in second.headers


def test_dead_letters_and_queues_are_seen(house: Runtime, service: CountingService) -> None:
    client = seawall.ResilientServiceClient(service.url, service_name="Chroma", max_retries=1)
    for n in range(3):
        client.enqueue("POST", f"/{n}")
    sight = look(house, runtimes.registry)["chroma"]
    assert (sight.name, sight.waiting, sight.held, dict(sight.dead)) == ("Chroma", 3, 0, {})
    breaker(house).by_hand(ForceOpen())
    sight = look(house, runtimes.registry)["chroma"]
    assert (sight.state, sight.held, sight.why, sight.paused) == ("open", 3, "by hand", False)
    house.engine.queue.pause(queue_names("chroma")[1], "chroma")
    assert look(house, runtimes.registry)["chroma"].paused


class Stores:
    """The two stores, each with a way to note a transition."""

    def __init__(self, kind: str, url: str) -> None:
        self.link = RedisLink(url)
        self._memory = MemoryAlertStore()
        self.store: AlertStore = self._memory if kind == "memory" else RedisAlertStore(self.link, "sea")
        self._breakers = RedisStore(self.link, "sea")

    def note(self, state: BreakerState) -> None:
        if isinstance(self.store, MemoryAlertStore):
            self._memory.changed("chroma", state.value, 5.0, "refused")
            return
        set_record(self._breakers, "chroma", lambda *_: Record(state=state, last_error="refused"))


@pytest.fixture(params=["memory", "redis"])
def stores(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Stores]:
    made = Stores(request.param, redis_url)
    yield made
    made.link.close()


def test_a_state_is_stored_once_for_each_version(stores: Stores) -> None:
    store = stores.store
    first = store.load()
    assert first.version == 0
    alert = Alert(id="a", kind="open", service="chroma", service_name="Chroma", at=1.5, summary="déjà vu")
    state = State(after="0-0", looked=True, high=("queue_age chroma",), outbox=(alert,))
    assert store.save(0, state)
    assert not store.save(0, State())
    assert store.load()[:2] == (state, 1)


def test_transitions_come_in_their_order_after_the_one_that_was_handled(stores: Stores) -> None:
    store = stores.store
    after = store.load().state.after
    for state in (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED):
        stores.note(state)
    found = store.transitions(after)
    assert [(one.service, one.to, one.why) for one in found] == [
        ("chroma", state, "refused") for state in ("open", "half_open", "closed")
    ]
    assert store.transitions(found[0].id) == found[1:]
    assert store.transitions(found[-1].id) == []
    assert found[0].began > 0


def test_the_first_state_begins_after_what_happened_before(redis_url: str) -> None:
    stores = Stores("redis", redis_url)
    stores.note(BreakerState.OPEN)
    assert stores.store.transitions(stores.store.load().state.after) == []
    stores.link.close()


def test_a_state_that_cannot_be_read_is_begun_anew(redis_url: str) -> None:
    link = RedisLink(redis_url)
    link.command("HSET", "sea:alerts", "v", 7, "state", b"\xff")
    store = RedisAlertStore(link, "sea")
    state, version, _ = store.load()
    assert (state, version) == (State(after="0-0"), 7)
    assert store.save(7, State(looked=True))
    link.close()


def test_a_function_that_hangs_misses_alerts_and_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    release, heard = threading.Event(), []

    def hangs(alert: dict[str, Any]) -> None:
        release.wait()
        heard.append(alert["id"])

    listener = Listener(hangs)
    with caplog.at_level(logging.ERROR, "seawall.alerts"):
        for n in range(MOST_WAITING + 20):
            listener.tell({"id": f"a{n}"})
    release.set()
    listener.flush(5.0)
    assert MOST_WAITING <= len(heard) <= MOST_WAITING + 1
    assert "was not given to" in caplog.text


def test_a_round_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryAlertStore()

    def fails() -> Any:
        raise RuntimeError("no look")

    alerts = Alerts(store, Rules(), look=fails, deliver=lambda alert: None)
    store.away = True
    alerts.round()
    store.away = False
    alerts.round()
    assert "the broker (alerts) is away" in caplog.text
    assert "alerts could not be looked at" in caplog.text


def test_a_url_with_a_password_and_a_query_is_taken_apart() -> None:
    settings = load_settings({"alerts_webhook": "https://ops:pw@example.com/a/b?c=d", "alerts_secret": SECRET})
    service = alert_service(settings)
    assert service is not None
    assert (service.base_url, service.base_path) == ("https://ops:pw@example.com", "")
    assert (service.internal_token, service.expires_in) == (False, 86400.0)
    assert SECRET not in repr(service) + repr(settings)
    assert "pw" not in repr(settings) + str(settings.rows())
    assert "c=d" not in str(settings.rows())


def test_memory_mode_tells_functions_and_the_webhook(hook: CountingService, service: CountingService) -> None:
    heard: list[dict[str, Any]] = []
    seawall.on_alert(heard.append)
    settings = load_settings({"alerts_webhook": hook.url + HOOK, "alerts_secret": SECRET, "alerts_settle": 0.0})
    with no_services():
        runtime = Runtime(settings)
        before = runtimes.replace(runtime)
        try:
            client = seawall.ResilientServiceClient(service.url, service_name="Chroma")
            client.get("/")
            view = runtime.views.of(client.service)
            view.by_hand(ForceOpen())
            view.by_hand(ForceClose())
            wait_until(lambda: len(heard) == 2)
            arrived = hook.wait_for(2, path=HOOK)
        finally:
            runtimes.replace(before)
            runtime.close()
    assert [(alert["kind"], alert["service"]) for alert in heard] == [("open", "chroma"), ("close", "chroma")]
    assert {request.headers["idempotency-key"] for request in arrived} == {alert["id"] for alert in heard}


def test_memory_modes_store_keeps_the_newest_and_counts_on() -> None:
    store = MemoryAlertStore()
    for n in range(BATCH + 5):
        store.changed(f"s{n}", "open", 5.0, "refused")
    found = store.transitions("")
    assert (len(found), found[-1].service) == (BATCH, f"s{BATCH + 4}")
    store.changed("last", "open", 5.0, "refused")
    assert [news.service for news in store.transitions(found[-1].id)] == ["last"]


def test_memory_mode_tells_a_late_function_nothing_of_old_outages(service: CountingService) -> None:
    heard: list[dict[str, Any]] = []
    functions.restore([])
    with caller(MEMORY_URL, alerts_settle=0.0) as runtime:
        client = seawall.ResilientServiceClient(service.url, service_name="Chroma")
        client.get("/")
        view = runtime.views.of(client.service)
        view.by_hand(ForceOpen())
        view.by_hand(ForceClose())
        assert runtime._alerts is not None
        assert runtime._alerts._store is None, "nobody wants to hear of it"
        seawall.on_alert(heard.append)
        other = seawall.ResilientServiceClient(service.url, service_name="Git", key="git")
        runtime.views.of(other.service).by_hand(ForceOpen())
        wait_until(lambda: len(heard) >= 1)
    assert [(alert["kind"], alert["service"]) for alert in heard] == [("open", "git")]


def test_memory_mode_says_that_a_callable_cannot_be_imported(
    service: CountingService, caplog: pytest.LogCaptureFixture
) -> None:
    with caller(MEMORY_URL, alerts_callable="no_such_module_7:tell"):
        seawall.ResilientServiceClient(service.url, service_name="Chroma").get("/")
        wait_until(lambda: "alerts.callable 'no_such_module_7:tell' cannot be imported" in caplog.text)


def test_an_embedded_file_key_is_used(tmp_path: Path, redis_server: PrivateRedis, hook: CountingService) -> None:
    """`secret_file` of the table, relative to the file's folder."""
    (tmp_path / "key").write_text("from a file\n")
    (tmp_path / "seawall.toml").write_text(f'[alerts]\nwebhook = "{hook.url}/x"\nsecret_file = "key"\non = ["open"]\n')
    settings = load_settings({}, {}, tmp_path)
    service = alert_service(settings)
    assert service is not None
    assert service.signing is not None
    header = service.signing.headers(b"{}")["X-Seawall-Signature"]
    assert seawall.verify_alert(b"{}", header, "from a file") == {}
    assert settings.alerts_on == ("open",)


def test_under_a_mock_nothing_is_told(monkeypatch: pytest.MonkeyPatch, hook: CountingService) -> None:
    """A test that counts the calls of its mock finds its own, and no outage of a test reaches a webhook."""
    heard: list[dict[str, Any]] = []
    seawall.on_alert(heard.append)
    monkeypatch.setenv("SEAWALL_ALERTS_WEBHOOK", hook.url + HOOK)
    monkeypatch.setenv("SEAWALL_ALERTS_SETTLE", "0")
    with no_services():
        before = runtimes.replace(None)
        try:
            with mock.patch("requests.request", side_effect=requests.ConnectionError("down")) as mocked:
                client = seawall.ResilientServiceClient("http://chroma", max_retries=1, failure_threshold=1)
                with pytest.raises(requests.ConnectionError):
                    client.get("/")
                assert client.state is BreakerState.OPEN
            alerts = runtimes.current()._alerts
            assert alerts is not None
            assert alerts._thread is not None
            alerts._thread.join(5.0)
            assert not alerts._thread.is_alive()
        finally:
            made = runtimes.replace(before)
            if made is not None:
                made.close()
    assert (mocked.call_count, heard, hook.count()) == (1, [], 0)
