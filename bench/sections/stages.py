"""Where the time of one waited-for call goes: the seams between the parts, in the caller and in the worker, by one clock."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

from bench.contenders import OWN, PROGRAMS, SEAWALL
from bench.figures import Result, median
from bench.services import wait_until
from bench.stage import Stage

#: Calls back to back, and those at the start that warm up.
CALLS, WARM = 400, 100
#: From what to what a stage is, in the order of a call's way.
STAGES = (
    ("asked", "prepared", "caller: arguments checked, request prepared, breaker asked"),
    ("prepared", "received", "broker: queued, and handed to an idle worker"),
    ("received", "started", "worker: record read, Dramatiq's thread and middleware"),
    ("started", "sent", "worker: breaker, token, request written as bytes"),
    ("sent", "answered", "the service: one request on a kept connection"),
    ("answered", "judged", "worker: answer judged, breaker told"),
    ("judged", "settling", "worker: Dramatiq's way back"),
    ("settling", "delivered", "broker: settled, and the reply read by the caller"),
    ("delivered", "returned", "caller: response returned"),
)


def run(stage: Stage) -> Result:
    stage.broker.clear()
    stage.say("stages of a call")
    environment = SEAWALL.environment(stage.upstream.url, stage.broker.url)
    notes = stage.folder / "stages"
    worker = subprocess.Popen(
        [str(OWN / "python"), str(PROGRAMS / "stages_worker.py"), str(notes)],
        env=environment,
        cwd=PROGRAMS,
        stderr=subprocess.DEVNULL,
    )
    try:
        moments = _caller(stage, environment)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(20)
    for line in notes.read_text().splitlines():
        id, name, at = line.split()
        if id in moments:
            moments[id][name] = float(at)
    whole = [found for found in list(moments.values())[WARM:] if len(found) == len(STAGES) + 1]
    micros = {what: median([one[to] - one[since] for one in whole]) * 1e6 for since, to, what in STAGES}
    total = median([one["returned"] - one["asked"] for one in whole]) * 1e6
    rows: list[tuple[Any, ...]] = [(what, us, f"{us / total:.0%}") for what, us in micros.items()]
    rows.append(("the whole call", total, "100%"))
    note = f"Medians of {len(whole)} calls back to back; medians do not quite add up."
    return Result(
        "Where a call's time goes", ("stage", "us", "share"), rows, {"us": micros, "total": total}, notes=[note]
    )


def _caller(stage: Stage, environment: dict[str, str]) -> dict[str, dict[str, float]]:
    """Moments of each call in this process, by its id."""
    from seawall import ResilientServiceClient, client, runtime
    from seawall.actors.redis_mailbox import RedisMailbox

    os.environ["SEAWALL_BROKER_URL"] = environment["SEAWALL_BROKER_URL"]
    moments: dict[str, dict[str, float]] = {}
    waited, deliver = client.call_and_wait, RedisMailbox._deliver
    running: list[str] = []

    def call_and_wait(house: Any, service: Any, call: Any, *more: Any) -> Any:
        moments[call.id] = {"prepared": time.monotonic()}
        running[:] = [call.id]
        return waited(house, service, call, *more)

    def delivering(self: Any, payload: bytes) -> None:
        moments[running[0]]["delivered"] = time.monotonic()
        deliver(self, payload)

    client.call_and_wait, RedisMailbox._deliver = call_and_wait, delivering  # type: ignore[method-assign]
    try:
        upstream = ResilientServiceClient(stage.upstream.url, service_name="Upstream", key="upstream")
        wait_until(lambda: runtime.current().engine.queue.workers(), 20, "the worker serves")
        for _ in range(CALLS):
            asked = time.monotonic()
            upstream.get("/item")
            moments[running[0]] |= {"asked": asked, "returned": time.monotonic()}
    finally:
        client.call_and_wait, RedisMailbox._deliver = waited, deliver  # type: ignore[method-assign]
        house = runtime.replace(None)
        if house is not None:
            house.close()
    return moments
