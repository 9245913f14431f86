"""The command on a real fleet: worker, supervisor and web process apart, over TCP, as the Procfile starts them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from seawall import ResilientServiceClient
from seawall.exits import Exit
from tests.acceptance.harness import START_SECONDS, Fleet
from tests.acceptance.shell import Ran, plain_environ, run, terminal
from tests.support import Answer, CountingService, PrivateRedis, wait_until
from tests.support.commands_page import PAGE, fields
from tests.support.house import caller
from tests.support.ports import free_port

KEY = "tok-3f9a"


class Shop:
    """A fleet with one service that does as it is told."""

    def __init__(self, folder: Path, url: str, service: CountingService, gone: CountingService) -> None:
        about = {"url": service.url, "max_retries": 1, "recovery_timeout": 30, "slow_start": 0.0}
        services = {
            "shop": {**about, "service_name": "Shop Server", "health_path": "/health"},
            "sick": {**about, "failure_threshold": 2},
            "gone": {**about, "url": gone.url},
        }
        self.service = service
        self.fleet = Fleet(folder, url, services, environ={"SEAWALL_LOG_FORMAT": "json", "SEAWALL_INTERNAL_TOKEN": KEY})

    def start(self) -> None:
        (self.worker,) = self.fleet.start(workers=1)
        self.supervisor = self.fleet.supervisor()
        self.web = self.fleet._seawall("web", "--port", "0")
        self.fleet.wait_for_leader()
        line = json.loads(self.web.expect("listening on", timeout=START_SECONDS)[0])
        self.address = line["message"].rpartition(" ")[2]

    def tidy(self) -> None:
        """Everything runs, every breaker is closed, and nothing is left of earlier calls."""
        if self.worker.popen.poll() is not None:
            self.start()
        for key in self.fleet.services:
            if self.fleet.breaker(key).version:
                assert self.run("breaker", "reset", key).code == Exit.OK
        self.run("dead", "purge", "--all", "--yes")
        self.service.forget()

    def run(self, *words: str, given: bytes = b"", **environ: str) -> Ran:
        return run(*words, folder=self.fleet.folder, environ=self.fleet.environ | environ, given=given)

    @contextmanager
    def client(self, key: str = "shop", **settings: Any) -> Iterator[ResilientServiceClient]:
        """A client in the test's own process."""
        with caller(self.fleet.url, namespace=self.fleet.namespace):
            yield ResilientServiceClient(
                self.service.url, key=key, max_retries=1, recovery_timeout=30, slow_start=0, **settings
            )

    def call(self, *words: str, given: bytes = b"") -> Ran:
        return self.run("call", *words, "--module", "services", given=given)


@pytest.fixture
def shop(open_shop: Shop) -> Shop:
    """The module's, as it was at first, whatever the test before has done to it."""
    open_shop.tidy()
    return open_shop


@pytest.fixture(scope="module")
def open_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with (
        tempfile.TemporaryDirectory(prefix="seawall-test-") as data,
        CountingService() as service,
        CountingService() as gone,
        tcp_server(Path(data)) as url,
    ):
        gone.stop()
        shop = Shop(tmp_path_factory.mktemp("command"), url, service, gone)
        with shop.fleet:
            shop.start()
            yield shop


