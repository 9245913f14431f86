"""The processes of a chaos run: who takes which place, when, and how each of them ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.programs import Program
from tests.support.signals import catches

__all__ = ["Life", "Member"]


@dataclass
class Life:
    """One process from its start to its end, on the monotonic clock. `who` is `worker-1.2` for the third `worker-1`."""

    who: str
    pid: int
    started: float
    ended: float = float("inf")
    how: str = ""
    """`killed`, `terminated` (or about to be), `by itself`, or `not on SIGTERM`: killed because it did not obey."""
    asked: float = 0.0
    """When it got its SIGTERM."""
    listened: bool = True
    """It had a handler for it by then: Python had come as far as to Seawall."""
    code: int | None = None
    stops: list[tuple[float, float]] = field(default_factory=list)
    """When it was stopped (SIGSTOP), from and until."""


class Member:
    """A place in the world, and the processes that take it one after the other."""

    def __init__(self, name: str, folder: Path, launch: Callable[[str, Path], Program]) -> None:
        """`launch` starts a process under the name of its life, with its output appended to a file."""
        self.name = name
        self.lives: list[Life] = []
        self._log = folder / f"{name}.log"
        self._launch = launch
        self._program: Program | None = None
        self._stopped_at = 0.0

    @property
    def life(self) -> Life:
        return self.lives[-1]

    @property
    def runs(self) -> bool:
        return self._program is not None

    def start(self) -> None:
        if self._program is not None:
            return
        who = f"{self.name}.{len(self.lives)}"
        self._program = self._launch(who, self._log)
        self.lives.append(Life(who, self._program.pid, time.monotonic()))

    def kill(self) -> None:
        if (program := self._program) is not None:
            program.kill()
            self._over("killed", program)

    def terminate(self) -> None:
        if self._program is not None and not self.life.how:
            self.life.listened = catches(self.life.pid, signal.SIGTERM)
            self.life.how, self.life.asked = "terminated", time.monotonic()
            self._program.terminate()

    def ended(self) -> bool:
        """Whether it has ended after `terminate`; a process that ended by itself is noted as such."""
        if (program := self._program) is not None and program.popen.poll() is not None:
            self._over(self.life.how or "by itself", program)
        return self._program is None

    def stop(self) -> None:
        if self._program is not None:
            self._program.signal(signal.SIGSTOP)
            self._stopped_at = time.monotonic()

    def resume(self) -> None:
        if self._program is not None and self._stopped_at:
            self._program.signal(signal.SIGCONT)
            self.life.stops.append((self._stopped_at, time.monotonic()))
        self._stopped_at = 0.0

    def _over(self, how: str, program: Program) -> None:
        if self._stopped_at:
            self.life.stops.append((self._stopped_at, time.monotonic()))
            self._stopped_at = 0.0
        self.life.ended, self.life.how, self.life.code = time.monotonic(), how, program.popen.returncode
        program.close()
        self._program = None
