"""Dead letters as a worker makes them, without a worker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import redis

from seawall.actors.prepare import IDEMPOTENCY_KEY
from seawall.actors.queue_store import Accepted, Bury, Group, Put, QueueStore, Want
from seawall.actors.record import Call, encode, new_call_id
from seawall.actors.service import origin_of, queue_names

__all__ = ["age", "bury", "bury_calls"]

#: Calls fetched at once.
BATCH = 100


def bury_calls(
    store: QueueStore,
    key: str,
    targets: Iterable[str],
    *,
    url: str = "http://127.0.0.1:9",
    reason: str = "rounds used up",
    headers: Mapping[str, str] | None = None,
) -> list[str]:
    """POSTs of these targets (paths with their queries), as a client queues them, in the dead letters; their ids."""
    targets = list(targets)
    ids = sorted(new_call_id() for _ in targets)  # letters that died in the same millisecond are in the order of these
    calls = [
        Call(
            id=id,
            service=key,
            origin=origin_of(url),
            method="POST",
            target=target,
            headers=((IDEMPOTENCY_KEY, id), *(headers or {}).items()),
        )
        for id, target in zip(ids, targets, strict=True)
    ]
    bury(store, queue_names(key)[1], {call.id: encode(call) for call in calls}, reason=reason)
    return ids


def bury(store: QueueStore, queue: str, payloads: Mapping[str, bytes], *, reason: str) -> None:
    """These messages in the dead letters. Nobody else may fetch from the queue meanwhile."""
    accepted = store.put([Put(queue, id, payload) for id, payload in payloads.items()])
    assert all(isinstance(answer, Accepted) and answer.accepted for answer in accepted), accepted
    buried = 0
    while deliveries := store.fetch([Group(BATCH, (Want(queue, "", BATCH),))]).deliveries:
        buried += sum(store.settle(delivery, Bury(reason)) for delivery in deliveries)
    assert buried == len(payloads)


def age(client: redis.Redis, namespace: str, queue: str, ids: Iterable[str], seconds: float) -> None:
    """Have these letters died so many seconds earlier."""
    for id in ids:
        client.zincrby(f"{namespace}:q:{queue}:dead", -1000 * seconds, id)
