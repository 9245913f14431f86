"""A worker that has said goodbye is shown nowhere any more, while its last calls run under their leases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from seawall import ResilientServiceClient
from tests.support import Answer, CountingService, wait_until
from tests.support.house import RemoteHouse


def test_it_renews_its_leases_and_reports_no_more(
    house: RemoteHouse, service: CountingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, release, beats = house._engine.queue, threading.Event(), []
    beat = queue.beat

    def noted(worker: str, report: bytes, queues: Any, held: Any) -> Any:
        lost = beat(worker, report, queues, held)
        beats.append((len(held), lost))
        return lost

    service.script("*", Answer(hold=release))
    handle = ResilientServiceClient(service.url, "Chroma Server").enqueue("POST", "/slow")
    service.wait_for(1)
    assert len(queue.workers()) == 1
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(house.worker.stop, 30)
        wait_until(lambda: queue.workers() == [])
        monkeypatch.setattr(queue, "beat", noted)
        wait_until(lambda: len(beats) == 2)
        assert beats == [(1, [])] * 2
        assert queue.workers() == []
        release.set()
        stopping.result(20)
    assert handle.result(20).status_code == 200
    assert service.count() == 1


def test_no_heartbeat_that_was_under_way_comes_after_it(
    house: RemoteHouse, service: CountingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    ResilientServiceClient(service.url, "Chroma Server")
    queue = house._engine.queue
    beat, leave, under_way, left = queue.beat, queue.leave, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        under_way.set()
        left.wait(0.5)  # a goodbye that does not wait comes in between
        return beat(*arguments)

    def goodbye(*arguments: Any) -> None:
        leave(*arguments)
        left.set()

    monkeypatch.setattr(queue, "beat", slow)
    monkeypatch.setattr(queue, "leave", goodbye)
    assert under_way.wait(20)
    house.worker.stop(5)
    assert queue.workers() == []
