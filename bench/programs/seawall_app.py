"""Seawall: the client as a user declares it; `seawall worker seawall_app` serves it."""

from __future__ import annotations

import os

from protocol import Driver

from seawall import ResilientServiceClient

client = ResilientServiceClient(
    os.environ["BENCH_UPSTREAM"], service_name="Upstream", key="upstream", queue_cap=10_000_000, concurrency=8
)


class Seawall(Driver):
    def call(self) -> None:
        client.get("/item").raise_for_status()

    def enqueue(self) -> None:
        client.fire("GET", "/item")

    def enqueue_many(self, calls: int) -> None:
        answers = client.enqueue_many([("GET", "/item", {"keep_result": 0})] * calls)
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        if failed:
            raise failed[0]


if __name__ == "__main__":
    Seawall().serve()
