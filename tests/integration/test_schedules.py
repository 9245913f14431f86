"""Schedules from their declaration to the queue: in code, in the file, in memory mode, and at a real server."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import seawall
from seawall import runtime as runtimes
from seawall.actors.record import decode_call
from seawall.actors.service import queue_names
from seawall.check import run_checks
from seawall.cli.main import cli
from seawall.errors import ConfigurationError, QueueFull
from seawall.runtime import Runtime
from seawall.schedules import registry as schedules
from seawall.scheduling import declare_schedules, queue_tick
from seawall.settings import load_settings
from seawall.supervising import make_supervisor
from seawall.supervisor.breaker import ForceOpen
from seawall.ticks import Cron, Every
from tests.support.house import caller, no_services

CHROMA = "http://chroma:6003"
QUEUE = queue_names("chroma")[1]
FILE = f"""
[services.chroma]
url = "{CHROMA}"
[[schedules]]
name = "nightly"
service = "chroma"
method = "POST"
path = "/reindex?full=1"
cron = "30 3 * * *"
timezone = "Europe/Berlin"
json = {{ full = true }}
headers = {{ X-Why = "schedule" }}
expires_in = 3600
rounds = 2
"""


@pytest.fixture(autouse=True)
def _no_schedules() -> Iterator[None]:
    before = schedules.all()
    schedules.restore([])
    yield
    schedules.restore(before)


@pytest.fixture
def house(redis_url: str) -> Iterator[Runtime]:
    with caller(redis_url) as runtime:
        yield runtime


@pytest.fixture
def client(house: Runtime) -> seawall.ResilientServiceClient:
    return seawall.ResilientServiceClient(CHROMA, key="chroma", queue_cap=2)


def queued(house: Runtime) -> list[Any]:
    """The calls that wait, read from the server."""
    assert house.engine.link is not None
    payloads = house.engine.link.command("HVALS", f"{house.settings.namespace}:q:{QUEUE}:msg")
    return [decode_call(payload) for payload in payloads]


class TestInCode:
    def test_each_tick_is_a_call_with_an_id_of_its_own(self, house: Runtime, client: Any) -> None:
        client.schedule("hourly", "POST", "/tidy", cron="0 * * * *", json={"deep": True}, rounds=3)
        first = house.engine.queue.ticks(["hourly"])["hourly"] + 10
        queue_tick(house, "hourly", first)
        queue_tick(house, "hourly", first + 3600)
        calls = queued(house)
        assert len({call.id for call in calls}) == 2
        for call in calls:
            assert (call.method, call.target, call.body, call.rounds) == ("POST", "/tidy", b'{"deep": true}', 3)
            assert dict(call.headers)["Idempotency-Key"] == call.id
            assert not call.waited
        assert house.engine.queue.ticks(["hourly"])["hourly"] == pytest.approx(first + 3600, abs=0.001)

    def test_tick_that_the_store_has_had_is_queued_by_nobody(self, house: Runtime, client: Any) -> None:
        client.schedule("hourly", "POST", "/tidy", every=3600)
        tick = house.engine.queue.ticks(["hourly"])["hourly"] + 10
        for late in (tick, tick, tick - 1, tick - 3600):
            queue_tick(house, "hourly", late)
        assert len(queued(house)) == 1

    def test_new_schedule_starts_with_its_next_tick(self, house: Runtime, client: Any) -> None:
        client.schedule("hourly", "POST", "/tidy", every=3600)
        seen = house.engine.queue.ticks(["hourly"])["hourly"]
        assert abs(seen - house.engine.breakers.now()) < 5
        queue_tick(house, "hourly", seen - 1)
        assert queued(house) == []

    def test_full_queue_is_told(self, house: Runtime, client: Any) -> None:
        client.schedule("hourly", "POST", "/tidy", every=3600)
        tick = house.engine.queue.ticks(["hourly"])["hourly"] + 1
        queue_tick(house, "hourly", tick)
        queue_tick(house, "hourly", tick + 1)
        with pytest.raises(QueueFull):
            queue_tick(house, "hourly", tick + 2)
        assert house.engine.queue.ticks(["hourly"])["hourly"] == pytest.approx(tick + 1, abs=0.001)

    def test_open_breaker_skips_the_tick_where_that_was_asked_for(
        self, house: Runtime, client: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        client.schedule("hourly", "POST", "/tidy", every=3600, on_open="skip")
        house.views.of(client.service).by_hand(ForceOpen())
        queue_tick(house, "hourly", house.engine.breakers.now() + 10)
        assert queued(house) == []
        assert "Circuit breaker OPEN - skipping background call" in caplog.text

    def test_what_is_sent_is_what_was_given_when_it_was_declared(self, house: Runtime, client: Any) -> None:
        body = {"n": 1}
        client.schedule("hourly", "POST", "/tidy", every=3600, json=body)
        body["n"] = 2
        queue_tick(house, "hourly", house.engine.breakers.now() + 10)
        assert [call.body for call in queued(house)] == [b'{"n": 1}']

    def test_declared_again_differently_the_newer_one_holds(
        self, client: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        for _ in range(2):
            client.schedule("hourly", "POST", "/tidy", every=3600, json={"a": [1]})
        assert caplog.messages == []
        client.schedule("hourly", "POST", "/tidy", every=1800)
        assert caplog.messages == ["schedule hourly: declared again, and differently; the newer one holds"]
        assert schedules.ticks() == {"hourly": Every(1800)}

    def test_wrong_call_fails_at_once_and_declares_nothing(self, client: Any) -> None:
        with pytest.raises(ValueError, match=r"relative|base"):
            client.schedule("bad", "GET", "http://elsewhere/", every=60)
        with pytest.raises(TypeError, match="unexpected keyword argument 'jsno'"):
            client.schedule("bad", "POST", "/x", every=60, jsno={})
        with pytest.raises(ValueError, match="expire"):
            client.schedule("bad", "POST", "/x", every=60, expires_in=0)
        with pytest.raises(ConfigurationError, match="schedule 'bad': cron must be"):
            client.schedule("bad", "POST", "/x", cron="daily")
        assert schedules.all() == []


class TestInTheFile:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "seawall.toml").write_text(FILE)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def test_supervisor_declares_them(self, folder: Path, redis_url: str) -> None:
        with caller(redis_url) as house:
            seawall.ResilientServiceClient(CHROMA, key="chroma")
            make_supervisor(house, runtimes.registry)
            assert schedules.ticks() == {"nightly": Cron("30 3 * * *", "Europe/Berlin")}
            queue_tick(house, "nightly", house.engine.breakers.now() + 10)
            (call,) = queued(house)
        assert (call.method, call.target, call.body, call.rounds) == ("POST", "/reindex?full=1", b'{"full": true}', 2)
        assert dict(call.headers)["X-Why"] == "schedule"

    def test_code_wins_over_a_table_of_the_same_name(self, folder: Path, redis_url: str) -> None:
        with caller(redis_url) as house:
            client = seawall.ResilientServiceClient(CHROMA, key="chroma")
            client.schedule("nightly", "POST", "/other", every=60)
            declare_schedules(house.settings, runtimes.registry)
            assert schedules.ticks() == {"nightly": Every(60)}

    def test_service_that_nobody_declares_stops_the_supervisor(self, folder: Path, redis_url: str) -> None:
        (folder / "seawall.toml").write_text(FILE.replace('service = "chroma"', 'service = "chrome"'))
        with (
            caller(redis_url) as house,
            pytest.raises(ConfigurationError, match=r"schedules\.nightly\.service names 'chrome'.*mean 'chroma'"),
        ):
            make_supervisor(house, runtimes.registry)

    def test_memory_mode_says_once_that_they_do_not_run(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        runtime = Runtime(load_settings())
        try:
            with no_services():
                for _ in range(2):
                    runtime.ready()
        finally:
            runtime.close()
        lines = [message for message in caplog.messages if "schedule" in message]
        assert lines == [
            "1 schedule(s) of seawall.toml do not run, because supervisors run them: set SEAWALL_BROKER_URL"
        ]


class TestMemoryMode:
    @pytest.fixture(autouse=True)
    def _as_in_a_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Under pytest a schedule is fine without a broker."""
        monkeypatch.setattr("seawall.testing.under_test", 0)

    def test_schedule_needs_a_broker(self, seawall_in_memory: seawall.ResilientServiceClient) -> None:
        with pytest.raises(ConfigurationError, match=r"'hourly' needs a broker.*SEAWALL_BROKER_URL.*`seawall up`"):
            seawall_in_memory.schedule("hourly", "POST", "/x", every=60)
        assert schedules.all() == []

    def test_up_and_check_import_modules_before_there_is_one(
        self, seawall_in_memory: seawall.ResilientServiceClient
    ) -> None:
        with schedules.without_broker():
            seawall_in_memory.schedule("hourly", "POST", "/x", every=60)
        assert [schedule.name for schedule in schedules.all()] == ["hourly"]
        with pytest.raises(ConfigurationError):
            seawall_in_memory.schedule("hourly", "POST", "/x", every=60)

    @pytest.fixture
    def seawall_in_memory(self) -> Iterator[seawall.ResilientServiceClient]:
        runtime = Runtime(load_settings({"broker_url": "memory://"}))
        before = runtimes.replace(runtime)
        with no_services():
            yield seawall.ResilientServiceClient(CHROMA, key="chroma")
        runtimes.replace(before)
        runtime.close()


