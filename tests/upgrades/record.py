"""`python -m tests.upgrades.record`: write what this release leaves in a broker, for later releases to meet.

Run it once when a release is made, and keep the file beside those of earlier releases: tests/upgrades/<version>.json.
"""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seawall.actors.engine import engine_from_url
from seawall.actors.queue_store import Bury, Done, Group, Later, Put, Want
from seawall.actors.record import Attempt, Call, Progress, encode
from seawall.actors.replies import Outcome
from seawall.supervisor.breaker import CallFailed, Policy
from seawall.supervisor.view import BreakerView
from tests.integration.stores import answer
from tests.support import PrivateRedis
from tests.upgrades.keyspace import read_namespace

__all__ = ["KEY", "PORT", "fill"]

KEY, PORT = "old", 59999
#: Seconds: nothing that was recorded expires before it is met.
FOR_EVER = 20 * 365 * 86400.0
FAILED = Attempt(1_700_000_000.0, "Server error 500", 0.25)


def call(id: str, **more: Any) -> Call:
    headers = (("Content-Type", "application/json"), ("Idempotency-Key", id))
    about = {"service": KEY, "origin": f"http://127.0.0.1:{PORT}", "method": "POST", "headers": headers}
    return Call(id=id, target=f"/{id}", body=b'{"from": "the past"}', created=1_700_000_000.0, **about, **more)


def fill(url: str, namespace: str) -> None:
    """Calls in every place in which a stopped fleet leaves them, and an open breaker."""
    engine = engine_from_url(url, namespace)
    queue, name = engine.queue, f"{KEY}.background"
    try:
        _put(queue, "finished", keep_result=FOR_EVER)
        _settle(queue, "finished", Done(Outcome(response=answer(201, b"kept")), keep=FOR_EVER))
        _put(queue, "buried")
        _settle(queue, "buried", Bury("rounds used up", progress=Progress().failed_round(FAILED)))
        _put(queue, "failed-once")
        _settle(queue, "failed-once", Later(0.001, Progress().failed_attempt(FAILED)))
        _put(queue, "of-a-dead-worker")
        queue.fetch([Group(1, (Want(name, "", 1),))])
        _put(queue, "delayed", delay=0.001)
        _put(queue, "coalesced", coalesce="project")
        _put(queue, "deduped", dedupe="once", dedupe_window=FOR_EVER)
        _put(queue, "of-a-schedule", tick=("nightly", 1_700_000_000.0))
        _put(queue, "plain", retry_on=(503, "timeout"), rounds=7, on_open="hold", max_attempts=2, timeout=5.0)
        view = BreakerView(KEY, "Old", engine.breakers, Policy(1, 0.5, 15.0, 0.1))
        view.start()
        view.apply(CallFailed(0.0, 0, "Connection refused"))
        queue.count({(KEY, "skipped"): 3})
    finally:
        engine.close()


def _put(queue: Any, id: str, **more: Any) -> None:
    how = {name: more.pop(name) for name in list(more) if name in Put.__struct_fields__}
    accepted = queue.put([Put(f"{KEY}.background", id, encode(call(id, **more)), expires_in=FOR_EVER, **how)])[0]
    assert getattr(accepted, "accepted", False), accepted


def _settle(queue: Any, id: str, settlement: Any) -> None:
    (delivery,) = queue.fetch([Group(1, (Want(f"{KEY}.background", "", 1),))]).deliveries
    assert delivery.id == id
    queue.settle(delivery, settlement)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="seawall-record-") as folder:
        server = PrivateRedis(Path(folder))
        server.start()
        try:
            fill(server.url, "recorded")
            with server.client() as client:
                document = read_namespace(client, "recorded")
        finally:
            server.stop()
    path = Path(__file__).parent / f"{version('seawall')}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {path.name}: {len(document)} keys")


if __name__ == "__main__":
    main()
