"""Row 5: Redis stops answering and goes on (SIGSTOP, SIGCONT). Stock: the client's retry repeats the script: one send, two runs.

Here a command is never repeated by the link, whoever is unsure is told so, and one who repeats does it under the same id.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from seawall import BrokerUnavailable, ResilientServiceClient
from seawall.redis_link import ANSWER_TIMEOUT
from tests.resilience.scene import calling, drained
from tests.support import CountingService, PrivateRedis, wait_until

#: Calls that are sent before the freeze, and as many in it: half of these are not repeated, half are until they are accepted.
CALLS = 400
SENDERS = 8


def test_what_is_sent_into_a_freeze_runs_once(own_redis: PrivateRedis, service: CountingService) -> None:
    unsure: list[str] = []

    with calling(own_redis.url, supervised=False, answer_timeout=ANSWER_TIMEOUT):
        client = ResilientServiceClient(service.url, "Once", key="once")

        def send(path: str) -> None:
            """At most once: in doubt it is left alone."""
            try:
                client.enqueue("POST", path)
            except BrokerUnavailable:
                unsure.append(path)

        def insist(path: str) -> None:
            """Repeated until it is accepted. `dedupe` makes the repetition the same call."""
            while True:
                try:
                    client.enqueue("POST", path, dedupe=path)
                    return
                except BrokerUnavailable:
                    unsure.append(path)

        with ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(send, [f"/before/{number}" for number in range(CALLS)]))
            already = len(unsure)  # a machine that stands still for a second is a freeze as well
            own_redis.freeze()
            jobs = [pool.submit(send, f"/sent/{number}") for number in range(CALLS // 2)]
            jobs += [pool.submit(insist, f"/insisted/{number}") for number in range(CALLS // 2)]
            wait_until(lambda: len(unsure) > already)
            own_redis.thaw()
            for job in jobs:
                job.result(20)
        wait_until(lambda: drained("once"), 30)
    runs = Counter(request.path for request in service.requests)
    assert set(runs.values()) == {1}, "no call runs twice"
    accepted = {f"/before/{number}" for number in range(CALLS)} | {f"/sent/{number}" for number in range(CALLS // 2)}
    accepted -= set(unsure)
    accepted |= {f"/insisted/{number}" for number in range(CALLS // 2)}
    assert accepted <= set(runs), "none that was accepted is missing"
