"""What everybody who looks at the page shares: one reader, one rendering a change, one message for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from seawall.errors import BrokerUnavailable
from seawall.supervisor.page.desk import Desk, Wanted
from seawall.supervisor.page.lately import Lately
from seawall.supervisor.page.render import Shown, render_away, render_parts
from seawall.supervisor.page.replays import Replays
from seawall.supervisor.page.scene import Scene, last_scene, read_scene

__all__ = ["LOOK_SECONDS", "Board", "Letters"]

logger = logging.getLogger("seawall.web")

#: Seconds between two looks at the broker, and for which what was seen is good.
LOOK_SECONDS = 1.0
#: Seconds after which a stream on which nothing changed shows that it is alive.
BEAT_SECONDS = 2.0
#: Dead letters that are shown at once.
LETTERS = 50
#: Streams at once; each costs memory and a connection.
MOST_STREAMS = 500

Letters = list[dict[str, Any]]

_BEAT = b"event: beat\ndata:\n\n"


class Board:
    """Reads and renders while somebody looks, and not else. All but `poke` on the event loop.

    A stream that is slow gets fewer messages, each with all that changed since its last one; nothing piles up.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._boot = uuid.uuid4().hex[:8]
        self._scene: Scene | None = None
        self._seen_at = 0.0
        self._looked = 0.0
        self._pokes = 0
        self._shown: Shown | None = None
        self._changed: dict[str, int] = {}
        self._version = 0
        self._messages: dict[int, bytes] = {}
        self._streams = 0
        self._reading: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[Shown] | None = None
        self._tick = asyncio.Event()
        self._poked: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._is_broken = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="seawall-board")
        self._metrics = Lately[None, str](lambda _: desk.exposition(), lambda: LOOK_SECONDS)
        self._letters = Lately[Wanted, Letters](lambda wanted: desk.letters(wanted, LETTERS + 1), lambda: LOOK_SECONDS)
        self.replays = Replays(desk, self.poke)

    @property
    def has_room(self) -> bool:
        return self._streams < MOST_STREAMS and not self._closed

    def poke(self) -> None:
        """Something was done: look now, not in a second. From any thread."""
        self._letters.forget()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._forget_age)

    def close(self) -> None:
        """End every stream, and the replay that runs."""
        self._closed = True
        self.replays.close()
        if self._poked is not None:
            self._poked.set()
        self._wake()

    async def shown(self) -> Shown:
        """What is to be seen now, at most a second old."""
        if self._shown is not None and time.monotonic() - self._looked < LOOK_SECONDS:
            return self._shown
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def exposition(self) -> str:
        """The metrics, at most a second old, counted once for all who ask meanwhile. Raises BrokerUnavailable."""
        return await self._metrics.get(None)

    async def letters(self, wanted: Wanted) -> tuple[Letters, bool]:
        """The oldest LETTERS of them, and whether there are more; at most a second old. Raises as the desk does."""
        found = await self._letters.get(wanted)
        if len(found) > LETTERS:  # they come service by service
            return found[:LETTERS], True
        return sorted(found, key=lambda letter: float(letter["died_at"])), False

    async def follow(self, last_id: str = "") -> AsyncGenerator[bytes]:
        """Messages for one client that has seen `last_id`, until it goes or the process ends."""
        self._streams += 1
        try:
            await self.shown()
            boot, _, number = last_id.partition("-")
            seen = int(number) if boot == self._boot and number.isdecimal() else 0
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            sent_at = 0.0
            while not self._closed:
                tick = self._tick
                if seen != self._version:
                    message, seen = self._since(seen), self._version
                    yield message
                    sent_at = time.monotonic()
                elif time.monotonic() - sent_at >= BEAT_SECONDS:
                    yield _BEAT
                    sent_at = time.monotonic()
                if tick is self._tick:
                    await tick.wait()
        finally:
            self._streams -= 1

    async def _read(self) -> None:
        """Look once a second until the last stream is gone, and tick for beats while a look takes long."""
        self._poked = asyncio.Event()
        while self._streams and not self._closed:
            self._poked.clear()
            looking = asyncio.create_task(self._look())
            while not (await asyncio.wait({looking}, timeout=LOOK_SECONDS))[0] and not self._closed:
                self._wake()
            self._wake()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._poked.wait(), LOOK_SECONDS)

    async def _look(self) -> Shown:
        loop = self._loop = asyncio.get_running_loop()
        pokes = self._pokes
        shown = await loop.run_in_executor(self._pool, self._see)
        self._looked = time.monotonic() if pokes == self._pokes else 0.0
        self._publish(shown)
        return shown

    def _see(self) -> Shown:
        """On a thread. The broker's absence is something to be seen, too."""
        try:
            scene = read_scene(self._desk, self._scene)
            shown = render_parts(scene, self.replays.latest)
        except BrokerUnavailable as error:
            return self._see_last(str(error))
        except Exception as error:
            if not self._is_broken:
                logger.exception("the page cannot be made")
            self._is_broken = True
            return render_away(self._shown, f"The page cannot be made ({type(error).__name__})", self._seen_at)
        self._scene, self._seen_at, self._is_broken = scene, scene.at, False
        return shown

    def _see_last(self, why: str) -> Shown:
        scene = self._scene = last_scene(self._desk, self._scene)
        if scene is None:
            return render_away(None, why, 0.0)
        self._seen_at = scene.at
        return render_away(render_parts(scene, self.replays.latest, away=True), why, scene.at)

    def _publish(self, shown: Shown) -> None:
        before = self._shown
        old = before.parts if before is not None else {}
        fresh = [name for name, part in shown.parts.items() if old.get(name) != part]
        if fresh or before is None or list(before.order) != list(shown.order):
            self._version += 1
            self._messages.clear()
            self._changed = {name: at for name, at in self._changed.items() if name in shown.parts}
            self._changed.update(dict.fromkeys(fresh, self._version))
        self._shown = shown

    def _since(self, seen: int) -> bytes:
        """All that changed since that version; made once for everybody who has seen it."""
        if seen not in self._messages:
            assert self._shown is not None
            parts = {name: part for name, part in self._shown.parts.items() if self._changed.get(name, 0) > seen}
            data = json.dumps({"parts": parts, "order": list(self._shown.order)}, separators=(",", ":"))
            self._messages[seen] = f"id: {self._boot}-{self._version}\ndata: {data}\n\n".encode()
        return self._messages[seen]

    def _forget_age(self) -> None:
        """What is seen from now on counts; a look that is under way may have seen what was before."""
        self._looked, self._looking = 0.0, None
        self._pokes += 1
        if self._poked is not None:
            self._poked.set()

    def _wake(self) -> None:
        tick, self._tick = self._tick, asyncio.Event()
        tick.set()
