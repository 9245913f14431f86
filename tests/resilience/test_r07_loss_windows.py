"""Row 7: what a crash of the broker loses. Stock: unstated. Failover comes with the distributed engines; see docs/reliability.md.

What a `kill -9` of the one server there is takes with it, for each persistence setting. A power cut cannot be played here.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from seawall import BrokerUnavailable, ResilientServiceClient
from seawall.broker_check import broker_problems
from seawall.settings import load_settings
from tests.resilience.scene import running
from tests.support import CountingService, PrivateRedis, wait_until
from tests.support.house import caller

SENDERS, ENOUGH = 4, 200


def accepted_before_a_kill(server: PrivateRedis, client: ResilientServiceClient) -> list[str]:
    """Ids of the calls that were accepted by senders that go on until the server is gone."""
    accepted: list[str] = []

    def send() -> None:
        while True:
            try:
                accepted.append(client.enqueue("POST", "/sent").id)
            except BrokerUnavailable:
                return

    with ThreadPoolExecutor(SENDERS) as pool:
        for _ in range(SENDERS):
            pool.submit(send)
        wait_until(lambda: len(accepted) >= ENOUGH)
        server.kill()
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
        accepted = accepted_before_a_kill(server, client)
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
