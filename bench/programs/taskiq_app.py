"""taskiq: asynchronous on both sides, aiohttp for the call, results in Redis."""

from __future__ import annotations

import asyncio
import os
import time

import aiohttp
from protocol import Driver
from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

#: Seconds between two looks for a result; its default of 0.2 would be most of the latency.
LOOK = 0.001

backend = RedisAsyncResultBackend(os.environ["BENCH_BROKER"], result_ex_time=60)
broker = ListQueueBroker(os.environ["BENCH_BROKER"]).with_result_backend(backend)
URL = os.environ["BENCH_UPSTREAM"] + "/item"


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_session(state: TaskiqState) -> None:
    state.session = aiohttp.ClientSession()


async def _get() -> str:
    async with broker.state.session.get(URL) as response:
        response.raise_for_status()
        return await response.text()


@broker.task(task_name="waited")
async def waited() -> str:
    return await _get()


@broker.task(task_name="background")
async def background() -> None:
    await _get()


class Taskiq(Driver):
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(broker.startup())

    async def _call(self) -> None:
        task = await waited.kiq()
        await task.wait_result(check_interval=LOOK, timeout=20)

    def call(self) -> None:
        self._loop.run_until_complete(self._call())

    def enqueue(self) -> None:
        self._loop.run_until_complete(background.kiq())

    def enqueue_many(self, calls: int) -> None:
        async def everything() -> None:
            for _ in range(calls):
                await background.kiq()

        self._loop.run_until_complete(everything())

    def burst(self, callers: int, seconds: float) -> tuple[list[float], float]:
        latencies: list[float] = []
        started = time.perf_counter()

        async def work() -> None:
            while (before := time.perf_counter()) < started + seconds:
                await self._call()
                latencies.append(time.perf_counter() - before)

        async def everybody() -> None:
            await asyncio.gather(*[work() for _ in range(callers)])

        self._loop.run_until_complete(everybody())
        return latencies, time.perf_counter() - started


if __name__ == "__main__":
    Taskiq().serve()
