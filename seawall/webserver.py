"""The web process: uvicorn around the application of seawall.supervisor.web."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from seawall.errors import ConfigurationError
from seawall.exits import Exit
from seawall.supervisor.web import make_app

__all__ = ["serve"]

logger = logging.getLogger("seawall.web")

#: Seconds between two looks whether the parent process is still there.
LOOK_SECONDS = 1.0
#: Seconds that open requests have to end at SIGTERM.
GRACE_SECONDS = 5


def serve(read_fleet: Callable[[], dict[str, Any]], host: str, port: int, orphaned: Callable[[], bool]) -> int:
    """Serve until SIGTERM or ctrl-C. Raises ConfigurationError when the address cannot be had."""
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    logger.info("listening on http://%s:%d", shown, listener.getsockname()[1])
    config = uvicorn.Config(
        make_app(read_fleet), log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_SECONDS
    )
    asyncio.run(_serve(_Server(config), listener, orphaned))
    return Exit.OK


class _Server(uvicorn.Server):
    """uvicorn raises the signal that stopped it once more at its end; a clean stop is exit code 0 here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"the web process cannot listen on {host}:{port}: {error.strerror}; "
            "set SEAWALL_WEB_PORT to another port, 0 for any"
        ) from error
    return listener


async def _serve(server: uvicorn.Server, listener: socket.socket, orphaned: Callable[[], bool]) -> None:
    async def watch() -> None:
        while not orphaned():
            await asyncio.sleep(LOOK_SECONDS)
        server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()
