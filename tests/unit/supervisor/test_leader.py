"""What a supervisor knows of its lease without asking, on a clock that stands still; the script is tested on a server."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from seawall.errors import BrokerUnavailable
from seawall.supervisor.leader import Leader
from tests.support.clock import FixedClock


class Link:
    """Answers as it is told; `takes` is how long each answer is on its way."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.answers: list[Any] = []
        self.commands: list[str] = []
        self.takes = 0.0

    def run(self, script: object, command: str, *args: object) -> Any:
        self.commands.append(command)
        self.clock.advance(self.takes)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def link(clock: FixedClock) -> Link:
    return Link(clock)


@pytest.fixture
def leader(link: Link, clock: FixedClock) -> Leader:
    return Leader(link, "seawall", "s1", lease=3.0, clock=clock.time)  # type: ignore[arg-type]


def test_who_has_left_reports_no_more(leader: Leader, link: Link) -> None:
    """A tick that was under way would have status show a supervisor that has ended."""
    link.answers = [1, 1]
    leader.report(b"{}")
    leader.leave()
    leader.report(b"{}")
    assert link.commands == ["report", "leave"]


def test_nobody_leads_before_it_asked(leader: Leader) -> None:
    assert not leader.leads
    assert leader.fence == 0


def test_a_leader_that_does_not_renew_stops_by_itself(leader: Leader, link: Link, clock: FixedClock) -> None:
    """As after a SIGSTOP: the first look at the clock tells, before anything is asked."""
    link.answers = [[1, 7]]
    assert leader.renew()
    clock.advance(2.9)
    assert leader.leads
    clock.advance(0.1)
    assert not leader.leads
    assert leader.fence == 7


def test_time_that_the_answer_took_counts_against_the_lease(leader: Leader, link: Link, clock: FixedClock) -> None:
    link.answers, link.takes = [[1, 1]], 0.8
    leader.renew()
    clock.advance(2.2)
    assert not leader.leads, "the server may have begun the lease as soon as it was asked"


def test_renewal_that_fails_leaves_what_was_left_of_the_lease(leader: Leader, link: Link, clock: FixedClock) -> None:
    link.answers = [[1, 1], BrokerUnavailable("no answer in time", written=True)]
    leader.renew()
    clock.advance(1)
    with pytest.raises(BrokerUnavailable):
        leader.renew()
    assert leader.leads
    clock.advance(2)
    assert not leader.leads


def test_somebody_else_leads(leader: Leader, link: Link) -> None:
    link.answers = [[1, 1], [0, 2]]
    leader.renew()
    assert not leader.renew()
    assert not leader.leads
    assert leader.fence == 1, "the number of its own latest term"


def test_who_resigned_never_leads_again(leader: Leader, link: Link) -> None:
    link.answers = [[1, 1], 1]
    leader.renew()
    leader.resign()
    assert not leader.leads
    assert not leader.renew()
    assert link.commands == ["renew", "resign"]


def test_who_resigns_while_the_broker_is_away_does_not_lead(leader: Leader, link: Link) -> None:
    link.answers = [[1, 1], BrokerUnavailable("connection refused")]
    leader.renew()
    with pytest.raises(BrokerUnavailable):
        leader.resign()
    assert not leader.leads


def test_refusal_of_the_server_counts_as_an_unreachable_broker(leader: Leader, link: Link) -> None:
    link.answers = [ResponseError("OOM command not allowed")]
    with pytest.raises(BrokerUnavailable, match="OOM") as caught:
        leader.renew()
    assert not caught.value.written
