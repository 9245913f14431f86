"""Row 10: Redis is out of memory. Stock: fetch and acknowledge are refused too, so that the queue cannot drain; with an
eviction policy messages vanish.

Here new calls are refused and everything else goes on; a server that evicts is refused at the start.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from seawall import QueueFull, ResilientServiceClient
from seawall.exits import Exit
from tests.acceptance.harness import Fleet, Program
from tests.resilience.scene import counts, drained, running
from tests.support import CountingService, PrivateRedis, wait_until
from tests.support.house import RemoteHouse, caller

#: Bytes of one call's body.
BODY = b"x" * 100_000


def test_a_full_server_refuses_new_calls_and_drains(tmp_path: Path, service: CountingService) -> None:
    server = PrivateRedis(tmp_path, maxmemory="12mb")
    with running(server), caller(server.url), server.client() as inside:
        client = ResilientServiceClient(service.url, "Full", key="full")
        accepted = fill(client)
        inside.config_set("maxmemory", "11mb")  # so that not even the smallest write fits
        assert counts("full").ready == accepted
        with RemoteHouse(server.url):
            wait_until(lambda: drained("full"), 30, message="a full server does not drain")
            assert client.enqueue("POST", "/room-again").result(10).status_code == 200
    assert service.count() == accepted + 1


def fill(client: ResilientServiceClient) -> int:
    """Enqueue until the server takes no more; how many calls it took."""
    for number in range(1000):
        try:
            client.enqueue("POST", f"/{number}", data=BODY)
        except QueueFull:
            return number
    raise AssertionError("the server does not fill up")


@pytest.mark.parametrize("command", ["worker", "supervisor", "up"])
def test_a_server_that_evicts_is_refused_at_the_start(command: str, tmp_path: Path, service: CountingService) -> None:
    server = PrivateRedis(tmp_path / "server", maxmemory="100mb", maxmemory_policy="allkeys-lru")
    with running(server), Fleet(tmp_path, server.url, {"any": {"url": service.url}}) as fleet:
        if command == "up":
            program: Program = fleet.up("--no-web", "--broker-url", server.url)
        else:
            program = fleet.worker() if command == "worker" else fleet.supervisor()
        assert program.wait(30) == Exit.CONFIG
        assert "set maxmemory-policy noeviction" in program.text
