"""Row 27: commands that look at everything. Stock: `KEYS` for each dead worker: 2.2 s with 50 of them and a million keys.

Here no command's cost grows with the number of keys, in good times and in bad ones.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import requests

from seawall import ResilientServiceClient
from seawall.actors.engine import engine_from_url
from seawall.actors.queue_store import Group, Want
from seawall.actors.service import queue_names
from tests.resilience.scene import calling, drained, running
from tests.support import Answer, CountingService, PrivateRedis, wait_until
from tests.support.house import caller

#: Keys of others on the same server, which one `KEYS` would take far longer over than is promised for any command.
OTHERS = 400_000
#: Seconds that a command may take.
PROMISED = 0.02
#: Of the server's commands, those whose cost is that of all keys, or of all members of a large one. A wake list has two
#: members at the most, so LRANGE is none of them.
GROWING = {
    *("keys", "scan", "sscan", "hscan", "zscan", "dbsize", "randomkey", "flushdb", "flushall"),
    *("sort", "hgetall", "hkeys", "hvals", "linsert", "sinter", "sunion", "sdiff"),
}
LEASE = 0.2


def test_no_command_grows_with_the_keyspace(tmp_path: Path, service: CountingService) -> None:
    server = PrivateRedis(tmp_path, appendonly="no", enable_debug_command="yes")
    with running(server), server.client() as inside:
        inside.execute_command("DEBUG", "POPULATE", OTHERS, "somebody-elses", 1)
        inside.config_resetstat()
        good_and_bad_times(server.url, service)
        sweeps = sweeps_after_a_death(server.url)
        used = {name.removeprefix("cmdstat_").partition("|")[0] for name in inside.info("commandstats")}
    assert {"evalsha", "zadd", "xadd", "blpop"} <= used, "the scripts' own commands are seen"
    assert used & GROWING == set()
    assert statistics.median(sweeps) < PROMISED


def good_and_bad_times(url: str, service: CountingService) -> None:
    """Answers, retries, delays, dead letters, an open breaker and its trial."""
    service.script("/retried", Answer(503), Answer())
    service.script("/broken", Answer(500))
    service.script("/trip", Answer(500))
    with calling(url):
        client = ResilientServiceClient(service.url, "Any", key="any", failure_threshold=100)
        assert client.get("/good").status_code == 200
        assert client.post("/retried").status_code == 200
        for number in range(20):
            client.enqueue("POST", f"/{number}", coalesce=f"c{number % 3}", dedupe=f"d{number}", delay=0.05)
        handle = client.enqueue("POST", "/cancelled", delay=60)
        assert handle.cancel()
        assert client.enqueue("POST", "/broken", rounds=1).exception(10) is not None
        client.enqueue("POST", "/expired", delay=0.1, expires_in=0.11)
        sick = ResilientServiceClient(service.url, "Sick", 1, key="sick", failure_threshold=1, recovery_timeout=0.2)
        try:
            sick.get("/trip")
        except requests.HTTPError:
            service.script("/trip", Answer())
        held = sick.enqueue("POST", "/trip")
        assert held.result(10).status_code == 200
        wait_until(lambda: drained("any") and drained("sick"))


def sweeps_after_a_death(url: str) -> list[float]:
    """Seconds that each look for dead workers takes; there are calls to find."""
    with caller(url):
        client = ResilientServiceClient("http://127.0.0.1:9", "Orphans", key="orphans")
        for number in range(50):
            client.enqueue("POST", f"/{number}")
    engine = engine_from_url(url, lease=LEASE)
    queue = queue_names("orphans")[1]
    assert len(engine.queue.fetch([Group(50, (Want(queue, "", 50),))]).deliveries) == 50
    took: list[float] = []
    found = 0

    def swept() -> bool:
        nonlocal found
        started = time.monotonic()
        found += engine.queue.sweep(queue)[0]
        took.append(time.monotonic() - started)
        return found == 50

    wait_until(swept)
    engine.close()
    return took
