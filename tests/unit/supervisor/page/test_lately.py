"""An answer is shared for as long as it is good; a failure is told to those who wait, and to nobody later."""

from __future__ import annotations

import asyncio

from seawall.supervisor.page.lately import Lately


def test_a_failure_is_told_to_those_who_wait_and_not_kept() -> None:
    asked: list[str] = []

    def read(key: str) -> int:
        asked.append(key)
        if len(asked) == 1:
            raise OSError("gone")
        return len(asked)

    async def scene() -> None:
        lately = Lately(read, lambda: 60.0)
        told = await asyncio.gather(lately.get("a"), lately.get("a"), return_exceptions=True)
        assert [str(one) for one in told] == ["gone", "gone"]
        assert [await lately.get("a") for _ in range(3)] == [2, 2, 2]
        lately.forget()
        assert await lately.get("a") == 3

    asyncio.run(scene())


def test_what_is_too_old_is_read_again_and_not_kept() -> None:
    async def scene() -> None:
        lately = Lately(str, lambda: 0.0)
        assert [await lately.get(key) for key in (1, 2, 3)] == ["1", "2", "3"]
        assert list(lately._looks) == [3]

    asyncio.run(scene())
