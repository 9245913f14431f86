"""Row 24: two schedulers. Stock: APScheduler knows nothing of another one: 11 of 12 seconds ran twice.

Here one of them leads, by a lease with a fencing number; one that was paused beyond its lease does nothing twice.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from tests.acceptance.harness import Fleet, opened, say
from tests.support import Answer, CountingService

#: Seconds between ticks, and between trials.
EVERY, RECOVERY = 1, 0.5
#: What two readings of a clock may differ by: a request arrives some time after its trial was taken.
TOLERANCE = 0.05
SOME = 2


def test_a_paused_leader_does_nothing_twice(tmp_path: Path, redis_url: str, service: CountingService) -> None:
    with CountingService() as sick:
        sick.script("*", Answer(500))
        declared = {
            "tally": {"url": service.url},
            "sick": {
                "url": sick.url, "health_path": "/health", "recovery_timeout": RECOVERY,
                "max_retries": 1, "failure_threshold": 1,
                "timeout": 2.5,  # a trial that arrives late is over only then, so that the next one is as late
            },
        }  # fmt: skip
        with Fleet(tmp_path, redis_url, declared) as fleet:
            fleet.also(f"tally.schedule('beat', 'POST', '/beat', every={EVERY})")
            fleet.start(workers=1, supervisors=2)
            fleet.enqueue("sick", ["/trip"])
            opened(fleet, "sick")

            def some_more() -> None:
                service.wait_for(service.count() + SOME, timeout=20)
                sick.wait_for(sick.count("/health") + SOME, path="/health", timeout=20)

            some_more()
            fleet.pause_the_leader(some_more)
            some_more()
    beats = [request.at for request in service.requests]
    trials = [request.at for request in sick.matching("/health")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(trials)]
    say(
        f"two supervisors: {len(beats)} ticks in {beats[-1] - beats[0]:.1f} s, {len(trials)} trials, {min(gaps):.2f} s apart"
    )
    assert len(beats) <= (beats[-1] - beats[0]) / EVERY + 4, "a tick ran twice"
    assert len({request.headers["idempotency-key"] for request in service.requests}) == len(beats)
    assert min(gaps) >= RECOVERY - TOLERANCE
