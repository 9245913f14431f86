"""Running things at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

__all__ = ["run_together"]


def run_together(jobs: Sequence[Callable[[], object]], timeout: float = 10.0) -> None:
    """Run each job on a thread of its own, from a common start. Fails the test when one fails or does not end in time."""
    ready = threading.Barrier(len(jobs))
    errors: list[BaseException] = []

    def run(job: Callable[[], object]) -> None:
        try:
            ready.wait(timeout)
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads), f"not done within {timeout} s"
