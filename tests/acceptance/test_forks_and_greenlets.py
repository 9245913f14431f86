"""A worker's process that forks while it works, and a host application whose threads are gevent's greenlets."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.exits import Exit
from tests.acceptance.harness import Fleet
from tests.acceptance.shell import plain_environ, run
from tests.support import Answer, CountingService, PrivateRedis

#: A worker that runs calls, and its caller, in one process. Children are forked in the middle of it; they end as programs do.
WORKER = """
import os, sys, threading
import patient
from seawall.runtime import current, registry
from seawall.workers.worker import CallWorker
from services import mine

house = current()
worker = CallWorker(house.engine, house.views, house.token)
worker.serve(registry.all())
worker.start()
wrong = []

def use(who, calls):
    for n in range(calls):
        path = f"/{who}/{n}"
        seen = mine.get(path, deadline=10).json()["path"]
        if seen != path:
            wrong.append((path, seen))
    if mine.enqueue("POST", f"/{who}/later").result(10).json()["path"] != f"/{who}/later":
        wrong.append(who)

use("before", 3)
busy = [threading.Thread(target=use, args=(f"busy{n}", 20)) for n in range(3)]
[thread.start() for thread in busy]
children = []
for n in range(3):
    pid = os.fork()
    if pid == 0:
        assert threading.active_count() == 1, "a child works for nobody"
        use(f"child{n}", 5)
        sys.exit(len(wrong))
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
[thread.join() for thread in busy]
use("after", 3)
assert house is current()
worker.stop(1.0)
print("wrong", wrong, "codes", codes, flush=True)
sys.exit(1 if wrong or any(codes) else 0)
"""

GREENLETS = """
from gevent import monkey
monkey.patch_all()
import os, time
import gevent
import patient
from services import mine

def one(path):
    seen = mine.get(path, deadline=10).json()["path"]
    assert seen == path, (path, seen)

def tick():
    while True:
        ticks.append(time.monotonic())
        gevent.sleep(0.01)

ticks = []
ticking = gevent.spawn(tick)
gevent.joinall([gevent.spawn(one, f"/slow/{n}") for n in range(5)], raise_error=True)
assert len(ticks) > 10, "who waits for a call lets others run"
gevent.joinall([gevent.spawn(one, f"/green/{n}") for n in range(20)], raise_error=True)
assert mine.enqueue("POST", "/later").result(10).json()["path"] == "/later"
mine.fire("POST", "/fired")
pid = os.fork()
if pid == 0:
    one("/child")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
one("/after")
"""

MONKEY = "saved = {}\n\n\ndef is_module_patched(name):\n    return name == 'threading'\n"


@pytest.fixture(scope="module")
def service() -> Iterator[CountingService]:
    with CountingService() as running:
        running.script(
            "*", lambda request: Answer(200, {"path": request.path}, delay=0.3 if "/slow" in request.path else 0)
        )
        yield running


def test_a_worker_whose_process_forks_goes_on_and_its_children_work_for_nobody(
    tmp_path: Path, redis_server: PrivateRedis, service: CountingService
) -> None:
    with Fleet(tmp_path, redis_server.url, {"mine": {"url": service.url}}) as fleet:
        program = fleet.script(WORKER)
        assert program.wait(40) == 0, program.text
    paths = [request.path for request in service.requests]
    for who, calls in (("before", 3), ("busy0", 20), ("busy2", 20), ("child0", 5), ("child2", 5), ("after", 3)):
        assert sorted(path for path in paths if path.startswith(f"/{who}/")) == sorted(
            [*(f"/{who}/{n}" for n in range(calls)), f"/{who}/later"]
        )


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
@pytest.mark.parametrize("mode", ["broker", "memory"])
def test_a_host_application_on_gevent(
    tmp_path: Path, redis_server: PrivateRedis, service: CountingService, mode: str
) -> None:
    with Fleet(tmp_path, redis_server.url, {"mine": {"url": service.url}}) as fleet:
        if mode == "broker":
            fleet.start(workers=1)
        else:
            fleet.environ["SEAWALL_BROKER_URL"] = "memory://"
        program = fleet.script(GREENLETS)
        assert program.wait(40) == 0, program.text


@pytest.mark.parametrize("process", ["worker", "supervisor", "web", "up"])
def test_processes_of_our_own_do_not_run_on_greenlets(process: str, tmp_path: Path, redis_url: str) -> None:
    """Whatever gevent is like: this is what it answers where it has patched the standard library."""
    package = tmp_path / "fakes" / "gevent"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "monkey.py").write_text(MONKEY)
    (tmp_path / "services.py").write_text(
        "import gevent.monkey\nfrom seawall import ResilientServiceClient\n"
        "any = ResilientServiceClient('http://127.0.0.1:9', key='any')\n"
    )
    paths = [str(package.parent), os.environ.get("PYTHONPATH", "")]
    environ = plain_environ(SEAWALL_BROKER_URL=redis_url, PYTHONPATH=os.pathsep.join(path for path in paths if path))
    refused = run(process, "services", folder=tmp_path, environ=environ)
    assert refused.code == Exit.CONFIG
    assert (
        f"`seawall {process}` runs on threads, and a module that it imports has gevent patch them away" in refused.err
    )
