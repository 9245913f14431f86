"""What a measure stands on: servers, services, and a fleet of real processes, which are all gone when it ends."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from seawall import ResilientServiceClient
from seawall import runtime as runtimes
from seawall.redis_link import ANSWER_TIMEOUT
from tests.acceptance.harness import Fleet
from tests.support import CountingService, PrivateRedis
from tests.support.house import caller

__all__ = ["Stand"]

Services = Mapping[str, Mapping[str, Any]]


class Stand:
    """Use it as a context. This process is the fleet's client."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Stand:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="seawall-measure-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def enter(self, part: Any) -> Any:
        """Enter a context for as long as the stand is used."""
        return self._stack.enter_context(part)

    def at_end(self, do: Callable[[], object]) -> None:
        """Do this first when the stand is cleared away: let go whoever waits."""
        self._stack.callback(do)

    def server(self, **options: str) -> PrivateRedis:
        """A started server; by default as the stock stack was measured, its append-only file synced each second."""
        folder = self.folder / f"server{next(self._numbers)}"
        server = PrivateRedis(folder, **{"appendfsync": "everysec", **options})
        server.start()
        self._stack.callback(server.stop)
        return server

    def service(self) -> CountingService:
        service: CountingService = self.enter(CountingService())
        return service

    def fleet(self, url: str, services: Services, **environ: str) -> Fleet:
        fleet: Fleet = self.enter(Fleet(self.folder, url, services, environ=environ))
        return fleet

    def client(self, fleet: Fleet, key: str) -> ResilientServiceClient:
        """A client of this process, declared as the fleet declares it."""
        if runtimes.current().settings.namespace != fleet.namespace:
            self.enter(caller(fleet.url, answer_timeout=ANSWER_TIMEOUT, namespace=fleet.namespace))
        declared = dict(fleet.services[key])
        return ResilientServiceClient(declared.pop("url"), key.capitalize(), key=key, **declared)
