"""What everybody who looks shares: one reader however many look, none when nobody does, and only what changed is sent."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from seawall.errors import BrokerUnavailable
from seawall.supervisor.page import board as boards
from seawall.supervisor.page.board import Board
from seawall.supervisor.page.desk import Progress, Wanted
from tests.unit.supervisor.page.test_words import WELL


class FakeDesk:
    """A fleet of two services that a test changes, and counts of what was asked."""

    def __init__(self) -> None:
        self.services = {key: WELL | {"key": key, "service": key.title(), "running": 0} for key in ("billing", "mail")}
        self.looks = self.counted = self.read = 0
        self.away = False
        self.dead = 1000
        self.now = 1000.0
        self.known: dict[str, Any] = {}
        self.gate = threading.Event()
        self.gate.set()

    def fleet(self) -> dict[str, Any]:
        self.looks += 1
        self.gate.wait(5)
        if self.away:
            raise BrokerUnavailable("the broker cannot be reached")
        worker = {"host": "h", "pid": 1, "busy": 0, "slots": 8, "services": {}, "started_at": 0.0}
        services = {key: dict(service) for key, service in self.services.items()}
        self.known = {"services": services, "workers": [worker], "supervisors": [], "leader": "a", "as_of": self.now}
        return self.known

    def fleet_and_outages(self) -> tuple[dict[str, Any], list[Any]]:
        return self.fleet(), []

    def latest(self) -> tuple[dict[str, Any], list[Any]] | None:
        return (self.known, []) if self.known else None

    def history(self) -> dict[str, Any]:
        return {}

    def transitions(self) -> list[Any]:
        return []

    actions = transitions

    def exposition(self) -> str:
        self.counted += 1
        return "# nothing\n"

    def note(self, who: str, what: str, service: str, detail: str) -> None: ...

    def act(self, verb: str, key: str) -> None: ...

    def letters(self, wanted: Wanted, limit: int) -> list[dict[str, Any]]:
        self.read += 1
        return [{"id": str(number), "died_at": -number} for number in range(min(limit, self.dead))]

    def replay(self, wanted: Wanted, rate: float, progress: Progress, stopped: Callable[[float], bool]) -> None:
        progress.total, progress.queued = 2, 1
        while not stopped(0.01):
            pass

    def purge(self, wanted: Wanted) -> int:
        return 0


def played(scene: Callable[[Board, FakeDesk], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a scene on a board whose seconds are short."""
    monkeypatch.setattr(boards, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(boards, "BEAT_SECONDS", 0.04)

    async def play() -> None:
        desk = FakeDesk()
        board = Board(desk)
        try:
            await asyncio.wait_for(scene(board, desk), 10)
        finally:
            board.close()

    asyncio.run(play())


async def message(stream: Any) -> dict[str, Any]:
    """The next one that is no beat."""
    while (block := (await anext(stream)).decode()).startswith("event: beat"):
        pass
    data = next(line for line in block.splitlines() if line.startswith("data: "))
    found: dict[str, Any] = json.loads(data.removeprefix("data: "))
    return found


def test_only_what_changed_is_sent_and_the_sick_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        stream = board.follow()
        first = await message(stream)
        assert {"headline", "service-billing", "service-mail", "audit"} <= set(first["parts"])
        assert first["order"] == ["service-billing", "service-mail"]
        desk.services["mail"]["consecutive_failures"] = 3
        second = await message(stream)
        assert set(second["parts"]) == {"headline", "service-mail"}
        assert second["order"] == ["service-mail", "service-billing"]
        await stream.aclose()

    played(scene, monkeypatch)


def test_many_who_look_share_one_reader_and_it_ends_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        streams = [board.follow() for _ in range(50)]
        firsts = await asyncio.gather(*(anext(stream) for stream in streams))
        assert len(set(map(id, firsts))) == 1  # the very same bytes
        assert desk.looks <= 3
        beats = await asyncio.gather(*(anext(stream) for stream in streams))
        assert set(beats) == {b"event: beat\ndata:\n\n"}
        for stream in streams:
            await stream.aclose()
        assert board._reading is not None
        await board._reading  # has ended, since nobody looks

    played(scene, monkeypatch)


def test_a_client_that_comes_back_gets_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        stream = board.follow()
        last_id = (await anext(stream)).decode().splitlines()[0].removeprefix("id: ")
        await stream.aclose()
        desk.services["mail"]["paused"] = True
        again = board.follow(last_id)
        assert set((await message(again))["parts"]) == {"headline", "service-mail"}
        of_another_process = board.follow("cafe-7")
        assert "service-billing" in (await message(of_another_process))["parts"]
        for stream in (again, of_another_process):
            await stream.aclose()

    played(scene, monkeypatch)


def test_a_broker_that_is_away_is_a_headline_over_the_last_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        stream = board.follow()
        await message(stream)
        desk.away = True
        lost = await message(stream)
        assert set(lost["parts"]) == {"headline", "dead"}
        assert "No contact with the broker" in lost["parts"]["headline"]
        desk.away = False
        assert "healthy" in (await message(stream))["parts"]["headline"]
        await stream.aclose()

    played(scene, monkeypatch)


def test_beats_go_on_while_a_look_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        stream = board.follow()
        await message(stream)
        desk.gate.clear()
        try:
            assert (await anext(stream)).startswith(b"event: beat")
            assert (await anext(stream)).startswith(b"event: beat")
        finally:
            desk.gate.set()
        await stream.aclose()

    played(scene, monkeypatch)


def test_metrics_are_counted_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        monkeypatch.setattr(boards, "LOOK_SECONDS", 60.0)
        assert set(await asyncio.gather(*(board.exposition() for _ in range(20)))) == {"# nothing\n"}
        assert desk.counted == 1

    played(scene, monkeypatch)


def test_dead_letters_are_read_once_a_second_for_all_who_ask_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        monkeypatch.setattr(boards, "LOOK_SECONDS", 60.0)
        for _ in range(2):
            answers = await asyncio.gather(*(board.letters(Wanted("mail", "poison")) for _ in range(20)))
            assert {(len(found), more) for found, more in answers} == {(50, True)}
        assert desk.read == 1
        await board.letters(Wanted("mail"))
        assert desk.read == 2
        board.poke()  # something was done
        await board.letters(Wanted("mail"))
        assert desk.read == 3

    played(scene, monkeypatch)


@pytest.mark.parametrize("asks", ["meanwhile", "afterwards"])
def test_what_was_done_during_a_look_is_seen_by_who_asks_after_it(asks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        monkeypatch.setattr(boards, "LOOK_SECONDS", 60.0)
        read, has_read, goes_on = desk.fleet, threading.Event(), threading.Event()

        def slow() -> dict[str, Any]:
            found = read()
            has_read.set()
            goes_on.wait(5)
            return found

        monkeypatch.setattr(desk, "fleet", slow)
        first = asyncio.create_task(board.shown())
        await asyncio.to_thread(has_read.wait, 5)
        desk.services["mail"]["paused"] = True
        board.poke()
        await asyncio.sleep(0)
        second = asyncio.create_task(board.shown()) if asks == "meanwhile" else None
        await asyncio.sleep(0)
        goes_on.set()
        before = (await first).parts["service-mail"]
        after = (await (second or board.shown())).parts["service-mail"]
        assert "paused" in after.lower()
        assert "paused" not in before.lower()
        assert (await board.shown()).parts["service-mail"] == after
        assert desk.looks == 2

    played(scene, monkeypatch)


def test_closing_ends_every_stream_and_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        stream = board.follow()
        await message(stream)
        assert board.replays.start(Wanted(), "Ada")
        assert not board.replays.start(Wanted(), "Eve")
        board.close()
        async for _ in stream:  # it ends
            pass
        latest = board.replays.latest
        assert latest is not None
        while not latest.ended:
            await asyncio.sleep(0.005)
        assert (latest.stopped, latest.progress.done) == (True, 1)
        assert not board.replays.start(Wanted(), "Ada")  # it would outlive the process's end

    played(scene, monkeypatch)


def test_what_was_last_known_is_what_anybody_read_last(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        assert "Billing</h3>" in (await board.shown()).parts["service-billing"]
        desk.services["mail"]["state"] = "half_open"
        desk.now = 1025.0
        desk.fleet()  # a health check, say
        desk.away = True
        board.poke()
        await asyncio.sleep(0)
        shown = await board.shown()
        assert "Half-open" in shown.parts["service-mail"]
        assert 'Last contact: <time datetime="1970-01-01T00:17:05Z"' in shown.parts["headline"]
        assert "The broker cannot be reached." in shown.parts["headline"]
        assert "None was known at the last contact" in shown.parts["dead"]

    played(scene, monkeypatch)


def test_a_page_that_nobody_has_opened_yet_shows_what_others_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        desk.fleet()
        desk.away = True
        shown = await board.shown()
        assert "No contact with the broker" in shown.parts["headline"]
        assert list(shown.order) == ["service-billing", "service-mail"]

    played(scene, monkeypatch)


def test_dead_letters_that_are_all_shown_have_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(board: Board, desk: FakeDesk) -> None:
        desk.dead = 3
        assert [letter["id"] for letter in (await board.letters(Wanted()))[0]] == ["2", "1", "0"]

    played(scene, monkeypatch)
