"""A private Redis-compatible server for tests, on a unix socket."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import redis

from seawall.embedded import EmbeddedServer

__all__ = ["PrivateRedis"]


class PrivateRedis(EmbeddedServer):
    """The embedded server, with what tests do to a server. With `durable` a power cut would lose nothing either."""

    def __init__(self, folder: Path, *, durable: bool = False, **options: str) -> None:
        """`options` are further ones of the server, with `_` for `-`."""
        super().__init__(folder, fsync="always" if durable else "no")
        self._more = {name.replace("_", "-"): value for name, value in options.items()}

    def kill(self) -> None:
        """End it as `kill -9` does; `restart` brings it back."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)

    def freeze(self) -> None:
        """Stop answering without closing connections (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A client for looking inside; close it, or use it in a `with`."""
        return redis.Redis.from_url(self.url)

    def stop(self, timeout: float = 10.0) -> None:
        self.thaw()
        super().stop(timeout)

    def _options(self) -> dict[str, str]:
        return super()._options() | self._more

    def _signal(self, number: int) -> None:
        if self.poll() is None and self.pid is not None:
            os.kill(self.pid, number)
