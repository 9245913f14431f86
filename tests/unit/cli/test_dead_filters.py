"""Which dead letters a command means."""

from __future__ import annotations

from typing import Any

import click
import pytest

from seawall.actors.engine import MEMORY_URL, engine_from_url
from seawall.actors.queue_store import DeadLetter, DeadPage, QueueStore
from seawall.actors.record import Call, Progress, encode
from seawall.cli import dead_letters
from seawall.cli.dead_letters import Filter, chosen, letters, take_filter
from seawall.cli.values import age, calls_a_second
from tests.support.dead_letters import bury, bury_calls

NOW = 1_000_000.0


def letter(
    *, key: str = "shop", reason: str = "expired", died: float = 60, target: str = "/items/7?card=4111", **more: Any
) -> DeadLetter:
    """One that died so many seconds before NOW."""
    call = Call(id="a", service=key, origin="http://shop:80", method="POST", target=target)
    fields = {"payload": encode(call), "queue": f"{key}.background", **more}
    return DeadLetter(id="a", at=NOW - died, reason=reason, progress=Progress(), **fields)


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Filter(), True),
        (Filter(service="shop"), True),
        (Filter(service="sho"), False),
        (Filter(service=""), False),
        (Filter(reason="expired"), True),
        (Filter(reason="poison"), False),
        (Filter(older_than=60), True),
        (Filter(older_than=61), False),
        (Filter(newer_than=61), True),
        (Filter(newer_than=60), False),
        (Filter(older_than=30, newer_than=90), True),
        (Filter(older_than=70, newer_than=90), False),
        (Filter(path="/items/7"), True),
        (Filter(path="/items/*"), True),
        (Filter(path="/items/[0-9]"), True),
        (Filter(path="*"), True),
        (Filter(path="/items"), False),
        (Filter(path="/Items/*"), False),
        (Filter(path="*4111*"), False),
        (Filter(service="shop", reason="expired", path="/items/*", older_than=1, newer_than=100), True),
        (Filter(service="shop", reason="poison", path="/items/*", older_than=1, newer_than=100), False),
    ],
    ids=str,
)
def test_letter_matches_all_that_is_asked_for(wanted: Filter, matches: bool) -> None:
    assert wanted.matches(letter(), NOW) is matches


def test_pattern_matches_over_slashes() -> None:
    assert Filter(path="/snapshot/*").matches(letter(target="/snapshot/a/b"), NOW)


@pytest.mark.parametrize(
    "payload", [b"", b"\xff garbage", encode(Call(id="a", service="", origin="", method="", target="/", v=99))]
)
def test_letter_that_cannot_be_read_matches_no_pattern(payload: bytes) -> None:
    assert not Filter(path="*").matches(letter(payload=payload), NOW)
    assert Filter(service="shop", reason="expired").matches(letter(payload=payload), NOW)


def test_queue_of_no_service_is_nobodys() -> None:
    assert not Filter(service="shop").matches(letter(queue="other"), NOW)


@pytest.mark.parametrize("wanted", [Filter(service=""), Filter(older_than=0.0), Filter(path="*")])
def test_whatever_is_asked_for_narrows(wanted: Filter) -> None:
    assert wanted.narrows
    assert not Filter().narrows


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("7d", 604_800), ("1.5h", 5400), (" 2h ", 7200)],
)
def test_age_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert age(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-5", "2 h", "2w", "2H", "1h30m", "1e3", "nan", "inf", "٣d", "soon"])
def test_other_ages_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="must be an age such as 90s, 15m, 2h or 7d") as refused:
        age(text)
    assert repr(text) in str(refused.value)


def test_rate_is_calls_a_second() -> None:
    assert [calls_a_second(text) for text in ("0", "0.001", "0.5", "200")] == [0, 0.001, 0.5, 200]


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1e-9", "fast", "10/s"])
def test_other_rates_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="calls a second or more, or 0 for as fast as possible"):
        calls_a_second(text)


def test_filter_is_taken_out_of_the_other_arguments() -> None:
    arguments = {
        "service": "shop",
        "reason": None,
        "path": None,
        "older_than": 5.0,
        "newer_than": None,
        "namespace": "x",
    }
    assert take_filter(arguments) == Filter(service="shop", older_than=5.0)
    assert arguments == {"namespace": "x"}


def test_ages_that_exclude_each_other_are_a_usage_error() -> None:
    nothing: dict[str, Any] = {"service": None, "reason": None, "path": None}
    with pytest.raises(click.UsageError, match="nothing can match"):
        take_filter(nothing | {"older_than": 60.0, "newer_than": 60.0})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> QueueStore:
    """Read in pages of three."""
    monkeypatch.setattr(dead_letters, "PAGE", 3)
    return engine_from_url(MEMORY_URL).queue


def test_letters_come_from_every_page_of_every_queue_the_oldest_first(store: QueueStore) -> None:
    shop = bury_calls(store, "shop", [f"/{n}" for n in range(7)])
    bank = bury_calls(store, "bank", [f"/{n}" for n in range(3)])
    assert [one.id for one in letters(store)] == bank + shop
    assert [one.id for one in letters(store, Filter(service="shop", path="/[0-4]"))] == shop[:5]


def test_chosen_ones_are_names_without_their_requests(store: QueueStore) -> None:
    ids = bury_calls(store, "shop", [f"/{n}" for n in range(7)])
    bury(store, "shop.background", {"empty": b""}, reason="malformed")
    found = chosen(store, Filter())
    assert found == [*(("shop.background", id, False) for id in ids), ("shop.background", "empty", True)]


def test_named_ones_must_match_too_and_end_the_look(store: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = bury_calls(store, "shop", [f"/{n}" for n in range(9)])
    offsets = []
    read = store.dead_page

    def noted(queue: str, offset: int, count: int, reason: str = "") -> DeadPage:
        offsets.append(offset)
        return read(queue, offset, count, reason)

    monkeypatch.setattr(store, "dead_page", noted)
    assert [one.id for one in chosen(store, Filter(), [ids[4], ids[1]])] == [ids[1], ids[4]]
    assert offsets == [0, 3]
    assert [one.id for one in chosen(store, Filter(path="/1"), [ids[4], ids[1], "nobody"])] == [ids[1]]
