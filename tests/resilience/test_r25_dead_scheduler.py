"""Row 25: the scheduler's thread dies. Stock: `running` stays True, the process lives, and nothing is done any more.

Here the supervisor notices, says so, and ends with an exit code of its own within 5 s, to be started again.
"""

from __future__ import annotations

import time
from pathlib import Path

from seawall.exits import Exit
from tests.acceptance.harness import Fleet, say
from tests.support import CountingService

PROMISED = 5.0

#: Ends APScheduler's thread as a cut connection of its store would: an error in update_job, as soon as the file is there.
CUT = """
from pathlib import Path
from apscheduler.jobstores.memory import MemoryJobStore
update = MemoryJobStore.update_job
def cut(self, job):
    if Path("cut").exists():
        raise ConnectionError("cut in the middle of an update")
    return update(self, job)
MemoryJobStore.update_job = cut
"""


def test_a_supervisor_whose_scheduler_died_ends_in_time(
    tmp_path: Path, redis_url: str, service: CountingService
) -> None:
    with Fleet(tmp_path, redis_url, {"any": {"url": service.url}}) as fleet:
        fleet.also(CUT)
        (supervisor,) = fleet.start(supervisors=1)
        (fleet.folder / "cut").touch()
        began = time.monotonic()
        assert supervisor.wait() == Exit.SOFTWARE
        took = time.monotonic() - began
        assert fleet.leader() == 0, "it resigns, so that another one leads at once"
    say(f"a dead scheduler: the supervisor ended after {took:.1f} s")
    assert took < PROMISED
    assert "the scheduler no longer works (its thread has died)" in supervisor.text
