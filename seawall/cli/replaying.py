"""Sending dead letters again: one after the other, at a pace, and cut short without harm."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import click

from seawall.cli.dead_letters import Chosen
from seawall.cli.pacing import Pace
from seawall.exits import Exit
from seawall.signals import Signals
from seawall.supervisor.page.desk import Progress

__all__ = ["StopSignals", "Tally", "progress", "send_again"]


class StopSignals(Signals):
    """Signals that also knows which one asked for the stop first; SIGHUP does too, as the terminal is gone then."""

    def __init__(self) -> None:
        super().__init__(hangup_stops=True)
        self._first: int | None = None

    def __enter__(self) -> StopSignals:
        super().__enter__()
        return self

    @property
    def exit_code(self) -> Exit:
        """What a shell says of a program that such a signal ended."""
        return Exit.INTERRUPTED if self._first == signal.SIGINT else Exit.CUT_OFF

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._first = self._first or number
        super()._note(number, frame)


@dataclass(slots=True)
class Tally(Progress):
    """What has come of `total` letters so far."""

    @property
    def left(self) -> int:
        return self.total - self.done

    def as_json(self) -> dict[str, int]:
        return {"queued": self.queued, "gone": self.gone, "empty": self.empty, "left": self.left}

    def __str__(self) -> str:
        gone = f", {self.gone} gone meanwhile" if self.gone else ""
        empty = f", {self.empty} without a request stay" if self.empty else ""
        return f"{self.queued} queued again{gone}{empty}"


def send_again(
    letters: Sequence[Chosen],
    tally: Progress,
    replay: Callable[[Chosen], bool],
    *,
    pace: Pace,
    stopped: Callable[[], bool],
    step: Callable[[], None],
) -> None:
    """Replay them in their order, until `stopped` says so before the next one. `step` is told of each that is done.

    The tally is true at any time, also when `replay` raises: it moves one letter in one step of the broker, or none.
    """
    for letter in letters:
        pace.wait()
        if stopped():
            return
        if letter.empty:
            tally.empty += 1
        elif replay(letter):
            tally.queued += 1
        else:
            tally.gone += 1
        step()


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error where that is a terminal, and nothing elsewhere; call what it gives once for each step."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=total, label="Queueing again", show_pos=True, file=sys.stderr) as bar:
        yield lambda: bar.update(1)
