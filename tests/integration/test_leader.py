"""The election on a real server: one leader, growing fences, nobody's own clock."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis
from redis.exceptions import ResponseError

from seawall.redis_link import RedisLink, load_script
from seawall.supervisor.leader import Leader, leader_info
from tests.support.clock import FixedClock
from tests.support.threads import run_together
from tests.support.waiting import wait_until

#: Seconds of a lease that a test waits for.
SHORT = 0.1
NAMESPACE = "sea"


@pytest.fixture
def link(redis_url: str) -> Iterator[RedisLink]:
    link = RedisLink(redis_url)
    yield link
    link.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_first_come_leads_and_the_other_stands_by(link: RedisLink) -> None:
    first, second = Leader(link, NAMESPACE, "first"), Leader(link, NAMESPACE, "second")
    assert first.renew()
    assert not second.renew()
    assert first.leads
    assert not second.leads
    assert first.renew(), "a renewal"
    assert first.fence == 1


def test_many_at_once_elect_one(redis_url: str) -> None:
    links = [RedisLink(redis_url) for _ in range(8)]
    leaders = [Leader(link, NAMESPACE, f"s{number}") for number, link in enumerate(links)]
    run_together([leader.renew for leader in leaders])
    assert [leader.leads for leader in leaders].count(True) == 1
    for link in links:
        link.close()


def test_leader_that_was_paused_is_followed_by_another_and_knows_it(link: RedisLink) -> None:
    """As SIGSTOP does it: time passes, nothing is renewed, and it wakes up believing that nothing happened."""
    clock = FixedClock()
    paused = Leader(link, NAMESPACE, "paused", SHORT, clock=clock.time)
    other = Leader(link, NAMESPACE, "other")
    assert paused.renew()
    wait_until(other.renew)
    clock.advance(SHORT)
    assert not paused.leads, "before it has asked anybody"
    assert not paused.renew()
    assert other.fence > paused.fence


def test_lease_that_ran_out_begins_a_new_term_even_for_the_same_leader(link: RedisLink) -> None:
    """What it knew of the fleet may be out of date."""
    leader = Leader(link, NAMESPACE, "only", SHORT)
    leader.renew()
    assert leader.fence == 1
    wait_until(lambda: not leader_info(link, NAMESPACE).owner)
    assert leader.renew()
    assert leader.fence == 2


def test_resignation_lets_the_next_one_lead_at_once(link: RedisLink) -> None:
    first, second = Leader(link, NAMESPACE, "first"), Leader(link, NAMESPACE, "second")
    first.renew()
    first.resign()
    assert second.renew()
    assert second.fence == 2
    first.resign()
    assert second.renew(), "resigning again takes nothing from the new leader"
    assert second.fence == 2


def test_namespaces_have_leaders_of_their_own(link: RedisLink) -> None:
    assert Leader(link, "one", "a").renew()
    assert Leader(link, "two", "b").renew()


def test_info_tells_who_leads_for_how_long(link: RedisLink) -> None:
    assert leader_info(link, NAMESPACE).owner == ""
    leader = Leader(link, NAMESPACE, "first", 30.0)
    leader.renew()
    info = leader_info(link, NAMESPACE)
    assert (info.owner, info.fence) == ("first", 1)
    assert 20_000 < info.ms_left <= 30_000
    leader.resign()
    assert leader_info(link, NAMESPACE).ms_left == 0


def test_server_clock_that_was_set_back_does_not_leave_the_fleet_without_a_leader(
    link: RedisLink, client: redis.Redis
) -> None:
    Leader(link, NAMESPACE, "dead").renew()
    client.hincrby(f"{NAMESPACE}:leader", "until", 3_600_000)
    assert Leader(link, NAMESPACE, "next").renew()


def test_report_is_there_until_it_is_taken_back(link: RedisLink, client: redis.Redis) -> None:
    leader = Leader(link, NAMESPACE, "first")
    leader.report(json.dumps({"id": "first"}).encode())
    assert client.zrange(f"{NAMESPACE}:supervisors", 0, -1) == [b"first"]
    assert client.get(f"{NAMESPACE}:supervisor:first") == b'{"id": "first"}'
    assert 4000 < client.pttl(f"{NAMESPACE}:supervisor:first") <= 5000
    leader.leave()
    assert client.keys() == []


def test_reports_of_the_dead_are_forgotten_by_those_who_report(link: RedisLink, client: redis.Redis) -> None:
    client.zadd(f"{NAMESPACE}:supervisors", {"dead": 1.0})
    Leader(link, NAMESPACE, "first").report(b"{}")
    assert client.zrange(f"{NAMESPACE}:supervisors", 0, -1) == [b"first"]


def test_unknown_command_is_an_error(link: RedisLink) -> None:
    with pytest.raises(ResponseError, match="unknown leader command: renwe"):
        link.run(load_script("seawall.supervisor", "leader"), "renwe", NAMESPACE, "first", 3000)
