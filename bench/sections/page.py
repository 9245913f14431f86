"""The web process under many who look: streams of the page, and scrapes of the metrics, over a fleet that changes all the time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import Any

import psutil

from bench.figures import Check, Result
from bench.services import cpu_seconds, free_port, wait_until
from bench.stage import Stage
from seawall.actors.engine import Engine, engine_from_url
from seawall.actors.queue_store import Put
from seawall.actors.record import Call, encode, new_call_id
from seawall.actors.service import queue_names

#: Who looks, and how often a scraper asks a second.
STREAMS, SCRAPES = 50, 20
#: Services of the fleet, and seconds between two changes of each one's numbers.
SERVICES, CHANGE = 10, 0.5
#: Seconds before measuring: everything is loaded, every stream has its first message.
WARM_UP = 4.0
DAY = 24 * 3600.0
MEGABYTE = 1_000_000


def run(stage: Stage) -> Result:
    stage.broker.clear()
    seconds = stage.pace.held_seconds * 2
    with ExitStack() as stack:
        engine = engine_from_url(stage.broker.url)
        stack.callback(engine.close)
        done = threading.Event()
        changing = threading.Thread(target=_change, args=(engine, done))
        changing.start()
        stack.callback(changing.join)
        stack.callback(done.set)
        port = free_port()
        stack.enter_context(_process(stage, "supervisor"))
        web = stack.enter_context(_process(stage, "web", "--port", str(port)))
        wait_until(lambda: _listens(port), 15, "the web process listens")
        rows: list[tuple[Any, ...]] = []
        data: dict[str, Any] = {}
        for name, streams, scrapes in (("nobody", 0, 0), ("everybody", STREAMS, SCRAPES)):
            stage.say(f"page: {streams} streams, {scrapes} scrapes a second")
            found = asyncio.run(_measure(web.pid, port, streams, scrapes, seconds))
            data[name] = found
            rows.append((f"{streams} streams, {scrapes} scrapes/s", *found.values()))
    stage.broker.clear()
    most = data["everybody"]
    checks = [
        Check("the web process's share of a core", most["cpu"], 20.0, unit="%"),
        Check("its resident memory", most["memory_mb"], 150.0, unit="MB"),
        Check("scrapes answered a second", most["scrapes"], SCRAPES * 0.95, at_most=False, unit="/s"),
    ]
    notes = [
        f"{SERVICES} services, each one's numbers change twice a second. A stream's messages and bytes are a second's."
    ]
    columns = ("who looks", "% of a core", "resident MB", "scrapes/s", "messages/s a stream", "kB/s a stream")
    return Result("The page and the metrics", columns, rows, data, checks, notes)


def _process(stage: Stage, *words: str) -> _Ended:
    environ = {**os.environ, "SEAWALL_BROKER_URL": stage.broker.url, "SEAWALL_LOG_LEVEL": "error"}
    return _Ended(subprocess.Popen([sys.executable, "-m", "seawall", *words], env=environ, cwd=stage.folder))


class _Ended:
    """A process for a `with`, ended with it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    def __enter__(self) -> _Ended:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(15)


def _listens(port: int) -> bool:
    return any(c.laddr.port == port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN)


def _change(engine: Engine, done: threading.Event) -> None:
    """A call more in every queue, and calls that ended, again and again."""
    keys = [f"service-{number}" for number in range(SERVICES)]
    while not done.wait(CHANGE):
        engine.queue.put([_put(key) for key in keys])
        engine.queue.count({(key, "calls.waited.succeeded"): 7 for key in keys} | {(key, "took.3"): 7 for key in keys})


def _put(key: str) -> Put:
    id = new_call_id()
    call = Call(id=id, service=key, origin="http://127.0.0.1:80", method="GET", target="/item")
    return Put(queue_names(key)[1], id, encode(call), expires_in=DAY)


async def _measure(pid: int, port: int, streams: int, scrapes: int, seconds: float) -> dict[str, float]:
    """Share of a core, memory, and what was served, while so many look."""
    counts = {"messages": 0, "bytes": 0, "scrapes": 0}
    looking = [asyncio.create_task(_stream(port, counts)) for _ in range(streams)]
    if scrapes:
        looking.append(asyncio.create_task(_scrape(port, scrapes, counts)))
    await asyncio.sleep(WARM_UP)
    counts.update(dict.fromkeys(counts, 0))
    before, began = cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    share = (cpu_seconds(pid) - before) / took * 100
    for task in looking:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*looking, return_exceptions=True)
    each = max(1, streams) * took
    return {
        "cpu": share,
        "memory_mb": psutil.Process(pid).memory_info().rss / MEGABYTE,
        "scrapes": counts["scrapes"] / took,
        "messages": counts["messages"] / each,
        "kilobytes": counts["bytes"] / 1000 / each,
    }


async def _stream(port: int, counts: dict[str, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while line := await reader.readline():
        counts["bytes"] += len(line)
        counts["messages"] += line.startswith(b"id: ")
    raise ConnectionError("the stream ended")


async def _scrape(port: int, a_second: int, counts: dict[str, int]) -> None:
    """One scraper after the other, each on a connection of its own, as Prometheus would keep it."""
    connections = [await asyncio.open_connection("127.0.0.1", port, limit=1 << 22) for _ in range(a_second)]
    due = time.monotonic()
    while True:
        for reader, writer in connections:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            counts["scrapes"] += 1
            due += 1 / a_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
