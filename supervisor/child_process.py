"""What a child process is: how it is described, started, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from seawall.exits import Exit

__all__ = ["ChildSpec", "Process", "how_it_ended", "start_process"]


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """`env` is added to this process's environment, `without` are variables of it that the child does not get.

    `grace` is the number of seconds between SIGTERM and SIGKILL. With `restart=False` it is a program that the others
    work for: when it ends, all end, with its exit code.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    grace: float
    restart: bool = True
    without: Collection[str] = ()


class Process(Protocol):
    """A started child, as subprocess.Popen has it."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """None while it runs, then its exit code; negative: the signal that ended it."""

    def send_signal(self, sig: int, /) -> None:
        """Does nothing once it has ended."""

    def kill(self) -> None:
        """End it, and what it started itself, at once. Does nothing once it has ended."""


class _SessionLeader(subprocess.Popen[bytes]):
    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended this moment
                os.killpg(self.pid, signal.SIGKILL)


def start_process(child: ChildSpec) -> Process:
    """Start it, with our standard output and error. Raises OSError.

    In a session of its own: ctrl-C in a terminal goes to every process of the foreground group, and a child that got
    it from there and our SIGTERM on top would take the second one for "exit now". So only we are told, and pass it on.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in child.without}
    return _SessionLeader(
        list(child.argv), env={**inherited, **child.env}, stdin=subprocess.DEVNULL, start_new_session=True
    )


def how_it_ended(code: int) -> str:
    """In words.

    >>> how_it_ended(70), how_it_ended(-9)
    ('ended with exit code 70 (SOFTWARE)', 'was ended by SIGKILL')
    """
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"
    name = next((f" ({known.name})" for known in Exit if known == code), "")
    return f"ended with exit code {code}{name}"