class tcp_server:
    """A durable server that also listens on a port."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._server = PrivateRedis(folder, durable=True, port=str(self._port))

    def __enter__(self) -> str:
        self._server.start()
        return f"redis://127.0.0.1:{self._port}/0"

    def __exit__(self, *_: object) -> None:
        self._server.stop()


def test_call_is_a_small_curl(shop: Shop, tmp_path: Path) -> None:
    shop.service.script("/items", Answer(201, {"id": 7}, {"X-Shop": "open"}))
    (tmp_path / "body").write_bytes(b"\x00from a file")
    answer = shop.call("shop", "post", "/items?full=1", "-j", '{"name": "stöne"}', "-H", "X-Trace: abc", "-i")
    assert answer.code == Exit.OK
    head, _, body = answer.out.partition("\n\n")
    assert head.startswith("HTTP 201 Created\n")
    assert "X-Shop: open" in head
    assert json.loads(body) == {"id": 7}
    assert "answered within" in answer.err
    request = shop.service.matching("/items")[-1]
    assert (request.method, request.query, request.json) == ("POST", "full=1", {"name": "stöne"})
    assert (request.headers["content-type"], request.headers["x-trace"]) == ("application/json", "abc")
    assert request.headers["x-internal-token"] == KEY
    shop.call("shop", "PUT", "/items", "-d", f"@{tmp_path / 'body'}")
    assert shop.service.matching("/items")[-1].body == b"\x00from a file"
    shop.call("shop", "PUT", "/items", "-d", "@-", given=b"from standard input")
    assert shop.service.matching("/items")[-1].body == b"from standard input"


@pytest.mark.parametrize("status", [404, 500])
def test_call_prints_an_answer_of_400_or_more_and_exits_with_1(shop: Shop, status: int) -> None:
    shop.service.script("/no", Answer(status, "no such thing"))
    assert shop.call("shop", "GET", "/no") == Ran(Exit.FAILED, "no such thing", "")


def test_call_without_an_answer_says_why_and_exits_with_69(shop: Shop) -> None:
    ran = shop.call("gone", "GET", "/")
    assert (ran.code, ran.out) == (Exit.UNAVAILABLE, "")
    assert ran.err.startswith("seawall: ConnectionError: [Gone] GET http://127.0.0.1:")
    assert ran.err.endswith("/: Connection refused\n")


def test_breaker_opened_by_hand_refuses_every_process_until_it_is_closed(shop: Shop) -> None:
    watched = terminal("status", "--watch", folder=shop.fleet.folder, environ=shop.fleet.environ)
    with watched as screen, shop.client() as client:
        client.get("/health")
        screen.expect("healthy")
        opened = shop.run("breaker", "open", "shop")
        assert opened == Ran(Exit.OK, "shop: open, until it is closed by hand\n", "")
        wait_until(lambda: client.state.value == "open")
        screen.expect("held open by hand; `seawall breaker close shop` closes it")
        assert screen.interrupt() == Exit.OK, "ctrl-C is the way to end a watch"
        assert "Traceback" not in screen.seen
    refused = shop.call("shop", "GET", "/health")
    assert refused.code == Exit.UNAVAILABLE
    assert "[Shop Server] Circuit breaker OPEN - rejecting request" in refused.err
    assert shop.run("status", "--check").code == Exit.FAILED
    assert shop.run("breaker", "close", "shop") == Ran(Exit.OK, "shop: closed\n", "")
    assert shop.call("shop", "GET", "/health").code == Exit.OK


def test_breaker_that_failures_opened_is_shown_with_its_reason_and_reset(shop: Shop) -> None:
    shop.service.script("/fail", Answer(503))
    with shop.client("sick", failure_threshold=2) as client:
        for _ in range(2):
            with pytest.raises(requests.HTTPError):
                client.get("/fail")
    line = shop.run("status").out.splitlines()[1]
    assert line.split()[:3] == ["sick", "open", "for"]
    assert "next trial in" in line
    assert "Server error 503" in line
    assert shop.run("breaker", "reset", "sick") == Ran(Exit.OK, "sick: closed\n", "")
    unknown = shop.run("breaker", "open", "sik")
    assert unknown.code == Exit.CONFIG
    assert "no service 'sik' is known; did you mean 'sick'?" in unknown.err


def test_status_says_the_same_as_a_table_as_json_and_over_http(shop: Shop) -> None:
    table, printed = shop.run("status"), json.loads(shop.run("status", "--json").out)
    assert " ".join(table.out.split()[:9]) == "SERVICE BREAKER MEANING QUEUED HELD LATER RUNNING DEAD WORKERS"
    assert [line.split()[0] for line in table.out.splitlines()[1:4]] == ["gone", "shop", "sick"]
    assert "1 worker with 24 slots · 1 supervisor" in table.out
    asked = requests.get(f"{shop.address}/v1/api/status", timeout=5).json()
    for fleet in (printed, asked):
        for line in fleet["services"].values():
            for moving in ("as_of", "rate", "error_share", "latency"):
                del line[moving]
    assert printed["services"] == asked["services"]
    assert printed["leader"] == asked["leader"]
    for name, shown in {
        "fleet": printed,
        "service": {"as_of": 0, "rate": 0, "error_share": 0, "latency": None, **printed["services"]["shop"]},
        "worker": printed["workers"][0],
        "supervisor": printed["supervisors"][0],
    }.items():
        assert sorted(fields(PAGE.read_text("utf-8"), name)) == sorted(shown), "docs/commands.md says what there is"
    line = printed["services"]["shop"]
    assert (line["service"], line["recovery_timeout"]) == ("Shop Server", 30.0), (
        "told by the worker: no module was named"
    )
    assert printed["workers"][0]["pid"] == shop.worker.pid


def test_status_that_watches_as_json_prints_a_line_a_second(shop: Shop) -> None:
    command = [sys.executable, "-m", "seawall", "status", "--watch", "--json"]
    with subprocess.Popen(
        command, cwd=shop.fleet.folder, env=shop.fleet.environ, stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == Exit.OK
    assert [list(line["services"]) for line in lines] == [["gone", "shop", "sick"]] * 2


def test_dead_letters_are_listed_shown_without_secrets_replayed_and_purged(shop: Shop) -> None:
    shop.service.script("/pay", Answer(500))
    with shop.client() as client:
        headers = {"X-Api-Key": "k-12345", "X-Trace": "abc"}
        ids = [client.enqueue("POST", "/pay?card=4111", json=n, headers=headers, rounds=1).id for n in range(3)]
    wait_until(lambda: shop.fleet.counts("shop").dead == 3)
    listed = shop.run("dead", "list", "--service", "shop")
    assert listed.out.splitlines()[0].split() == ["ID", "DIED", "SERVICE", "REASON", "REQUEST"]
    assert sum("rounds used up" in line and "POST /pay" in line for line in listed.out.splitlines()) == 3
    rows = [
        json.loads(line) for line in shop.run("dead", "list", "--json", "--reason", "rounds used up").out.splitlines()
    ]
    assert {row["id"] for row in rows} == set(ids)
    shown = shop.run("dead", "show", ids[0], "--json")
    letter = json.loads(shown.out)
    assert letter["attempts"][0]["outcome"] == "Server error 500"
    assert dict(letter["request"]["headers"])["X-Trace"] == "abc"
    assert not any(secret in shown.out + listed.out for secret in ("k-12345", "4111", KEY))
    shop.service.script("/pay", Answer(200))
    shop.service.clear()
    assert shop.run("dead", "replay", ids[0]) == Ran(Exit.OK, "1 queued again\n", "")
    (again,) = shop.service.wait_for(path="/pay")
    assert (again.headers["idempotency-key"], again.query) == (ids[0], "card=4111")
    kept = shop.run("dead", "purge", "--service", "shop", given=b"n\n")
    assert kept.code == Exit.FAILED
    assert "Forget 2 dead letters for good?" in kept.out
    assert shop.run("dead", "purge", "--all", "--yes") == Ran(Exit.OK, "2 forgotten\n", "")
    gone = shop.run("dead", "replay", ids[1])
    assert gone == Ran(Exit.FAILED, "0 queued again\n", f"seawall: there is no dead letter {ids[1]}\n")


def test_worker_logs_the_guides_lines_as_json_with_call_service_and_attempt(shop: Shop) -> None:
    shop.service.script("/logged", Answer(200))
    before = len(shop.worker.lines("/logged"))
    shop.call("shop", "GET", "/logged?private=1")
    lines = [json.loads(line) for line in shop.worker.expect("/logged", count=before + 2)[before:]]
    assert [line["message"] for line in lines] == [
        "[Shop Server] GET /logged (attempt 1/1)",
        "[Shop Server] ✓ GET /logged succeeded",
    ]
    assert [(line["service"], line["attempt"], line["level"]) for line in lines] == [("shop", 1, "info")] * 2
    assert lines[0]["call"] == lines[1]["call"]
    loggers = {json.loads(line)["logger"].partition(".")[0] for line in shop.worker.text.splitlines()}
    assert loggers == {"seawall"}, "nobody else has anything to say"


def test_check_finds_the_fleets_configuration_good(shop: Shop) -> None:
    ran = shop.run("check", "services")
    assert ran == Ran(Exit.OK, f"all is well: 3 services, broker {shop.fleet.url}\n", "")


def test_processes_stop_cleanly_on_sigterm(shop: Shop) -> None:
    programs = [shop.worker, shop.supervisor, shop.web]
    for program in programs:
        program.terminate()
    assert [program.wait() for program in programs] == [Exit.OK] * 3
    assert not any("Traceback" in program.text for program in programs)
    assert shop.run("status").out.splitlines()[-1].startswith("no worker runs · 0 supervisors · no supervisor leads")


def test_broker_that_cannot_be_trusted_is_refused_or_warned_of(tmp_path: Path, own_redis: PrivateRedis) -> None:
    (tmp_path / "seawall.toml").write_text("[services.shop]\nurl = 'http://shop'\n")
    environ = plain_environ(SEAWALL_BROKER_URL=own_redis.url)
    with own_redis.client() as client:
        client.config_set("appendonly", "no")
        lasting = run("check", folder=tmp_path, environ=environ)
        assert lasting.code == Exit.OK
        assert lasting.out.startswith("warning: SEAWALL_BROKER_URL names a server that keeps nothing on disk")
        assert lasting.out.splitlines()[-1].startswith("no error: 1 service, broker unix://")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "100mb")
    evicting = run("check", folder=tmp_path, environ=environ)
    assert evicting.code == Exit.FAILED
    refused = run("up", "--no-web", folder=tmp_path, environ=environ)
    assert refused.code == Exit.CONFIG
    sign = "SEAWALL_BROKER_URL names a server that deletes keys when its memory is full (maxmemory-policy allkeys-lru)"
    assert f"error: {sign}" in evicting.out
    assert f"seawall: {sign}" in refused.err
