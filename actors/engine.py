"""The stores of one process, made from a URL: its queue, its mailbox, its breakers."""

from __future__ import annotations

import time
from dataclasses import dataclass

from seawall.actors.memory_mailbox import MemoryMailbox
from seawall.actors.memory_queue import Clock, MemoryQueue
from seawall.actors.queue_store import LEASE, QueueStore
from seawall.actors.redis_mailbox import RedisMailbox
from seawall.actors.redis_queue import RedisQueue
from seawall.actors.replies import Mailbox
from seawall.actors.tally import Tally
from seawall.errors import ConfigurationError
from seawall.redis_link import ANSWER_TIMEOUT, RedisLink, shown_url
from seawall.supervisor.memory_store import MemoryStore
from seawall.supervisor.redis_store import RedisStore
from seawall.supervisor.store import BreakerStore

__all__ = ["MEMORY_URL", "Engine", "engine_from_url", "is_memory"]

MEMORY_URL = "memory://"
_REDIS_SCHEMES = ("redis", "rediss", "unix")

#: Seconds that a free trial is left to the supervisor before anybody else takes it.
SUPERVISOR_GRACE = 1.0


@dataclass(slots=True)
class Engine:
    """What a process needs of its broker. `durable` says whether calls outlive the process, `metered` whether attempts are counted."""

    queue: QueueStore
    mailbox: Mailbox
    breakers: BreakerStore
    tally: Tally
    durable: bool
    grace: float
    link: RedisLink | None = None
    metered: bool = True
    lease: float = LEASE
    """Seconds that a fetched call belongs to its worker without a renewal."""

    def close(self) -> None:
        """Close every connection. Safe twice."""
        for part in (self.tally, self.mailbox, self.queue, self.breakers, self.link):
            if part is not None:
                part.close()


def is_memory(url: str) -> bool:
    return not url or url.startswith(MEMORY_URL)


def engine_from_url(
    url: str,
    namespace: str = "seawall",
    *,
    lease: float = LEASE,
    answer_timeout: float = ANSWER_TIMEOUT,
    clock: Clock = time,
) -> Engine:
    """The engine for `memory://`, `redis://`, `rediss://` or `unix://`; nothing is connected yet.

    `answer_timeout` is how many seconds the broker may take for an answer. Raises ConfigurationError for any other scheme.
    """
    scheme = url.partition("://")[0]
    if is_memory(url):
        return _memory_engine(clock)
    if scheme in _REDIS_SCHEMES:
        return _redis_engine(RedisLink(url, answer_timeout=answer_timeout), namespace, lease)
    raise ConfigurationError(
        f"broker URL {shown_url(url)!r} starts with {scheme!r}; Seawall speaks memory://, redis://, rediss:// and unix://"
    )


def _memory_engine(clock: Clock) -> Engine:
    breakers = MemoryStore(clock)
    queue = MemoryQueue(record_of=lambda key: breakers.read(key)[0], clock=clock)
    mailbox = MemoryMailbox()
    queue.register(mailbox)
    return Engine(queue, mailbox, breakers, Tally(queue), durable=False, grace=0.0)


def _redis_engine(link: RedisLink, namespace: str, lease: float) -> Engine:
    queue = RedisQueue(link, namespace, lease=lease)
    return Engine(
        queue,
        RedisMailbox(link, namespace),
        RedisStore(link, namespace),
        Tally(queue),
        durable=True,
        grace=SUPERVISOR_GRACE,
        link=link,
        lease=lease,
    )
