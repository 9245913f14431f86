"""Row 29, of a whole house: what it knows is looked for in everything that it stores, says, answers and shows of itself.

`seawall up` over a Redis with a password, and a program beside it: six secrets, each with those who need it only.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
import requests

from seawall.supervisor.page.board import Board
from seawall.supervisor.page.session import Sessions
from seawall.supervisor.web import make_app
from tests.acceptance.harness import Fleet, Up, say
from tests.acceptance.shell import run
from tests.resilience.scene import running
from tests.support import Answer, CountingService, PrivateRedis, wait_until
from tests.support.canaries import Sightings, environ_of, every_value, every_write, process_titles

#: What people must not find: by what it is, the secret itself.
SECRETS = {
    "internal token": "canary-internal-8d1f",
    "web token": "canary-web-8d1f",
    "Redis password": "canary-redis-8d1f",
    "base URL's password": "canary-base-8d1f",
    "base URL's password of the file": "canary-file-8d1f",
    "key of alerts": "canary-alerts-8d1f",
}
INTERNAL, WEB, REDIS, BASE, IN_FILE, ALERTS = SECRETS.values()
#: What stands for the parts of a path that are open.
PLACES = {"key": "steady", "verb": "reset", "name": "page.js"}
#: Secrets in the environment of each child of `seawall up`. Base URLs are in the module and the file.
ENVIRONS = {
    "worker-1": {INTERNAL, REDIS, ALERTS},
    "worker-2": {INTERNAL, REDIS, ALERTS},
    "supervisor": {INTERNAL, REDIS},
    "web": {WEB, REDIS},
    "program": {INTERNAL, REDIS},
}

#: Calls of every kind and end. It prints all that a program could print about them, and goes on when told to by a file.
PROGRAM = """
import threading, time, traceback
from pathlib import Path
import services
from seawall import ResilientServiceClient

def tell(do):
    try:
        answer = do()
        request = getattr(answer, "request", None)
        print(repr(answer), vars(answer) if request is not None else "", request and (request.url, request.headers))
    except Exception as error:
        traceback.print_exc()
        print(repr(error), vars(error))
        if (request := getattr(error, "request", None)) is not None:
            print(request.url, request.headers)

def all_kinds():
    for client in (services.steady, services.sick, services.closed, ResilientServiceClient.named("filed")):
        for path in ("/fine", "/broken"):
            tell(lambda: client.get(path))
            tell(lambda: client.post(path, json={"some": "data"}))
            tell(lambda: client.enqueue("POST", path, rounds=1, keep_result=60).result(10))
        tell(lambda: client.fire("POST", "/fired"))
        print(client, client.state, client.get_status())

all_kinds()
print("ONCE", flush=True)
while not Path("broker-is-away").exists():
    time.sleep(0.02)
