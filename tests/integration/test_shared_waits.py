"""Threads of a process that wait for the same call share a place, and one of them reads for all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from seawall.actors.queue_store import Done
from seawall.actors.redis_mailbox import RedisMailbox
from seawall.actors.replies import Outcome
from tests.integration.stores import RedisStores, accept, answer, one
from tests.support import wait_until

BACKGROUND = "chroma.background"


@pytest.fixture
def stores(redis_url: str) -> Iterator[RedisStores]:
    opened = RedisStores(redis_url, lease=5.0)
    yield opened
    opened.close()


def test_one_that_goes_away_leaves_the_reading_to_the_other(stores: RedisStores, redis_url: str) -> None:
    box = stores.mailbox()
    assert isinstance(box, RedisMailbox)
    accept(stores.queue, BACKGROUND, "a")
    delivery = one(stores.queue, BACKGROUND)
    first, second = (box.expect("a") for _ in range(2))
    assert stores.queue.watch(BACKGROUND, "a", box) is None
    with ThreadPoolExecutor(2) as pool, redis.Redis.from_url(redis_url) as inside:
        impatient = pool.submit(first.wait, 1.0)
        wait_until(lambda: box._reader is not None)
        patient = pool.submit(second.wait, 30.0)
        assert impatient.result(20) is None
        box.forget("a")
        stores.queue.settle(delivery, Done(Outcome(response=answer()), keep=5.0))
        wait_until(lambda: inside.xlen(f"test:mail:{box.address}") == 1)
        outcome = patient.result(10)  # nobody reads for the other twenty seconds, otherwise
    assert outcome is not None
    assert outcome.response.status_code == 200