class TestCheck:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        with no_services():
            yield tmp_path

    def test_finds_what_a_supervisor_would_refuse(self, folder: Path) -> None:
        (folder / "seawall.toml").write_text(FILE.replace('"/reindex?full=1"', '"//elsewhere"'))
        problems = run_checks(load_settings())
        assert [problem.severity for problem in problems] == ["error"]
        assert str(problems[0]).startswith("seawall.toml: schedules.nightly cannot be called: ")

    def test_service_of_a_module_that_was_not_named_is_a_warning(self, folder: Path) -> None:
        (folder / "seawall.toml").write_text(FILE.replace("[services.chroma]", "[services.git]"))
        assert [problem.severity for problem in run_checks(load_settings())] == ["warning"]

    def test_module_may_declare_schedules_without_a_broker(self, folder: Path) -> None:
        name = f"scheduling_app_{os.getpid()}"
        (folder / f"{name}.py").write_text(
            "from seawall import ResilientServiceClient\n"
            f"chroma = ResilientServiceClient({CHROMA!r}, key='chroma')\n"
            "chroma.schedule('hourly', 'POST', '/tidy', every=3600)\n"
        )
        before = runtimes.replace(Runtime(load_settings()))
        try:
            assert run_checks(load_settings(), [name]) == []
        finally:
            house = runtimes.replace(before)
            assert house is not None
            house.close()
        assert [schedule.name for schedule in schedules.all()] == ["hourly"]

    def test_shows_when_they_come_next(self, folder: Path) -> None:
        (folder / "seawall.toml").write_text(FILE)
        shown = CliRunner().invoke(cli, ["check", "--show"]).output
        assert "schedules.nightly.cron" in shown
        assert re.search(r"schedule nightly  chroma  cron '30 3 \* \* \*' in Europe/Berlin  next \d.* UTC", shown)

    def test_up_refuses_before_it_starts_anything(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("seawall.cli.up.setup_logging", lambda *_, **__: None)
        (folder / "seawall.toml").write_text(FILE.replace("[services.chroma]", "[services.git]"))
        result = CliRunner().invoke(cli, ["up", "--no-web"])
        assert isinstance(result.exception, ConfigurationError)
        assert "schedules.nightly.service names 'chroma'" in str(result.exception)
