"""Schedulers that die, that are busy, and that are two."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from seawall.exits import Exit
from tests.acceptance.harness import Fleet, opened
from tests.measures.figures import Figure, at_most, exactly, measure
from tests.measures.stand import Stand
from tests.resilience import test_r25_dead_scheduler as dead
from tests.support import Answer

#: Ticks, one a second, those that are not looked at, and seconds by which one may be late.
TICKS, BUSY_TICKS, FIRST, LATE = 12, 10, 3, 0.5
#: Services whose health checks hang meanwhile: more than an APScheduler pool has threads.
HANGING = 15


@measure("X11")
def scheduler(stand: Stand) -> Iterator[Figure]:
    """First the scheduler's thread dies, then all that it could do at once is to wait."""
    url = stand.server().url
    fleet = stand.fleet(url, {"any": {"url": stand.service().url}})
    with (fleet.folder / "services.py").open("a") as module:
        module.write(dead.CUT)
    (supervisor,) = fleet.start(supervisors=1)
    (fleet.folder / "cut").touch()
    began = time.monotonic()
    code = supervisor.wait()
    took = time.monotonic() - began
    yield at_most("the scheduler's thread died: the process ended after", took, dead.PROMISED, stock="never")
    yield exactly("its exit code, to be started again", code, int(Exit.SOFTWARE), stock="none")

    ticks, hanging, hold = stand.service(), stand.service(), threading.Event()
    stand.at_end(hold.set)
    hanging.script("/health", Answer(hold=hold))
    hanging.script("*", Answer(500))
    sick = {
        "url": hanging.url, "health_path": "/health", "timeout": 60,
        "max_retries": 1, "failure_threshold": 1, "recovery_timeout": 0.5,
    }  # fmt: skip
    names = [f"sick{number}" for number in range(HANGING)]
    busy = stand.fleet(url, {"tally": {"url": ticks.url}, **dict.fromkeys(names, sick)})
    _every_second(busy)
    busy.start(workers=1, supervisors=1)
    for name in names:
        busy.enqueue(name, ["/trip"])
        opened(busy, name)
    hanging.wait_for(HANGING, path="/health", timeout=30)
    first = ticks.count()
    beats = ticks.wait_for(first + BUSY_TICKS, timeout=30)[first : first + BUSY_TICKS]
    ran = sum(beat.at < beats[0].at + BUSY_TICKS - 1 + LATE for beat in beats)
    what = f"ticks on time while {HANGING} health checks hang"
    yield exactly(what, f"{ran} of {BUSY_TICKS}", "10 of 10", stock="5 of 10")


@measure("X16")
def two(stand: Stand) -> Iterator[Figure]:
    service = stand.service()
    fleet = stand.fleet(stand.server().url, {"tally": {"url": service.url}})
    _every_second(fleet)
    fleet.start(workers=1, supervisors=2)
    service.wait_for(FIRST)  # one of them was late: the processes had just started
    beats = service.wait_for(FIRST + TICKS, timeout=3 * TICKS)[FIRST - 1 : FIRST + TICKS]
    twice = max(0, TICKS - round(beats[-1].at - beats[0].at))
    yield exactly(f"two supervisors, {TICKS} seconds: ticks that ran twice", twice, 0, stock="11 of 12")


def _every_second(fleet: Fleet) -> None:
    with (fleet.folder / "services.py").open("a") as module:
        module.write("tally.schedule('beat', 'POST', '/beat', every=1)\n")
