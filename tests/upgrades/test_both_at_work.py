"""The release before this one and this one, both at work on one broker: each meets what the other writes.

The other release comes from the repository's history: the newest tag `v*`, or SEAWALL_PREVIOUS=REVISION. Where there is
neither, as before the first release or in a checkout without history, there is nothing to run.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest

from tests.acceptance.harness import Fleet, opened
from tests.acceptance.programs import Program
from tests.support import Answer, CountingService, PrivateRedis, wait_until

ROOT = Path(__file__).parents[2]

#: A client: waits for answers, enqueues, and says what it did.
CLIENT = """
import sys
import services
who = sys.argv[1]
answers = [services.api.get(f"/{who}/waited/{number}").status_code for number in range(20)]
handles = [services.api.enqueue("POST", f"/{who}/queued/{number}", json={"n": number}) for number in range(20)]
results = [handle.result(20).status_code for handle in handles]
print(f"done {answers == results == [200] * 20}", flush=True)
"""


def _git(*words: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the code of the release before this one."""
    try:
        revision = os.environ.get("SEAWALL_PREVIOUS") or (
            _git("describe", "--tags", "--abbrev=0", "--match", "v*").decode().strip()
        )
        archive = _git("archive", revision)
    except (subprocess.CalledProcessError, OSError):
        pytest.skip("no earlier release in the repository's history")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def older(fleet: Fleet, previous: Path, argv: list[str]) -> Program:
    """A program of the other release, in this fleet."""
    environ = {**fleet.environ, "PYTHONPATH": str(previous)}
    return fleet._kept(Program(argv, folder=fleet.folder, log=fleet._log("older"), environ=environ))


@pytest.mark.parametrize("leader", ["older", "newer"])
def test_both_deliver_what_both_accept(
    leader: str, previous: Path, tmp_path: Path, own_redis: PrivateRedis, service: CountingService
) -> None:
    import sys

    seawall = [sys.executable, "-m", "seawall"]
    parent = ["--parent", str(os.getpid())]
    declared = {"api": {"url": service.url, "recovery_timeout": 0.5, "failure_threshold": 3, "max_retries": 1}}
    with Fleet(tmp_path, own_redis.url, declared) as fleet:
        old_worker = older(fleet, previous, [*seawall, "worker", "services", *parent])
        fleet.wait_for_worker(old_worker)
        if leader == "older":
            older(fleet, previous, [*seawall, "supervisor", "services", *parent])
        else:
            fleet.supervisor()
        fleet.wait_for_leader()
        fleet.wait_for_worker(fleet.worker())
        clients = [
            older(fleet, previous, [sys.executable, "-c", CLIENT, "older"]),
            fleet.script(CLIENT, "newer"),
        ]
        for client in clients:
            wait_until(lambda client=client: "done" in client.text, 60, message=client.text)  # type: ignore[misc]
            assert "done True" in client.text
        seen = Counter(request.path for request in service.requests)
        assert len(seen) == 80
        assert set(seen.values()) == {1}
        service.script("*", Answer(500))
        fleet.enqueue("api", [f"/held/{number}" for number in range(30)])
        opened(fleet, "api")
        service.script("*", Answer())
        wait_until(lambda: fleet.drained("api"), 30, message="held calls do not drain")
        assert {path for path in (r.path for r in service.requests) if path.startswith("/held/")} == {
            f"/held/{number}" for number in range(30)
        }
