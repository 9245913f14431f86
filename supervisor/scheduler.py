"""The APScheduler of a Seawall process: timers in memory, in UTC, each job on a thread of its own."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import datetime
from typing import Any

from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.schedulers.background import BackgroundScheduler

__all__ = ["make_scheduler", "thread_is_alive"]


class ThreadPerJob(BaseExecutor):  # type: ignore[misc]  # APScheduler is untyped
    """A daemon thread for every run. In a pool, a few slow health checks would hold up the leader's lease; and a pool's
    threads are waited for at exit, however long their service takes to answer."""

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        threading.Thread(target=self._run, args=(job, run_times), name=f"seawall-{job.id}", daemon=True).start()

    def _run(self, job: Any, run_times: list[datetime]) -> None:
        try:
            events = run_job(job, job._jobstore_alias, run_times, self._logger.name)
        except BaseException:
            self._run_job_error(job.id, *sys.exc_info()[1:])
        else:
            self._run_job_success(job.id, events)


def make_scheduler() -> Any:
    """A BackgroundScheduler that is not started yet. Nothing of it is stored anywhere, so nothing is pickled."""
    log = logging.getLogger("seawall.supervisor.scheduler")
    log.setLevel(logging.ERROR)  # below that: every job, and every tick that an outage of the broker held up
    return BackgroundScheduler(timezone="UTC", executors={"default": ThreadPerJob()}, logger=log)


def thread_is_alive(scheduler: Any) -> bool:
    """Whether the thread of a started scheduler runs. `running` stays True when an error has ended it."""
    thread = getattr(scheduler, "_thread", None)
    return thread is not None and thread.is_alive()
