"""Leases have to be longer than the heartbeats that renew them are apart."""

from __future__ import annotations

import pytest

from seawall import ConfigurationError
from seawall.actors.engine import engine_from_url
from seawall.actors.token import TokenSource
from seawall.actors.views import Views
from seawall.workers.worker import BEAT_SECONDS, BEATS_IN_LEASE, CallWorker


def worker(lease: float) -> CallWorker:
    engine = engine_from_url("redis://127.0.0.1:1", lease=lease)  # nothing is connected yet
    return CallWorker(engine, Views(engine.breakers, grace=0), TokenSource())


@pytest.mark.parametrize("lease", [0, BEAT_SECONDS, 2 * BEAT_SECONDS])
def test_too_short_a_lease_is_an_error(lease: float) -> None:
    with pytest.raises(ConfigurationError, match=r"is too short for a heartbeat each 1 s.* make it 3 s or longer"):
        worker(lease)


def test_the_shortest_one_will_do() -> None:
    worker(BEATS_IN_LEASE * BEAT_SECONDS)
