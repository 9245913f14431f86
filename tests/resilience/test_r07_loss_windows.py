"""Row 7: what a crash of the broker loses. Stock: unstated. Failover comes with the distributed engines; see docs/reliability.md.

What a `kill -9` of the one server there is takes with it, for each persistence setting. A power cut cannot be played here.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from seawall import BrokerUnavailable, ResilientServiceClient
from seawall.broker_check import broker_problems
from seawall.settings import load_settings
from tests.resilience.scene import running
from tests.support import CountingService, PrivateRedis, wait_until
from tests.support.house import caller

SENDERS, ENOUGH = 4, 200


def accepted_before_a_kill(
    server: PrivateRedis, client: ResilientServiceClient, *, puts_off: bool = False
) -> list[str]:
    """Ids of the calls that were accepted by senders that go on until the server is gone.

    If it `puts_off` writing for as long as a sync of earlier writes lasts, they end before, and it dies once it has written.
    """
    accepted: list[str] = []
    gone = threading.Event()

    def send() -> None:
        while not gone.is_set():
            with contextlib.suppress(BrokerUnavailable):
                accepted.append(client.enqueue("POST", "/sent").id)

    with ThreadPoolExecutor(SENDERS) as pool, server.client() as inside:
        senders = [pool.submit(send) for _ in range(SENDERS)]
        try:
            wait_until(lambda: len(accepted) >= ENOUGH)
            if puts_off:
                gone.set()
                wait(senders)
                wait_until(lambda: inside.info("persistence")["aof_buffer_length"] == 0)
            server.kill()
        finally:
            gone.set()
    return accepted


def what_became(client: ResilientServiceClient, ids: list[str]) -> set[str]:
    return {str(client.handle(id).status()) for id in ids}


@pytest.mark.parametrize("fsync", ["always", "everysec", "no"])
def test_with_an_append_only_file_nothing_accepted_is_lost(
    fsync: str, tmp_path: Path, service: CountingService
) -> None:
    server = PrivateRedis(tmp_path, appendfsync=fsync)
    with running(server), caller(server.url):
        client = ResilientServiceClient(service.url, "Kept", key="kept")
        accepted = accepted_before_a_kill(server, client, puts_off=fsync == "everysec")
        server.restart()
        assert what_became(client, accepted) == {"queued"}
        assert broker_problems(load_settings({"broker_url": server.url})) == []


def test_with_snapshots_only_what_came_after_the_last_one_is_lost(tmp_path: Path, service: CountingService) -> None:
    server = PrivateRedis(tmp_path, appendonly="no", save="3600 1")
    with running(server), caller(server.url):
        client = ResilientServiceClient(service.url, "Saved", key="saved")
        before = [client.enqueue("POST", "/before").id for _ in range(5)]
        with server.client() as inside:
            inside.save()
        after = accepted_before_a_kill(server, client)
        server.restart()
        assert what_became(client, before) == {"queued"}
        assert what_became(client, after) == {"gone"}
        (problem,) = broker_problems(load_settings({"broker_url": server.url}))
    assert "it loses the calls since the last save when it dies" in str(problem)


def test_with_nothing_on_disk_all_is_lost_and_the_check_says_so(tmp_path: Path, service: CountingService) -> None:
    server = PrivateRedis(tmp_path, appendonly="no")
    with running(server), caller(server.url):
        client = ResilientServiceClient(service.url, "Lost", key="lost")
        accepted = accepted_before_a_kill(server, client)
        server.restart()
        assert what_became(client, accepted) == {"gone"}
        (problem,) = broker_problems(load_settings({"broker_url": server.url}))
    assert "keeps nothing on disk" in str(problem)
