"""`seawall dead` on a real server, without a worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from seawall.actors.engine import Engine, engine_from_url
from seawall.actors.queue_store import Group, Want
from seawall.actors.record import decode_call
from seawall.cli import dead as command
from seawall.exits import Exit
from tests.support import PrivateRedis
from tests.support.dead_letters import age, bury, bury_calls
from tests.unit.cli.conftest import Ran, Run

SECRETS = ("k-12345", "4111")


class Letters:
    """The dead letters on one server, and the command that treats them."""

    def __init__(self, url: str, seawall_command: Run) -> None:
        self.engine: Engine = engine_from_url(url)
        self._url, self._run = url, seawall_command

    def bury(self, key: str, *targets: str, **more: Any) -> list[str]:
        return bury_calls(self.engine.queue, key, targets, **more)

    def run(self, *words: str) -> Ran:
        ran = self._run("dead", *words, "--broker-url", self._url)
        assert not any(secret in ran.out + ran.err for secret in SECRETS)
        return ran

    def listed(self, *words: str) -> list[str]:
        """The ids that `list` finds."""
        return [json.loads(line)["id"] for line in self.run("list", "--json", *words).out.splitlines()]


@pytest.fixture
def dead(redis_url: str, seawall_command: Run) -> Iterator[Letters]:
    found = Letters(redis_url, seawall_command)
    yield found
    found.engine.close()


Aged = Callable[[str, list[str], float], None]


@pytest.fixture
def aged(redis_server: PrivateRedis) -> Aged:
    """Have these letters of a service died so many seconds earlier."""

    def have_died(key: str, ids: list[str], seconds: float) -> None:
        with redis_server.client() as client:
            age(client, "seawall", f"{key}.background", ids, seconds)

    return have_died


def test_list_of_nothing(dead: Letters) -> None:
    assert dead.run("list") == Ran(Exit.OK, "no dead letters\n", "")
    assert dead.run("list", "--json") == Ran(Exit.OK, "", "")


def test_list_is_narrowed_by_each_filter_and_by_all_at_once(dead: Letters, aged: Aged) -> None:
    old, new = dead.bury("shop", "/snapshot/1?card=4111", "/snapshot/2", headers={"X-Api-Key": "k-12345"})
    (expired,) = dead.bury("shop", "/items/1", reason="expired")
    (bank,) = dead.bury("bank", "/snapshot/1")
    bury(dead.engine.queue, "shop.background", {"garbage": b"\xff"}, reason="malformed")
    aged("shop", [old], 2 * 3600)
    for words, ids in {
        (): {bank, old, new, expired, "garbage"},
        ("--service", "shop"): {old, new, expired, "garbage"},
        ("--reason", "expired"): {expired},
        ("--path", "/snapshot/*"): {bank, old, new},
        ("--older-than", "1h"): {old},
        ("--newer-than", "90m", "--service", "shop"): {new, expired, "garbage"},
        ("--path", "/snapshot/*", "--service", "shop", "--newer-than", "1h"): {new},
        ("--older-than", "1d"): set(),
    }.items():
        assert set(dead.listed(*words)) == ids, words


def test_list_has_the_oldest_of_each_service_first(dead: Letters, aged: Aged) -> None:
    first, second, third = dead.bury("shop", "/1", "/2", "/3")
    (bank,) = dead.bury("bank", "/1")
    aged("shop", [third], 100)
    aged("shop", [first], 50)
    assert dead.listed() == [bank, third, first, second]


def test_list_ends_at_its_limit_and_says_so_beside_the_pipe(dead: Letters) -> None:
    ids = dead.bury("shop", "/1", "/2", "/3")
    cut = dead.run("list", "--json", "--limit", "2")
    assert [json.loads(line)["id"] for line in cut.out.splitlines()] == ids[:2]
    assert cut.err == "seawall: there are more than 2\n"
    whole = dead.run("list", "--limit", "3")
    assert (len(whole.out.splitlines()), whole.err) == (4, "")


@pytest.mark.parametrize("verb", ["list", "replay", "purge"])
def test_what_nobody_knows_is_no_empty_list(dead: Letters, verb: str) -> None:
    dead.bury("shop", "/1")
    unknown = dead.run(verb, "--service", "shoop")
    assert (unknown.code, unknown.out) == (Exit.CONFIG, "")
    assert "no service 'shoop' is known; did you mean 'shop'? (known: shop)" in unknown.err
    assert "has the reason 'bogus' (known: " in dead.run(verb, "--reason", "bogus").err
    assert dead.run("list", "--reason", "expired") == Ran(Exit.OK, "no dead letters\n", "")


@pytest.mark.parametrize(("verb", "said"), [("replay", "1 queued again\n"), ("purge", "1 forgotten\n")])
def test_the_beginning_of_an_id_will_do(dead: Letters, verb: str, said: str) -> None:
    bury(dead.engine.queue, "shop.background", {"abcdef-1": b"\x80", "abcxyz-2": b"\x80"}, reason="expired")
    sure = ("--yes",) if verb == "purge" else ()
    several = dead.run(verb, "abc", *sure)
    assert (several.code, several.out) == (Exit.USAGE, "")
    assert "2 dead letters begin with 'abc'" in several.err
    assert dead.run(verb, "abcd", *sure) == Ran(Exit.OK, said, "")
    assert dead.listed() == ["abcxyz-2"]


def test_fields_of_a_letter_stay_as_they_are(dead: Letters) -> None:
    (id,) = dead.bury("shop", "/pay?card=4111", headers={"X-Api-Key": "k-12345", "X-Trace": "abc"})
    (row,) = map(json.loads, dead.run("list", "--json").out.splitlines())
    assert {name: row[name] for name in ("id", "service", "reason", "rounds", "method", "path")} == {
        "id": id, "service": "shop", "reason": "rounds used up", "rounds": 0, "method": "POST", "path": "/pay",
    }  # fmt: skip
    shown = json.loads(dead.run("show", id, "--json").out)
    assert shown | row == shown
    assert shown["request"]["headers"] == {"Idempotency-Key": id, "X-Api-Key": "***", "X-Trace": "abc"}
    assert dead.run("show", "nobody") == Ran(Exit.FAILED, "", "seawall: there is no dead letter nobody\n")


def test_replay_of_all_queues_each_once_with_its_id_and_its_request(dead: Letters) -> None:
    ids = dead.bury("shop", "/1?card=4111", "/2", "/3")
    assert dead.run("replay", "--all", "--rate", "0") == Ran(Exit.OK, "3 queued again\n", "")
    assert dead.run("replay", "--all") == Ran(Exit.OK, "0 queued again\n", "")
    assert dead.engine.queue.dead_letters("shop.background") == []
    deliveries = dead.engine.queue.fetch([Group(8, (Want("shop.background", "", 8),))]).deliveries
    requests = {one.id: decode_call(one.payload).target for one in deliveries}
    assert requests == dict(zip(ids, ("/1?card=4111", "/2", "/3"), strict=True))


@pytest.mark.parametrize("verb", ["replay", "purge"])
def test_only_what_matches_is_treated(dead: Letters, aged: Aged, verb: str) -> None:
    old, new, other = dead.bury("shop", "/snapshot/1", "/snapshot/2", "/items/1")
    aged("shop", [old, other], 86_400)
    words = ["--yes"] if verb == "purge" else []
    done = "queued again" if verb == "replay" else "forgotten"
    ran = dead.run(verb, "--path", "/snapshot/*", "--older-than", "15m", *words)
    assert ran == Ran(Exit.OK, f"1 {done}\n", "")
    assert set(dead.listed()) == {new, other}
    assert dead.run(verb, new, "--older-than", "1h", *words) == Ran(
        Exit.FAILED, f"0 {done}\n", f"seawall: there is no dead letter {new}\n"
    )


def test_letter_without_a_request_stays_and_is_told(dead: Letters) -> None:
    bury(dead.engine.queue, "shop.background", {"empty": b""}, reason="malformed")
    dead.bury("shop", "/1")
    assert dead.run("replay", "--all") == Ran(Exit.FAILED, "1 queued again, 1 without a request stay\n", "")
    assert dead.listed() == ["empty"]
    assert dead.run("purge", "--all", "--yes").out == "1 forgotten\n"


def test_letter_that_somebody_else_took_is_told(dead: Letters, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = dead.bury("shop", "/1", "/2")
    choose = command.chosen

    def and_then_one_goes(*arguments: Any) -> Any:
        found = choose(*arguments)
        assert dead.engine.queue.purge("shop.background", ids[0])
        return found

    monkeypatch.setattr(command, "chosen", and_then_one_goes)
    assert dead.run("replay", "--all") == Ran(Exit.FAILED, "1 queued again, 1 gone meanwhile\n", "")


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        (["list", "--older-than", "5 weeks"], "'--older-than': must be an age such as 90s, 15m, 2h or 7d"),
        (["purge", "--newer-than", "soon"], "'--newer-than': must be an age such as 90s, 15m, 2h or 7d"),
        (
            ["list", "--older-than", "2h", "--newer-than", "1h"],
            "nothing can match: --older-than must be a shorter time",
        ),
        (["list", "--limit", "0"], "'--limit'"),
        (["replay", "--all", "--rate", "-1"], "'--rate': must be 0.001 calls a second or more, or 0 for as fast as"),
        (["replay"], "or with --path, --older-than or --newer-than"),
    ],
    ids=" ".join,
)
def test_wrong_option_is_named_with_what_would_be_right(
    seawall_command: Run, folder: Path, words: list[str], sign: str
) -> None:
    ran = seawall_command("dead", *words)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert sign in " ".join(ran.err.split())
