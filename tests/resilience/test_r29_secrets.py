"""Row 29: what others may read. Stock: arguments stand in the workers' logs and lie in the dead letters for a week; a job store
unpickles what it finds in Redis.

Here the token never leaves the workers, arguments are in no log, what is over leaves nothing, and nothing is pickled.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from seawall import ResilientServiceClient
from tests.acceptance.harness import Fleet
from tests.resilience.scene import ROOT, running
from tests.support import Answer, CountingService, PrivateRedis, wait_until
from tests.support.house import caller

#: Canaries: nobody else writes these.
TOKEN = "canary-token-29f0"
BODY, QUERY, SECRET = "canary-body-29f0", "canary-query-29f0", "canary-key-29f0"


def test_canaries_stay_where_they_belong(tmp_path: Path, service: CountingService) -> None:
    service.script("/broken", Answer(500))
    server = PrivateRedis(tmp_path / "server", rdbcompression="no")
    environ = {"SEAWALL_INTERNAL_TOKEN": TOKEN, "SEAWALL_LOG_LEVEL": "debug"}
    declared = {"api": {"url": service.url, "max_retries": 2, "backoff": 0.01, "failure_threshold": 1000}}
    with running(server), Fleet(tmp_path, server.url, declared, environ=environ) as fleet:
        fleet.start(workers=1, supervisors=1)
        with caller(server.url, namespace=fleet.namespace):
            client = ResilientServiceClient(service.url, "Api", 2, key="api", backoff=0.01, failure_threshold=1000)
            request = {"data": BODY, "params": {"q": QUERY}, "headers": {"X-Api-Key": SECRET}}
            client.post("/good", **request)
            client.enqueue("POST", "/fine", keep_result=0, **request)
            service.wait_for(1, path="/fine")
            client.get("/next")  # a reply, which has the address, is taken out with the caller's next call
            wait_until(lambda: fleet.drained("api"))
            after_success = snapshot(server)
            lost = client.enqueue("POST", "/broken", rounds=1, **request)
            assert lost.exception(10) is not None
            after_failure = snapshot(server)
            shown = show(lost.id, fleet)
        logs = "".join(program.text for program in fleet.programs)
        written = b"".join(file.read_bytes() for file in (server.folder / "appendonlydir").iterdir())
    assert {each.headers["x-internal-token"] for each in service.requests} == {TOKEN}
    assert "/broken" in logs
    assert BODY.encode() in written, "the search sees what is stored"
    assert [canary for canary in (TOKEN, BODY, QUERY, SECRET) if canary in logs] == []
    assert [canary for canary in (TOKEN, BODY, QUERY, SECRET) if canary.encode() in after_success] == []
    assert not any(TOKEN.encode() in stored for stored in (written, after_success, after_failure))
    assert (TOKEN in shown, SECRET in shown) == (False, False)


def snapshot(server: PrivateRedis) -> bytes:
    """All that the server stores, as it writes it to disk."""
    with server.client() as inside:
        inside.save()
    return (server.folder / "dump.rdb").read_bytes()


def show(id: str, fleet: Fleet) -> str:
    """The dead letter, as people see it."""
    command = [sys.executable, "-m", "seawall", "dead", "show", id, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=fleet.folder, env=fleet.environ)
    assert done.returncode == 0, done.stderr
    assert "/broken" in done.stdout
    return done.stdout


def test_nothing_is_pickled() -> None:
    """Neither by Seawall nor by a job store that it would give APScheduler."""
    unwanted = {"pickle", "shelve", "marshal", "dill", "cloudpickle", "apscheduler.jobstores"}
    found = []
    for room in ("seawall", "actors", "workers", "supervisor"):
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                found += [(file.name, name) for name in names if any(name.startswith(one) for one in unwanted)]
    assert found == []
