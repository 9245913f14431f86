"""What the tests of RELIABILITY.md's rows share: a caller and a worker over a real server, and a child process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seawall import runtime as runtimes
from seawall.actors.queue_store import Counts
from seawall.actors.service import queue_names
from seawall.errors import BrokerUnavailable
from tests.support import PrivateRedis, wait_until
from tests.support.house import PATIENT, RemoteHouse, caller

__all__ = ["ROOT", "calling", "counts", "drained", "pass_time", "run_child", "running"]

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def calling(url: str, *, answer_timeout: float = PATIENT, **options: Any) -> Iterator[RemoteHouse]:
    """This process as a client of the broker at `url`, with a worker that shares nothing with it but the server."""
    with (
        caller(url, answer_timeout=answer_timeout),
        RemoteHouse(url, answer_timeout=answer_timeout, **options) as house,
    ):
        yield house


@contextmanager
def running(server: PrivateRedis) -> Iterator[PrivateRedis]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def counts(key: str) -> Counts:
    """Of the service's background queue."""
    return runtimes.current().engine.queue.counts([queue_names(key)[1]])[0]


def drained(key: str) -> bool:
    """Nothing waits or runs in either queue; False while the broker is away."""
    try:
        found = runtimes.current().engine.queue.counts(queue_names(key))
    except BrokerUnavailable:
        return False
    return all(each.ready + each.due + each.leased == 0 for each in found)


def pass_time(until: float) -> None:
    """Let the scenario's clock come to a monotonic time: how long an outage lasts is part of its story."""
    wait_until(lambda: time.monotonic() >= until, until - time.monotonic() + 10)


def run_child(program: str, *arguments: str, environ: dict[str, str] | None = None, timeout: float = 60) -> str:
    """What a Python program prints, run in a process of its own; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
