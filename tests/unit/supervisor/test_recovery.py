"""Rounds over the queues: what is swept, what is logged, and what happens while the broker is away."""

from __future__ import annotations

import logging

import pytest

from seawall.errors import BrokerUnavailable
from seawall.supervisor.recovery import SWEEPS_IN_A_ROW, Recovery
from tests.unit.supervisor.conftest import logged

Found = tuple[int, int, int]
LOGGER = "seawall.supervisor"


class Queues:
    """Queues and what sweeping each will find, sweep by sweep; then nothing."""

    def __init__(self, **found: list[Found]) -> None:
        self._found = found
        self.swept: list[str] = []
        self.away = False

    def names(self) -> list[str]:
        if self.away:
            raise BrokerUnavailable("connection refused")
        return list(self._found)

    def sweep(self, queue: str) -> Found:
        self.swept.append(queue)
        return self._found[queue].pop(0) if self._found[queue] else (0, 0, 0)


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in logged(caplog, LOGGER)]


def recovery_of(queues: Queues) -> Recovery:
    return Recovery(queues.names, queues.sweep)


def test_quiet_round_sweeps_each_queue_once_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    queues = Queues(a=[], b=[])
    recovery_of(queues).round()
    assert queues.swept == ["a", "b"]
    assert said(caplog) == []


def test_finds_are_logged_as_a_warning_one_line_a_queue(caplog: pytest.LogCaptureFixture) -> None:
    recovery_of(Queues(a=[(3, 1, 2)], b=[], c=[(0, 0, 1)])).round()
    assert said(caplog) == [
        "calls of a: 3 went back because their worker died, 1 moved to the dead letters as poison, "
        "2 expired before they could start",
        "calls of c: 1 expired before they could start",
    ]
    assert {record.levelno for record in logged(caplog, LOGGER)} == {logging.WARNING}


def test_queue_with_more_than_one_sweep_treats_is_swept_again_in_the_same_round(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recovery_of(Queues(a=[(500, 0, 0), (500, 0, 0), (20, 0, 0)])).round()
    assert said(caplog) == ["calls of a: 1020 went back because their worker died"]


def test_endless_queue_leaves_the_others_their_turn() -> None:
    queues = Queues(a=[(500, 0, 0)] * 1000, b=[])
    recovery_of(queues).round()
    assert queues.swept.count("a") == SWEEPS_IN_A_ROW
    assert queues.swept[-1] == "b"


def test_outage_of_the_broker_is_logged_once_at_its_start_and_once_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    queues = Queues(a=[(1, 0, 0)])
    recovery = recovery_of(queues)
    queues.away = True
    for _ in range(3):
        recovery.round()
    queues.away = False
    recovery.round()
    begun, found, over = said(caplog)
    assert begun.startswith("the broker (recovery) is away")
    assert "1 went back" in found
    assert over.startswith("the broker (recovery) is back after")


def test_finds_before_the_broker_went_away_are_logged_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Found] = [(5, 0, 0)]

    def sweep(queue: str) -> Found:
        if answers:
            return answers.pop()
        raise BrokerUnavailable("no answer in time", written=True)

    Recovery(lambda: ["a", "b"], sweep).round()
    assert said(caplog)[0] == "calls of a: 5 went back because their worker died"
