"""What `seawall status` says of a service, and of a `seawall up` in the folder that hangs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from seawall.actors.queue_store import Counts
from seawall.cli.status import _is_well, _meaning, _soon
from seawall.exits import Exit
from seawall.fleet import ServiceLine
from seawall.supervisor.breaker import Record
from seawall.supervisor.view import describe
from tests.support import PrivateRedis
from tests.unit.cli.conftest import Run


def counts(ready: int = 0, workers: int = 0) -> Counts:
    return Counts(ready=ready, due=0, leased=0, dead=0, workers=workers, oldest=0.0)


def line(*, paused: bool = False, workers: int = 1, waits: int = 0) -> ServiceLine:
    breaker = describe(Record(), name="Shop", key="shop", policy=Record(), now=1.0, as_of=1.0) | {"forced": False}
    return ServiceLine("shop", breaker, counts(workers=workers), counts(ready=waits), {}, paused=paused)


@pytest.mark.parametrize(
    ("found", "meaning"),
    [
        (line(), "healthy"),
        (line(workers=0), "no worker serves it"),
        (line(paused=True, waits=1), "paused by hand, 1 call waits; `seawall resume shop` lets it go on"),
        (line(paused=True), "paused by hand, 0 calls wait; `seawall resume shop` lets it go on"),
    ],
)
def test_meaning_tells_what_keeps_calls_from_going_out(found: ServiceLine, meaning: str) -> None:
    assert _meaning(found) == meaning
    assert _is_well(found) is (meaning == "healthy")


def test_trial_that_is_due_is_now() -> None:
    assert (_soon(0.2), _soon(3)) == ("now", "in 3 s")


@pytest.fixture
def hung(folder: Path) -> Iterator[PrivateRedis]:
    server = PrivateRedis(folder / ".seawall")
    server.start()
    server.freeze()
    yield server
    server.stop()


def test_hung_broker_of_the_folders_up_is_named(seawall_command: Run, hung: PrivateRedis, folder: Path) -> None:
    for words in (["status"], ["dead", "list"]):
        ran = seawall_command(*words)
        assert ran.code == Exit.UNAVAILABLE
        assert f"of the `seawall up` in {folder}, cannot be reached" in ran.err
    ran = seawall_command("health", "--role", "worker")
    assert (ran.code, json.loads(ran.out)["status"]) == (Exit.UNAVAILABLE, "fail")


def test_folder_without_an_up_is_named(seawall_command: Run, folder: Path) -> None:
    ran = seawall_command("status")
    assert ran.code == Exit.CONFIG
    assert f"no `seawall up` runs in {folder}" in ran.err