all_kinds()
print("TWICE", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def service() -> Iterator[CountingService]:
    with CountingService() as answering:
        answering.script("/broken", Answer(500))
        yield answering


def declared(url: str) -> dict[str, dict[str, object]]:
    """One that counts no failures, one that opens at the first and is tried by its health path, one that nobody serves."""
    common = {"max_retries": 1, "failure_threshold": 1000, "timeout": 1}
    sick = {**common, "failure_threshold": 1, "recovery_timeout": 0.3, "health_path": "/broken"}
    secret, nobody = (f"http://user:{BASE}@{where}" for where in (url.removeprefix("http://"), "127.0.0.1:9"))
    return {"steady": {"url": secret, **common}, "sick": {"url": secret, **sick}, "closed": {"url": nobody, **common}}


def house(folder: Path, service: CountingService) -> Fleet:
    environ = {"SEAWALL_INTERNAL_TOKEN": INTERNAL, "SEAWALL_WEB_TOKEN": WEB, "SEAWALL_LOG_LEVEL": "debug"}
    environ |= {"SEAWALL_ALERTS_SECRET": ALERTS, "SEAWALL_ALERTS_WEBHOOK": f"{service.url}/alerts"}
    fleet = Fleet(folder, "", declared(service.url), environ=environ)
    url = service.url.replace("//", f"//user:{IN_FILE}@")
    (fleet.folder / "seawall.toml").write_text(f'[services.filed]\nurl = "{url}"\nmax_retries = 1\n')
    return fleet


def test_no_secret_is_anywhere_but_where_it_is_needed(tmp_path: Path, service: CountingService) -> None:
    sightings = Sightings(SECRETS)
    server = PrivateRedis(tmp_path / "server", rdbcompression="no")
    with running(server), house(tmp_path, service) as fleet:
        with server.client() as inside:
            inside.config_set("requirepass", REDIS)
            inside.auth(REDIS)
            url = server.url.replace("unix://", f"unix://:{REDIS}@")
            up = fleet.up("--", sys.executable, "-c", PROGRAM, broker=url)
            up.expect("ONCE", timeout=30)
            fleet.environ["SEAWALL_BROKER_URL"] = url
            wait_until(lambda: service.count("/broken", method="GET") > 3)  # trials of the health path are among them
            wait_until(lambda: service.count("/alerts"), 20)  # the breaker of one is open
            stored(server, inside, sightings)
        shown(up, fleet, sightings)
        of_processes(up, sightings)
        server.kill()
        (fleet.folder / "broker-is-away").touch()
        shown(up, fleet, sightings, away=True)
        up.expect("TWICE", timeout=30)
        up.terminate()
        up.wait()
        for file in (up.log, server.log_file):
            sightings.search("log", file.name, file.read_bytes())
    say(f"searched for {len(SECRETS)} secrets: {sightings.searched}")
    assert sightings.found == []
    tokens = {(request.path == "/alerts", request.headers.get("x-internal-token")) for request in service.requests}
    assert tokens == {(False, INTERNAL), (True, None)}, "a webhook is somebody else's"
    assert "/broken" in up.text


def stored(server: PrivateRedis, inside: object, sightings: Sightings) -> None:
    """In every form in which the server keeps, writes or gives it away."""
    sightings.search_all("stored value", every_value(inside))
    sightings.search_all("dumped key", ((key.decode(), inside.dump(key) or b"") for key in inside.scan_iter("*")))
    sightings.search_all("append-only file", every_write(server))
    inside.save()
    dump = (server.folder / "dump.rdb").read_bytes()
    sightings.search("snapshot", "dump.rdb", dump)
    assert b"/broken" in dump, "the search sees what is stored"


def shown(up: Up, fleet: Fleet, sightings: Sightings, *, away: bool = False) -> None:
    """Every answer of the web process, and what the commands print."""
    (address,) = re.findall(r"status +(http://[^/\s]+)/", up.text)
    nobody: Any = Mock()  # routes alone are wanted of it
    routes = [route.path.format(**PLACES) for route in make_app(nobody, Board(nobody), Sessions(str)).routes]
    askers = ({"Authorization": f"Bearer {WEB}"}, {}, {"Authorization": "Bearer another"}, {"Host": "evil.example"})
    for path in (*routes, "/nowhere", "/v1/api/status?token=x"):
        for method in ("GET",) if away else ("GET", "POST", "OPTIONS"):
            for headers in askers:
                with requests.request(method, address + path, headers=headers, timeout=10, stream=True) as answer:
                    told = b"".join(itertools.islice(answer.iter_content(1 << 20), 1 if path == "/events" else None))
                sightings.search("HTTP answer", f"{method} {path}", str(answer.headers).encode() + told)
    trusted = requests.get(f"{address}/v1/api/status", headers=askers[0], timeout=10)
    assert trusted.status_code == (503 if away else 200), trusted.text

    def command(*words: str) -> str:
        ran = run(*words, folder=fleet.folder, environ=fleet.environ)
        sightings.search("command", " ".join(words), ran.out + ran.err)
        return ran.out

    assert away or '"steady"' in command("status", "--json")
    assert "(hidden)" in command("check", "--show", "services")
    listed = command("dead", "list", "--json")
    assert away or "/broken" in listed
    for id in re.findall(r'"id": *"([^"]+)"', listed)[:2]:
        assert "POST" in command("dead", "show", id)
    command("call", "closed", "GET", "/", "-m", "services", "-i")
    if away:
        command("status")


def of_processes(up: Up, sightings: Sightings) -> None:
    """Command lines are everybody's to read, environments of those who run as the same user."""
    sightings.search_all("process title", process_titles())
    assert secrets_of(up) == ENVIRONS


def secrets_of(up: Up) -> dict[str, set[str]]:
    """By what each child of `seawall up` is called on its command line: the secrets in its environment."""
    found = {}
    for child in psutil.Process(up.pid).children():
        words = child.cmdline()
        other = "valkey" if "valkey" in words[0] else "program"
        name = words[words.index("--name") + 1] if "--name" in words else other
        found[name] = {secret for secret in SECRETS.values() if secret.encode() in environ_of(child.pid)}
    return found


def test_the_embedded_server_gets_no_secret(tmp_path: Path, service: CountingService) -> None:
    with house(tmp_path, service) as fleet:
        up = fleet.up(
            "--", sys.executable, "-c", "import threading\nprint('HERE', flush=True)\nthreading.Event().wait()"
        )
        up.expect("HERE")
        carried = secrets_of(up)
    expected = {name: secrets - {REDIS} for name, secrets in ENVIRONS.items()}
    assert carried == {**expected, "valkey": set()}
