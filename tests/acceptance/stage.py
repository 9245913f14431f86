"""Scenarios that mostly wait are played at once, each on a fleet of its own, so that the suite stays short."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["Stage", "playing", "say"]


class Stage:
    """Plays scenarios at once, on threads, `together` of them at a time. The test named after a scenario asks for its result.

    A scenario is a function of a folder of its own; what it raises is raised in its test.
    """

    def __init__(
        self, folder: Path, scenarios: Mapping[str, Callable[[Path], Any]], *, together: int | None = None
    ) -> None:
        self._pool = ThreadPoolExecutor(together or len(scenarios))
        self._plays: dict[str, Future[Any]] = {}
        for name, play in scenarios.items():
            place = folder / name
            place.mkdir()
            self._plays[name] = self._pool.submit(play, place)

    def result(self, name: str, timeout: float = 120.0) -> Any:
        return self._plays[name].result(timeout)

    def close(self) -> None:
        """Wait for all of them: each clears up after itself."""
        self._pool.shutdown(wait=True)


@contextlib.contextmanager
def playing(folder: Path, *, together: int | None = None, **scenarios: Callable[[Path], Any]) -> Iterator[Stage]:
    stage = Stage(folder, scenarios, together=together)
    try:
        yield stage
    finally:
        stage.close()


def say(text: str) -> None:
    """A measured figure; `pytest -s` shows it."""
    print(f"\n    {text}", flush=True)
