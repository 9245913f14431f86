"""Sending dead letters again, one after the other."""

from __future__ import annotations

import os
import signal

import pytest

from seawall.cli.dead_letters import Chosen
from seawall.cli.pacing import Pace
from seawall.cli.replaying import StopSignals, Tally, send_again
from seawall.errors import BrokerUnavailable
from seawall.exits import Exit

LETTERS = [Chosen("shop.background", f"call-{n}", False) for n in range(5)]


class Replay:
    """Notes what is sent again; `gone` ones are not there, and `breaks_at` the broker goes away."""

    def __init__(self, *, gone: tuple[int, ...] = (), breaks_at: int | None = None) -> None:
        self.sent: list[Chosen] = []
        self.steps = 0
        self._gone = [LETTERS[n] for n in gone]
        self._breaks_at = breaks_at

    def __call__(self, letter: Chosen) -> bool:
        if len(self.sent) == self._breaks_at:
            raise BrokerUnavailable("away")
        self.sent.append(letter)
        return letter not in self._gone

    def step(self) -> None:
        self.steps += 1

    def run(self, letters: list[Chosen], *, stop_after: int = 100) -> Tally:
        self.tally = Tally(len(letters))
        send_again(letters, self.tally, self, pace=Pace(0), stopped=lambda: self.steps >= stop_after, step=self.step)
        return self.tally


def test_all_are_sent_in_their_order() -> None:
    replay = Replay()
    tally = replay.run(LETTERS)
    assert replay.sent == LETTERS
    assert (replay.steps, tally.left, str(tally)) == (5, 0, "5 queued again")


def test_those_that_are_gone_or_empty_are_counted_apart() -> None:
    replay = Replay(gone=(1, 3))
    empty = Chosen("shop.background", "empty", True)
    tally = replay.run([*LETTERS, empty])
    assert empty not in replay.sent
    assert tally.left == 0
    assert str(tally) == "3 queued again, 2 gone meanwhile, 1 without a request stay"


def test_stop_comes_after_the_current_one() -> None:
    replay = Replay()
    tally = replay.run(LETTERS, stop_after=2)
    assert replay.sent == LETTERS[:2]
    assert (str(tally), tally.left) == ("2 queued again", 3)


def test_tally_is_true_when_the_broker_goes_away() -> None:
    replay = Replay(breaks_at=3)
    with pytest.raises(BrokerUnavailable):
        replay.run(LETTERS)
    assert (replay.tally.queued, replay.tally.left) == (3, 2)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.CUT_OFF), (signal.SIGHUP, Exit.CUT_OFF)],
)
def test_first_signal_says_how_the_command_ends(number: signal.Signals, code: Exit) -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.stop_requested
        assert signals.exit_code is code
