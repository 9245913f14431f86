"""Celery over Redis, results in Redis."""

from __future__ import annotations

import os

from celery import Celery
from fetch import fetch
from protocol import Driver

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BROKER"])
app.conf.update(broker_connection_retry_on_startup=True, task_default_queue=os.environ.get("BENCH_QUEUE", "celery"))


@app.task(name="waited")
def waited() -> str:
    return fetch()


@app.task(name="background", ignore_result=True)
def background() -> None:
    fetch()


class CeleryDriver(Driver):
    def call(self) -> None:
        waited.delay().get(timeout=20)

    def enqueue(self) -> None:
        background.delay()


if __name__ == "__main__":
    CeleryDriver().serve()
