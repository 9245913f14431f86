"""Seawall as a guest: in a server that forks after its use, in a prefork child, beside the host's own Dramatiq."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.harness import Fleet, Program
from tests.support import Answer, CountingService, PrivateRedis

#: As gunicorn with preload: the application is imported and has made calls when its workers are forked. A call of the
#: parent's is under way in another thread at that moment. Each process then checks that the answers are its own.
PRELOAD = """
import os, sys, threading
import patient
from services import mine

CHILDREN, CALLS, THREADS = 3, 10, 3
assert mine.get("/preload").json()["path"] == "/preload"
handle = mine.enqueue("POST", "/handle")
under_way = threading.Thread(target=lambda: mine.get("/slow"))
under_way.start()

def use(who):
    wrong = []
    def work(thread):
        for n in range(CALLS):
            path = f"/{who}/{thread}/{n}"
            try:
                seen = mine.get(path, deadline=10).json()["path"]
            except Exception as error:
                seen = repr(error)
            if seen != path:
                wrong.append((path, seen))
    crew = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    [thread.start() for thread in crew]
    [thread.join() for thread in crew]
    if mine.enqueue("POST", f"/{who}/enqueued").result(10).json()["path"] != f"/{who}/enqueued":
        wrong.append("enqueued")
    if handle.result(10).json()["path"] != "/handle":
        wrong.append("handle")
    if mine.state.value != "closed":
        wrong.append(mine.state)
    print(who, "wrong:", wrong, flush=True)
    return not wrong

children = []
for n in range(CHILDREN):
    pid = os.fork()
    if pid == 0:
        sys.exit(0 if use(f"child{n}") else 1)
    children.append(pid)
good = use("parent")
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
under_way.join()
print("codes", codes, flush=True)
sys.exit(0 if good and not any(codes) else 1)
"""

#: As Celery's prefork pool: a child of multiprocessing, forked after use, that works and is replaced after a few tasks.
PREFORK = """
import multiprocessing, sys
import patient
from services import mine

def task(path):
    mine.fire("POST", path + "/fired")
    return mine.get(path).json()["path"]

assert mine.get("/before").status_code == 200
with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=3) as pool:
    paths = [f"/task/{n}" for n in range(12)]
    answers = pool.map(task, paths, chunksize=1)
    pool.close()
    pool.join()
assert answers == paths, answers
assert mine.get("/after").json()["path"] == "/after"
"""

#: A host application with a Dramatiq of its own: its broker, encoder, middleware and worker are left alone.
DRAMATIQ = """
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.encoder import PickleEncoder

theirs, encoder = StubBroker(), PickleEncoder()
dramatiq.set_broker(theirs)
dramatiq.set_encoder(encoder)
ran = []

@dramatiq.actor(queue_name="theirs")
def count(n):
    ran.append((n, mine.get(f"/from-their-actor/{n}").json()["path"]))

import patient
from services import mine

middleware = [type(each) for each in theirs.middleware]
assert mine.get("/beside").json()["path"] == "/beside"
mine.fire("POST", "/beside/fired")
worker = dramatiq.Worker(theirs, worker_timeout=50, worker_threads=2)
worker.start()
for n in range(3):
    count.send(n)
theirs.join("theirs", fail_fast=True, timeout=10000)
worker.join()
worker.stop()
assert sorted(ran) == [(n, f"/from-their-actor/{n}") for n in range(3)], ran
assert dramatiq.get_broker() is theirs
assert dramatiq.get_encoder() is encoder
assert [type(each) for each in theirs.middleware if type(each).__name__ != "_WorkerMiddleware"] == middleware
assert set(theirs.actors) == {"count"}
assert {queue.split(".")[0] for queue in theirs.queues} == {"theirs"}, theirs.queues
"""

#: The same in memory mode, where Seawall's own Dramatiq worker runs in the host's process.
DRAMATIQ_IN_MEMORY = "import os; os.environ['SEAWALL_BROKER_URL'] = 'memory://'\n" + DRAMATIQ

#: A cell of a notebook that is run again: the client is declared anew, with another setting.
NOTEBOOK = """
from seawall import ResilientServiceClient
import patient, services

url = services.mine.service.base_url
cell = "client = ResilientServiceClient(url, service_name='Mine', key='mine', timeout={timeout})"
for timeout in (5, 6, 6, 7):
    exec(cell.format(timeout=timeout))
    assert client.get(f"/cell/{timeout}").json()["path"] == f"/cell/{timeout}"
    assert client.service.timeout[1] == timeout
assert services.mine.get("/older").status_code == 200
"""


@pytest.fixture(scope="module")
def service() -> Iterator[CountingService]:
    with CountingService() as running:
        running.script("/slow", Answer(delay=0.5))
        running.script("*", lambda request: Answer(200, {"path": request.path}))
        yield running


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, redis_server: PrivateRedis, service: CountingService
) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("host"), redis_server.url, {"mine": {"url": service.url}}) as fleet:
        fleet.start(workers=1)
        yield fleet


@pytest.fixture(scope="module")
def programs(fleet: Fleet) -> dict[str, Program]:
    """All of them at once, since they mostly start."""
    texts = {
        "preload": PRELOAD,
        "prefork": PREFORK,
        "dramatiq": DRAMATIQ,
        "memory": DRAMATIQ_IN_MEMORY,
        "notebook": NOTEBOOK,
    }
    return {name: fleet.script(text) for name, text in texts.items()}


def test_processes_forked_after_use_get_their_own_answers(
    programs: dict[str, Program], service: CountingService
) -> None:
    program = programs["preload"]
    assert program.wait(40) == 0, program.text
    assert "codes [0, 0, 0]" in program.text
    for who in ("child0", "child1", "child2", "parent"):
        assert len({r.path for r in service.requests if r.path.startswith(f"/{who}/")}) == 31


def test_a_prefork_childs_calls_work_and_its_fired_calls_arrive(
    programs: dict[str, Program], service: CountingService
) -> None:
    program = programs["prefork"]
    assert program.wait(40) == 0, program.text
    for n in range(12):
        service.wait_for(1, path=f"/task/{n}/fired")


@pytest.mark.parametrize("name", ["dramatiq", "memory"])
def test_the_hosts_own_dramatiq_is_left_alone(programs: dict[str, Program], name: str) -> None:
    program = programs[name]
    assert program.wait(40) == 0, program.text


def test_a_cell_of_a_notebook_can_be_run_again(programs: dict[str, Program]) -> None:
    program = programs["notebook"]
    assert program.wait(40) == 0, program.text
